"""What moves unlike the camera, on arrays: needs no torch.

Shapes: H x W pixels, h x w = H/2 x W/2. Flow channels: 0 = x, 1 = y, in pixels.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

# A pixel follows the camera within this many pixels, plus this share of the camera's own motion.
TOLERANCE = 2.0
TOLERANCE_SLOPE = 0.1
# Specks smaller than about half of this window (half-size pixels) count as errors of the flow.
SPECK_WINDOW = 9
_SAMPLING = 4  # every so many half-size pixels vote on the camera's motion
_ATTEMPTS = 500


def unlike_camera(flow_HW2: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Where a frame moves unlike the camera: (h,w), 1 or 0.

    The camera's motion is the homography that most of the flow agrees with (RANSAC). The same flow
    gives the same map, whatever OpenCV's threads and however the flow lies in memory.

    Args:
        flow_HW2: of the frame towards a neighbour in time.
    """
    flow_hw2 = _half_size(flow_HW2)
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
    return np.asarray(cleaned_hw, np.uint8)


def _half_size(flow_HW2: NDArray[np.float32]) -> NDArray[np.float32]:
    """Means of two by two pixels, an odd last row or column left out."""
    rows, columns = (size // 2 * 2 for size in flow_HW2.shape[:2])
    top, bottom = flow_HW2[:rows:2, :columns], flow_HW2[1:rows:2, :columns]
    sums_hw2 = top[:, ::2] + top[:, 1::2] + bottom[:, ::2] + bottom[:, 1::2]
    halved_hw2: NDArray[np.float32] = np.ascontiguousarray(sums_hw2 / np.float32(4))
    return halved_hw2
