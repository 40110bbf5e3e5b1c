"""Batches in parts, which bounds what is taken for a moment."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fresco_core.propagation.gpu.footprint import PART_PIXELS


def in_parts(function: Callable[..., Tensor], *batches: Tensor) -> Tensor:
    """``function`` of batches (K,...) that belong together, part by part; (K,...).

    The first batch is one of pictures (K,H,W,...). A picture's result must not depend on the
    others.
    """
    count, height, width = batches[0].shape[:3]
    size = max(1, PART_PIXELS // (height * width))
    if count <= size:
        return function(*batches)
    parts = zip(*(batch.split(size) for batch in batches), strict=True)
    return torch.cat([function(*part) for part in parts])
