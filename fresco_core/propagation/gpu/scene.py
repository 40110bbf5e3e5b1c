"""What the synthesis of one level reads and writes, for all chains painted at once.

`twin` and `kernels` have the same functions of a scene, and do the same to the bit.

Shape suffixes: K chains known, B those painted; N target and M source pixels, row by row; D int32
words of a pixel (see `words`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from fresco_core.propagation.gpu.words import Words
from fresco_core.propagation.level_sizes import Size

MOVED = -(1 << 31)
"""Bit of a field's entry that the last sweep has changed."""
ENTRY = (1 << 31) - 1
"""The other bits: source patch centre, ``y << 16 | x``."""


@dataclass
class Scene:
    """One level.

    ``penalty``: fixed-point cost of one unit of coverage. ``table_3D``: weights of the
    words. ``chain_B``: the chain of each.
    Source: ``source_KMD`` words of style and guides, ``style_KM`` the style's alone.
    Target: ``target_BND`` words; ``field_BN`` entries, ``next_BN`` room for those of a sweep;
    ``cost_BN`` patch costs, ``total_B`` (int64) their sums; ``image_BN`` the last vote's words;
    ``changed_BN`` (uint8) what it changed in the target, ``active_BN`` (uint8) what is searched.
    ``count_BM``: how many entries name a source pixel; ``coverage_BM``: how often the pixels of
    the source patch are used. ``limit_B`` (int64): cost up to which a patch fits. All int32 but
    where told.
    """

    words: Words
    patch: int
    size: Size
    source_size: Size
    penalty: int
    style_mask: int
    table_3D: Tensor
    chain_B: Tensor
    source_KMD: Tensor
    style_KM: Tensor
    target_BND: Tensor
    field_BN: Tensor
    next_BN: Tensor
    cost_BN: Tensor
    total_B: Tensor
    image_BN: Tensor
    changed_BN: Tensor
    active_BN: Tensor
    count_BM: Tensor
    coverage_BM: Tensor
    limit_B: Tensor


class Engine(Protocol):
    """What a module of the functions has."""

    def vote(self, scene: Scene) -> None:
        """Write the image: means of overlapping source patches, rounded half up."""

    def show(self, scene: Scene, still: int) -> None:
        """Put the image's pixels that differ by more than ``still`` levels into the target, and
        mark what they change and the centres of the patches that they are part of.
        """

    def count(self, scene: Scene) -> None:
        """Count the field's entries by source pixel."""

    def cover(self, scene: Scene, far: int) -> None:
        """Sum the counts over what overlaps each source patch; renew the limits, which are ``far``
        256ths of the mean costs, or -1 where that is 0.
        """

    def measure(self, scene: Scene) -> None:
        """Write the cost of the field, and its sums."""

    def sweep(self, scene: Scene, key: int, turn: Turn) -> None:
        """One search over the active pixels; entries, costs, counts and sums are renewed."""


@dataclass(frozen=True)
class Turn:
    """Of a round: ``again``, pixels that fit and whose neighbours stayed are left alone;
    ``fresh``, costs of active pixels are out of date.
    """

    again: bool
    fresh: bool
