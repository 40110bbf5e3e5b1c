"""Frames extended to a size that a network takes, and its flow cut back.

Shape legend: N frames or flows, H rows, W columns; P, Q the extended H and W.
"""

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Padding:
    """Margins around frames of one size, as even as can be, repeating the frames' edge."""

    rows: int
    columns: int
    multiple: int  # what the extended rows and columns are multiples of
    smallest: int = 0  # and the least they are

    def extend(self, frames_N3HW: Tensor) -> Tensor:
        """The frames with their margins (N,3,P,Q)."""
        top, bottom = self._margins(self.rows)
        left, right = self._margins(self.columns)
        return F.pad(frames_N3HW, (left, right, top, bottom), mode="replicate")

    def cut(self, flows_N2PQ: Tensor) -> Tensor:
        """What lies within the margins (N,2,H,W)."""
        top, left = self._margins(self.rows)[0], self._margins(self.columns)[0]
        within = flows_N2PQ[..., top : top + self.rows, left : left + self.columns]
        return within.contiguous()

    def _margins(self, size: int) -> tuple[int, int]:
        wanted = max(self.smallest, -(-size // self.multiple) * self.multiple)
        before = (wanted - size) // 2
        return before, wanted - size - before
