"""The input's colours kept in a translated picture.

Source: Reinhard et al., "Color Transfer between Images", IEEE CG&A 2001, in CIELAB.

Shapes: n pictures, H x W pixels, RGB.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

Frames = NDArray[np.uint8]

# A channel without any spread keeps its own: there is nothing to stretch.
_FLAT = 1e-3


def keep_colours(pictures_nHW3: Frames, inputs_nHW3: Frames, amount: float) -> Frames:
    """Pictures whose colour channels move towards mean and spread of their inputs'.

    Args:
        pictures_nHW3, inputs_nHW3: uint8 RGB.
        amount: 0 changes nothing, 1 gives every channel of CIELAB the input's mean and standard
            deviation.

    Returns:
        (n,H,W,3) uint8 RGB.
    """
    if amount == 0:
        return pictures_nHW3
    pairs = zip(pictures_nHW3, inputs_nHW3, strict=True)
    return np.stack([_kept(picture, input_, amount) for picture, input_ in pairs])


def _kept(picture_HW3: Frames, input_HW3: Frames, amount: float) -> Frames:
    lab_HW3, wanted_HW3 = _lab(picture_HW3), _lab(input_HW3)
    mean_3, spread_3 = lab_HW3.mean((0, 1)), lab_HW3.std((0, 1))
    wanted_mean_3, wanted_spread_3 = wanted_HW3.mean((0, 1)), wanted_HW3.std((0, 1))
    stretch_3 = np.where(spread_3 < _FLAT, 1, wanted_spread_3 / np.maximum(spread_3, _FLAT))
    moved_HW3 = (lab_HW3 - mean_3) * stretch_3 + wanted_mean_3
    mixed_HW3 = (lab_HW3 + amount * (moved_HW3 - lab_HW3)).astype(np.float32)
    rgb_HW3 = cv2.cvtColor(mixed_HW3, cv2.COLOR_LAB2RGB)
    return (rgb_HW3.clip(0, 1) * 255).round().astype(np.uint8)


def _lab(frame_HW3: Frames) -> NDArray[np.float32]:
    lab_HW3: NDArray[np.float32] = cv2.cvtColor(
        frame_HW3.astype(np.float32) / 255, cv2.COLOR_RGB2LAB
    )
    return lab_HW3
