"""Background smoothing: the background of each frame follows the frame before it.

Source: FRESCO (Yang et al., CVPR 2024), supplementary, "background smoothing".

Shapes: N frames, K copies of them (2 under classifier-free guidance), B = K * N samples, C
channels, H x W pixels, P = H * W.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from fresco_core.correspondence import (
    Correspondence,
    sample,
    sampling_grid,
    scale_down,
    warp,
    window_sum,
)
from fresco_core.fallback import Fallback
from fresco_core.warp_rows import bilinear_rows

OCCLUSION_WINDOW = 13
SALIENCY_WINDOW = 7


def background_map(salient_N1HW: Tensor) -> Tensor:
    """1 where a frame is background, 0 near anything salient; float (N,1,H,W).

    Args:
        salient_N1HW: probability of belonging to a salient object.
    """
    return 1 - window_sum(salient_N1HW, SALIENCY_WINDOW)


class BackgroundSmoother:
    """Blends the unoccluded background of each frame with the smoothed frame before it.

    Frames are visited in order, the last one once more from frame 0; frame 0 stays as it is. What
    does not depend on the sample is made once for each grid.
    """

    def __init__(
        self,
        correspondence: Correspondence,
        background_N1HW: Tensor,
        kernels: Fallback | None = None,
    ) -> None:
        """Take what belongs to a batch.

        Args:
            correspondence: at the size of the frames, which is that of any sample or a multiple.
            background_N1HW: `background_map`, at any size.
            kernels: tries a kernel of the GPU's before the plain form; None: the plain form.
        """
        self._kernels = kernels
        self._correspondence = correspondence
        self._background_N1HW = background_N1HW
        self._blends: dict[int, list[_Blend]] = {}

    def __call__(self, sample_BCHW: Tensor) -> Tensor:
        """Smooth pictures or features of the N frames; a new tensor like `sample`, layout and all.

        Args:
            sample_BCHW: of the frames, or of several copies of them one after the other (B a
                multiple of N); any float type, worked on in float32.
        """
        rows = sample_BCHW.shape[-2]
        if rows not in self._blends:
            self._blends[rows] = self._blends_on(rows)
        blends = self._blends[rows]
        if self._kernels is None:
            smoothed_BCHW = self._plain(sample_BCHW, blends)
        else:
            smoothed_BCHW = self._kernels(
                lambda: self._by_rows(sample_BCHW, blends), lambda: self._plain(sample_BCHW, blends)
            )
        return torch.empty_like(sample_BCHW).copy_(smoothed_BCHW)

    def _plain(self, sample_BCHW: Tensor, blends: "list[_Blend]") -> Tensor:
        count = len(self._background_N1HW)
        frames_NKCHW = list(sample_BCHW.float().unflatten(0, (-1, count)).unbind(1))
        for blend in blends:
            warped_KCHW = sample(frames_NKCHW[blend.source], blend.grid_1HW2)
            frames_NKCHW[blend.target] = torch.lerp(
                frames_NKCHW[blend.target], warped_KCHW, blend.mix_11HW.expand_as(warped_KCHW)
            )
        return torch.stack(frames_NKCHW, 1).flatten(0, 1)

    def _by_rows(self, sample_BCHW: Tensor, blends: "list[_Blend]") -> Tensor:
        # Only here: what it needs is not on every machine.
        from fresco_core.smoothing_kernels import blend_rows

        samples, channels, rows, columns = sample_BCHW.shape
        rows_BPC = sample_BCHW.new_empty(samples, rows * columns, channels, dtype=torch.float32)
        picture_BCHW = rows_BPC.unflatten(1, (rows, columns)).permute(0, 3, 1, 2)
        picture_BCHW.copy_(sample_BCHW)
        frames_KNPC = rows_BPC.unflatten(0, (-1, len(self._background_N1HW)))
        for blend in blends:
            source_KPC, target_KPC = frames_KNPC[:, blend.source], frames_KNPC[:, blend.target]
            token_P4, weight_P4 = blend.rows
            blend_rows(source_KPC, target_KPC, token_P4, weight_P4, blend.mix_11HW.flatten())
        return picture_BCHW

    def _blends_on(self, rows: int) -> "list[_Blend]":
        on_grid = self._correspondence.on_grid(rows)
        backward_N1HW, forward_N1HW = on_grid.backward_occlusions, on_grid.forward_occlusions
        if on_grid is self._correspondence:
            backward_N1HW = window_sum(backward_N1HW, OCCLUSION_WINDOW)
            forward_N1HW = window_sum(forward_N1HW, OCCLUSION_WINDOW)
        background_N1HW = self._background_N1HW
        weight_N1HW = scale_down(background_N1HW, rows / background_N1HW.shape[-2])
        back_N2HW = on_grid.backward_flows
        mix_N1HW = (1 - backward_N1HW) * weight_N1HW.roll(-1, 0) * warp(weight_N1HW, back_N2HW)
        last = len(weight_N1HW) - 1
        if last == 0:
            return []
        blends = [_Blend(i, i + 1, back_N2HW[i : i + 1], mix_N1HW[i : i + 1]) for i in range(last)]
        closing_12HW = on_grid.forward_flows[last:]
        closing_11HW = (
            (1 - forward_N1HW[last:]) * weight_N1HW[last:] * warp(weight_N1HW[:1], closing_12HW)
        )
        return [*blends, _Blend(0, last, closing_12HW, closing_11HW)]


@dataclass(frozen=True, eq=False)
class _Blend:
    """How much of one frame, seen from another along a flow, goes into that."""

    source: int
    target: int
    flow_12HW: Tensor
    mix_11HW: Tensor

    @cached_property
    def grid_1HW2(self) -> Tensor:
        """Where `sample` looks."""
        return sampling_grid(self.flow_12HW)

    @cached_property
    def rows(self) -> tuple[Tensor, Tensor]:
        """The same as rows (P,4): tokens and weights."""
        token_1P4, weight_1P4 = bilinear_rows(self.flow_12HW)
        return token_1P4[0], weight_1P4[0]
