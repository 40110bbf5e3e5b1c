"""Background smoothing: the background of each frame follows the frame before it.

Source: FRESCO (Yang et al., CVPR 2024), supplementary, "background smoothing".

Shapes: N frames, chunk copies of them (2 under classifier-free guidance), C channels, H x W pixels.
"""

import torch
from torch import Tensor

from fresco_core.correspondence import Correspondence, scale_down, warp, window_sum

OCCLUSION_WINDOW = 13
SALIENCY_WINDOW = 7


def background_map(salient_N1HW: Tensor) -> Tensor:
    """1 where a frame is background, 0 near anything salient; float (N,1,H,W).

    Args:
        salient_N1HW: probability of belonging to a salient object.
    """
    return 1 - window_sum(salient_N1HW, SALIENCY_WINDOW)


def smooth(sample_BCHW: Tensor, correspondence: Correspondence, background_N1HW: Tensor) -> Tensor:
    """Blend the unoccluded background of each frame with the smoothed frame before it.

    Frames are visited in order, the last one once more from frame 0; frame 0 stays as it is.

    Args:
        sample_BCHW: pictures or features of the N frames, or of several copies of them one after
            the other (B a multiple of N); any float type, worked on in float32.
        correspondence: at the size of the frames, which is that of `sample` or a multiple.
        background_N1HW: `background_map`, at any size.

    Returns:
        a new tensor like `sample`.
    """
    count, rows = len(background_N1HW), sample_BCHW.shape[-2]
    on_grid = correspondence.on_grid(rows)
    backward_N1HW, forward_N1HW = on_grid.backward_occlusions, on_grid.forward_occlusions
    if on_grid is correspondence:
        backward_N1HW = window_sum(backward_N1HW, OCCLUSION_WINDOW)
        forward_N1HW = window_sum(forward_N1HW, OCCLUSION_WINDOW)
    weight_N1HW = scale_down(background_N1HW, rows / background_N1HW.shape[-2])
    seen_N1HW = warp(weight_N1HW, on_grid.backward_flows)
    last = count - 1
    closing_11HW = (
        (1 - forward_N1HW[last:])
        * weight_N1HW[last:]
        * warp(weight_N1HW[:1], on_grid.forward_flows[last:])
    )

    frames_NKCHW = list(sample_BCHW.float().unflatten(0, (-1, count)).unbind(1))
    for i in range(last):
        mix_11HW = (1 - backward_N1HW[i]) * weight_N1HW[i + 1] * seen_N1HW[i]
        warped_KCHW = warp(frames_NKCHW[i], on_grid.backward_flows[i : i + 1])
        frames_NKCHW[i + 1] = torch.lerp(
            frames_NKCHW[i + 1], warped_KCHW, mix_11HW.expand_as(warped_KCHW)
        )
    if last > 0:
        warped_KCHW = warp(frames_NKCHW[0], on_grid.forward_flows[last:])
        frames_NKCHW[last] = torch.lerp(
            frames_NKCHW[last], warped_KCHW, closing_11HW.expand_as(warped_KCHW)
        )
    return torch.stack(frames_NKCHW, 1).flatten(0, 1).to(sample_BCHW.dtype)
