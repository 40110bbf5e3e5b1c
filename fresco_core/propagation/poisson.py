"""Seams removed in the gradient domain (Pérez et al., "Poisson Image Editing", 2003).

The result keeps the blend's values and has the gradients of the picture chosen at each pixel.
Minimising the weighted squares of both is a screened Poisson equation with mirrored borders, which
a discrete cosine transform solves exactly.

Shape suffixes: H, W rows and columns; C channels (Lab).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dctn, idctn

from fresco_core.propagation.compiled import kernel
from fresco_core.propagation.histogram import from_lab, to_lab
from fresco_core.propagation.options import PUBLISHED_CLIP, PUBLISHED_WEIGHTS, Rounding
from fresco_core.propagation.pictures import Mask, Picture

_ADDED: dict[Rounding, float] = {"nearest": 0.5, "down": 1e-3}
"""Before the fraction is cut off. A constant picture must come back, inexact as float32 is."""


def fuse(
    blend_HWC: Picture,
    first_HWC: Picture,
    second_HWC: Picture,
    mask_HW: Mask,
    *,
    weights: Sequence[float] = PUBLISHED_WEIGHTS,
    clip: float | None = PUBLISHED_CLIP,
    rounding: Rounding = "down",
) -> Picture:
    """The blend with the gradients of the first picture, or of the second where the mask is True.

    Pictures are uint8 RGB (H,W,3). ``weights``: of the gradients against the values, for L, a, b.
    ``clip``: largest gradient kept, in levels of 8-bit Lab; None keeps all.
    ``rounding``: of the result, in Lab. The defaults are those of FRESCO (Yang et al., CVPR 2024).
    """
    target = to_lab(blend_HWC).astype(np.float32)
    mean = target.mean((0, 1), dtype=np.float64).astype(np.float32)
    solution = solve(
        target - mean, to_lab(first_HWC), to_lab(second_HWC), mask_HW, weights=weights, clip=clip
    )
    lab = np.clip(solution + (mean + np.float32(_ADDED[rounding])), 0, 255).astype(np.uint8)
    return from_lab(lab)


def solve(
    target_HWC: NDArray[np.float32],
    first_HWC: Picture,
    second_HWC: Picture,
    mask_HW: Mask,
    *,
    weights: Sequence[float],
    clip: float | None,
) -> NDArray[np.float32]:
    """The u that minimises weight² |grad u - chosen gradients|² + |u - target|² per channel.

    To a few thousandths of a level: in float32, which the transform takes half the time for.
    """
    height, width = mask_HW.shape
    wave = 2 - 2 * np.cos(np.pi * np.arange(height) / height)[:, None]
    wave = wave + 2 - 2 * np.cos(np.pi * np.arange(width) / width)[None, :]
    solution = np.empty(target_HWC.shape, np.float32)
    right = np.empty(mask_HW.shape, np.float32)
    for c, weight in enumerate(weights):
        _right(
            target_HWC[..., c],
            first_HWC[..., c],
            second_HWC[..., c],
            mask_HW,
            np.float32(weight**2),
            np.float32(np.inf if clip is None else clip),
            right,
        )
        waves = dctn(right, norm="ortho")
        waves /= (1 + weight**2 * wave).astype(np.float32)
        solution[..., c] = idctn(waves, norm="ortho", overwrite_x=True)
    return solution


@kernel
def _right(target, first, second, mask, weight, clip, out):
    """The target and, weighted, the adjoint of the differences applied to the chosen differences.

    The upper or left pixel of a pair decides which picture the difference comes from.
    """
    height, width = mask.shape
    for y in range(height):
        for x in range(width):
            out[y, x] = target[y, x]
    for y in range(height):
        for x in range(width):
            chosen = second if mask[y, x] else first
            here = np.float32(chosen[y, x])
            if y + 1 < height:
                step = weight * min(max(here - np.float32(chosen[y + 1, x]), -clip), clip)
                out[y, x] += step
                out[y + 1, x] -= step
            if x + 1 < width:
                step = weight * min(max(here - np.float32(chosen[y, x + 1]), -clip), clip)
                out[y, x] += step
                out[y, x + 1] -= step
