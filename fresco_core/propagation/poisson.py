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

from fresco_core.propagation.guides import Mask, Picture
from fresco_core.propagation.histogram import from_lab, to_lab
from fresco_core.propagation.options import PUBLISHED_CLIP, PUBLISHED_WEIGHTS


def fuse(
    blend_HWC: Picture,
    first_HWC: Picture,
    second_HWC: Picture,
    mask_HW: Mask,
    *,
    weights: Sequence[float] = PUBLISHED_WEIGHTS,
    clip: float | None = PUBLISHED_CLIP,
) -> Picture:
    """The blend with the gradients of the first picture, or of the second where the mask is True.

    Pictures are uint8 RGB (H,W,3). ``weights``: of the gradients against the values, for L, a, b.
    ``clip``: largest gradient kept, in levels of 8-bit Lab; None keeps all. The defaults are those
    of FRESCO (Yang et al., CVPR 2024).
    """
    target = to_lab(blend_HWC).astype(np.float64)
    mean = target.mean((0, 1))
    solution = solve(
        target - mean, to_lab(first_HWC), to_lab(second_HWC), mask_HW, weights=weights, clip=clip
    )
    # A constant picture must come back as it was although values are cut off.
    lab = np.clip(solution + mean + 1e-9, 0, 255).astype(np.uint8)
    return from_lab(lab)


def solve(
    target_HWC: NDArray[np.float64],
    first_HWC: Picture,
    second_HWC: Picture,
    mask_HW: Mask,
    *,
    weights: Sequence[float],
    clip: float | None,
) -> NDArray[np.float64]:
    """The u that minimises weight² |grad u - chosen gradients|² + |u - target|² per channel."""
    height, width = mask_HW.shape
    wave = 2 - 2 * np.cos(np.pi * np.arange(height) / height)[:, None]
    wave = wave + 2 - 2 * np.cos(np.pi * np.arange(width) / width)[None, :]
    solution = np.empty_like(target_HWC)
    for c, weight in enumerate(weights):
        right = target_HWC[..., c] + weight**2 * _divergence(
            first_HWC[..., c], second_HWC[..., c], mask_HW, clip
        )
        solution[..., c] = idctn(dctn(right, norm="ortho") / (1 + weight**2 * wave), norm="ortho")
    return solution


def _divergence(
    first_HW: Picture, second_HW: Picture, mask_HW: Mask, clip: float | None
) -> NDArray[np.float64]:
    """Adjoint of the differences applied to the chosen differences.

    The upper or left pixel of a pair decides which picture the difference comes from.
    """
    total = np.zeros(mask_HW.shape)
    for axis in (0, 1):
        head: tuple[slice, ...] = (slice(None),) * axis + (slice(None, -1),)
        tail: tuple[slice, ...] = (slice(None),) * axis + (slice(1, None),)
        chosen = np.where(
            mask_HW[head],
            -np.diff(second_HW.astype(np.float64), axis=axis),
            -np.diff(first_HW.astype(np.float64), axis=axis),
        )
        if clip is not None:
            chosen = np.clip(chosen, -clip, clip)
        total[head] += chosen
        total[tail] -= chosen
    return total
