"""Flow networks that compute both directions of a pair at once.

Shape legend: N pairs of frames, H rows, W columns.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor


class PairFlow(ABC):
    """Each pair is computed by itself, so neither results nor memory depend on N."""

    @torch.no_grad()
    def __call__(self, first_N3HW: Tensor, second_N3HW: Tensor) -> tuple[Tensor, Tensor]:
        """See :class:`fresco_core.flow.FlowModel`."""
        pairs = zip(first_N3HW, second_N3HW, strict=True)
        flows_2N2HW = torch.stack([self.both_ways(torch.stack(pair)) for pair in pairs], dim=1)
        return flows_2N2HW[0], flows_2N2HW[1]

    @abstractmethod
    def both_ways(self, pair_23HW: Tensor) -> Tensor:
        """Forward and backward flow (2,2,H,W) of two uint8 RGB frames."""
