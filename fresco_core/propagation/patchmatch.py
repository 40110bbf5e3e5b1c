"""Example-based synthesis of a style picture under guides (EBSynth).

Fišer et al., "StyLit", 2016; Jamriška et al., "Stylizing Video by Example", 2019: an image pyramid,
and on every level alternating search (PatchMatch, Barnes et al. 2009) and vote steps, with a
penalty on source pixels used too often (uniformity). ``synthesize`` paints; ``fit`` tells how well
a picture fits that something else has painted. Written from the papers.

Shape suffixes: H, W rows and columns; C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fresco_core.propagation.effort import Effort
from fresco_core.propagation.painter import Painter, Synthesis
from fresco_core.propagation.pictures import Picture

_DEFAULT = Effort()

__all__ = ["Guide", "Synthesis", "fit", "synthesize"]


@dataclass(frozen=True)
class Guide:
    """A guidance picture pair: uint8 (H,W) or (H,W,C), the source at the style's size."""

    source: Picture
    target: Picture
    weight: float


def synthesize(
    style_HWC: Picture,
    guides: Sequence[Guide],
    *,
    style_weight: float = 1.0,
    patch: int = 5,
    uniformity: float = 3500.0,
    effort: Effort = _DEFAULT,
    seed: int = 0,
) -> Synthesis:
    """Paint the target that the guides describe with patches of the style picture.

    All guide sources have the style's height and width, all targets share another size. A guide's
    weight, like the style's, is divided by its number of channels; a picture whose channels are
    all equal counts as one channel. Runs on one thread; the same arguments give the same picture.
    Raises ValueError for sizes that do not fit together, for more than four channels of the style,
    and for patches of more than 15 pixels.
    """
    painter = _painter(style_HWC, guides, style_weight, patch, uniformity)
    return painter.paint([guide.target for guide in guides], effort, seed)


def fit(
    image_HWC: Picture,
    style_HWC: Picture,
    guides: Sequence[Guide],
    *,
    style_weight: float = 1.0,
    patch: int = 5,
    sweeps: int = 6,
    uniformity: float = 3500.0,
    seed: int = 0,
) -> NDArray[np.float32]:
    """How well each patch of a picture that something else has painted fits: the (H,W) error.

    As `synthesize` has it: the picture is searched for on all levels, but never painted anew. It
    is uint8, of the style's channels and the targets' size; other arguments as of `synthesize`.
    """
    painter = _painter(style_HWC, guides, style_weight, patch, uniformity)
    if image_HWC.shape[:2] != guides[0].target.shape[:2]:
        raise ValueError(f"picture {image_HWC.shape} for a target {guides[0].target.shape}")
    return painter.fit(image_HWC, [guide.target for guide in guides], sweeps, seed)


def _painter(
    style_HWC: Picture,
    guides: Sequence[Guide],
    style_weight: float,
    patch: int,
    uniformity: float,
) -> Painter:
    if len({guide.target.shape[:2] for guide in guides}) > 1:
        raise ValueError("guide targets differ in size")
    size = guides[0].target.shape[:2] if guides else (1, 1)
    return Painter(
        style_HWC,
        [guide.source for guide in guides],
        [guide.weight for guide in guides],
        (size[0], size[1]),
        style_weight=style_weight,
        patch=patch,
        uniformity=uniformity,
    )
