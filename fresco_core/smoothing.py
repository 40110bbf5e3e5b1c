"""Background smoothing: the background of each frame follows the frame before it.

Source: FRESCO (Yang et al., CVPR 2024), supplementary, "background smoothing".

Shapes: N frames, chunk copies of them (2 under classifier-free guidance), C channels, H x W pixels.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from fresco_core.correspondence import (
    Correspondence,
    sample,
    sampling_grid,
    scale_down,
    window_sum,
)

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

    def __init__(self, correspondence: Correspondence, background_N1HW: Tensor) -> None:
        """Take what belongs to a batch.

        Args:
            correspondence: at the size of the frames, which is that of any sample or a multiple.
            background_N1HW: `background_map`, at any size.
        """
        self._correspondence = correspondence
        self._background_N1HW = background_N1HW
        self._blends: dict[int, list[_Blend]] = {}

    def __call__(self, sample_BCHW: Tensor) -> Tensor:
        """Smooth pictures or features of the N frames; a new tensor like `sample`.

        Args:
            sample_BCHW: of the frames, or of several copies of them one after the other (B a
                multiple of N); any float type, worked on in float32.
        """
        count, rows = len(self._background_N1HW), sample_BCHW.shape[-2]
        if rows not in self._blends:
            self._blends[rows] = self._blends_on(rows)
        frames_NKCHW = list(sample_BCHW.float().unflatten(0, (-1, count)).unbind(1))
        for blend in self._blends[rows]:
            warped_KCHW = sample(frames_NKCHW[blend.source], blend.grid_1HW2)
            frames_NKCHW[blend.target] = torch.lerp(
                frames_NKCHW[blend.target], warped_KCHW, blend.mix_11HW.expand_as(warped_KCHW)
            )
        return torch.stack(frames_NKCHW, 1).flatten(0, 1).to(sample_BCHW.dtype)

    def _blends_on(self, rows: int) -> "list[_Blend]":
        on_grid = self._correspondence.on_grid(rows)
        backward_N1HW, forward_N1HW = on_grid.backward_occlusions, on_grid.forward_occlusions
        if on_grid is self._correspondence:
            backward_N1HW = window_sum(backward_N1HW, OCCLUSION_WINDOW)
            forward_N1HW = window_sum(forward_N1HW, OCCLUSION_WINDOW)
        background_N1HW = self._background_N1HW
        weight_N1HW = scale_down(background_N1HW, rows / background_N1HW.shape[-2])
        back_NHW2 = sampling_grid(on_grid.backward_flows)
        seen_N1HW = sample(weight_N1HW, back_NHW2)
        mix_N1HW = (1 - backward_N1HW) * weight_N1HW.roll(-1, 0) * seen_N1HW
        last = len(weight_N1HW) - 1
        if last == 0:
            return []
        blends = [_Blend(i, i + 1, back_NHW2[i : i + 1], mix_N1HW[i : i + 1]) for i in range(last)]
        closing_1HW2 = sampling_grid(on_grid.forward_flows[last:])
        closing_11HW = (
            (1 - forward_N1HW[last:]) * weight_N1HW[last:] * sample(weight_N1HW[:1], closing_1HW2)
        )
        return [*blends, _Blend(0, last, closing_1HW2, closing_11HW)]


@dataclass(frozen=True, eq=False)
class _Blend:
    """How much of one frame, seen from another, goes into that."""

    source: int
    target: int
    grid_1HW2: Tensor
    mix_11HW: Tensor
