"""What in a frame is not background, told by its motion alone.

Shapes: N frames, H x W pixels, h x w = H/2 x W/2. Flow channels: 0 = x, 1 = y, in pixels.
"""

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

# A pixel follows the camera within this many pixels, plus this share of the camera's own motion.
TOLERANCE = 2.0
TOLERANCE_SLOPE = 0.1
# Specks smaller than about half of this window (half-size pixels) count as errors of the flow.
SPECK_WINDOW = 9
_SAMPLING = 4  # every so many half-size pixels vote on the camera's motion
_ATTEMPTS = 500


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
    """Salient regions without any weights: what moves unlike the camera.

    The camera's motion is the homography that most of a frame's flow agrees with (RANSAC; the same
    flow gives the same one).

    Args:
        flows_N2HW: flow of each frame towards a neighbour in time.

    Returns:
        float32 (N,1,h,w), 1 = salient, on the device of the flow.
    """
    flows_Nhw2 = F.avg_pool2d(flows_N2HW, 2).permute(0, 2, 3, 1).cpu().numpy()
    masks = [torch.from_numpy(_unlike_camera(flow_hw2)) for flow_hw2 in flows_Nhw2]
    return torch.stack(masks)[:, None].to(flows_N2HW.device)


class MotionSaliency:
    """`motion_saliency` as a saliency model: looks at the flow alone."""

    name = "motion"

    def __call__(self, frames_N3HW: Tensor, flows_N2HW: Tensor) -> Tensor:
        """See :class:`fresco_core.saliency.SaliencyModel`."""
        return motion_saliency(flows_N2HW)


def _unlike_camera(flow_hw2: NDArray[np.float32]) -> NDArray[np.float32]:
    rows, columns = flow_hw2.shape[:2]
    y_hw, x_hw = np.mgrid[0:rows, 0:columns].astype(np.float32) * 2 + 0.5
    from_hw2 = np.stack((x_hw, y_hw), -1)
    to_hw2 = from_hw2 + flow_hw2
    some = np.s_[_SAMPLING // 2 :: _SAMPLING, _SAMPLING // 2 :: _SAMPLING]
    homography_33, _ = cv2.findHomography(
        from_hw2[some].reshape(-1, 2),
        to_hw2[some].reshape(-1, 2),
        cv2.RANSAC,
        TOLERANCE,
        maxIters=_ATTEMPTS,
    )
    if homography_33 is None:
        homography_33 = np.eye(3)
    camera_hw2 = cv2.perspectiveTransform(from_hw2, homography_33)
    allowed_hw = TOLERANCE + TOLERANCE_SLOPE * np.linalg.norm(camera_hw2 - from_hw2, axis=2)
    salient_hw = np.linalg.norm(to_hw2 - camera_hw2, axis=2) > allowed_hw
    cleaned_hw = cv2.medianBlur(salient_hw.astype(np.uint8), SPECK_WINDOW)
    return np.asarray(cleaned_hw, np.float32)
