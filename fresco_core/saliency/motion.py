"""What in a frame is not background, told by its motion alone.

Shapes: N frames, H x W pixels, h x w = H/2 x W/2. Flow channels: 0 = x, 1 = y, in pixels.
"""

import torch
from torch import Tensor

from fresco_core.saliency.camera import unlike_camera


def nearest_flows(forward_N2HW: Tensor, backward_N2HW: Tensor) -> Tensor:
    """Flow of each frame of a batch towards a neighbour in time: the next, or the one before.

    The ring's last pair joins frames that may lie far apart, so the last frame looks back.

    Args:
        forward_N2HW, backward_N2HW: of the ring pairs, as in `Correspondence`.
    """
    if len(forward_N2HW) < 2:
        return forward_N2HW
    return torch.cat((forward_N2HW[:-1], backward_N2HW[-2:-1]))


def motion_saliency(flows_N2HW: Tensor) -> Tensor:
    """Salient regions without any weights: what moves unlike the camera, see `unlike_camera`.

    Args:
        flows_N2HW: flow of each frame towards a neighbour in time.

    Returns:
        float32 (N,1,h,w), 1 = salient, on the device of the flow.
    """
    flows_NHW2 = flows_N2HW.permute(0, 2, 3, 1).cpu().numpy()
    maps = [torch.from_numpy(unlike_camera(flow_HW2)) for flow_HW2 in flows_NHW2]
    return torch.stack(maps)[:, None].to(flows_N2HW.device).float()


class MotionSaliency:
    """`motion_saliency` as a saliency model: looks at the flow alone."""

    name = "motion"

    def __call__(self, frames_N3HW: Tensor, flows_N2HW: Tensor) -> Tensor:
        """See :class:`fresco_core.saliency.SaliencyModel`."""
        return motion_saliency(flows_N2HW)
