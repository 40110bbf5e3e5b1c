"""A painter knows a key frame and its guides, and paints any number of frames from it.

What belongs to the key frame (pyramid, packing, patch means) is made once, and most memory for
what belongs to a frame is kept from one to the next.

Shape suffixes: H, W rows and columns; C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fresco_core.propagation.channels import channels_of, widen
from fresco_core.propagation.effort import Effort
from fresco_core.propagation.level import Field, Level
from fresco_core.propagation.level_sizes import Size, level_count, level_size
from fresco_core.propagation.options import LARGEST_PATCH
from fresco_core.propagation.packing import Packing
from fresco_core.propagation.pictures import Picture
from fresco_core.propagation.pyramid import reduce
from fresco_core.propagation.votes import MOST_CHANNELS

# Number of a level, the level, field (changed in place), state of the random numbers -> state.
_Improve = Callable[[int, Level, Field, np.uint64], np.uint64]


@dataclass(frozen=True)
class Synthesis:
    """A synthesised picture and how well each of its patches fits.

    ``image_HWC``: uint8, or (H,W) if the style was. ``error_HW``: float32, per pixel the weighted
    sum of squared differences between the patch and its source patch, without the uniformity
    term, against the synthesis before the last vote.
    """

    image_HWC: Picture
    error_HW: NDArray[np.float32]


class Painter:
    """Paints targets of one size in the style of one picture.

    ``sources``: the guides' side of the style, uint8 (H,W) or (H,W,C), of the style's height and
    width. ``weights``: of the guides; like that of the style they are divided by the number of
    channels; a picture whose channels are all equal counts as one channel.
    """

    def __init__(
        self,
        style_HWC: Picture,
        sources: Sequence[Picture],
        weights: Sequence[float],
        size: Size,
        *,
        style_weight: float = 1.0,
        patch: int = 5,
        uniformity: float = 3500.0,
    ) -> None:
        if not sources:
            raise ValueError("synthesis needs at least one guide")
        if patch % 2 == 0 or not 1 <= patch <= LARGEST_PATCH:
            raise ValueError(f"patch must be odd and at most {LARGEST_PATCH}, not {patch}")
        for source in sources:
            if source.shape[:2] != style_HWC.shape[:2]:
                raise ValueError(f"guide source {source.shape} for a style {style_HWC.shape}")
        if style_HWC.ndim == 3 and style_HWC.shape[2] > MOST_CHANNELS:
            raise ValueError(f"a style of more than {MOST_CHANNELS} channels: {style_HWC.shape}")
        self._ndim, self._channels = style_HWC.ndim, style_HWC.shape[-1]
        self._style = channels_of(style_HWC)
        self._sources = [channels_of(source) for source in sources]
        self._weights = [style_weight, *weights]
        self._patch = _fitting(patch, style_HWC)
        self._uniformity = uniformity
        self._size = size
        self._counts: list[int] = []
        self._levels: list[Level] = []

    def paint(self, targets: Sequence[Picture], effort: Effort, seed: int = 0) -> Synthesis:
        """The target that the guides' other sides describe. The same arguments give the same."""
        pictures = self._prepare([self._style, *map(channels_of, targets)])[1:]
        self._descend(
            pictures, seed, lambda _, level, field, state: level.refine(field, effort, state)
        )
        image = self._levels[0].image.copy()
        if self._ndim == 2:
            image = image[..., 0]
        elif image.shape[2] < self._channels:
            image = np.repeat(image, self._channels, axis=2)
        return Synthesis(image, self._levels[0].error())

    def fit(
        self, image_HWC: Picture, targets: Sequence[Picture], sweeps: int, seed: int = 0
    ) -> NDArray[np.float32]:
        """How well each patch of a picture fits that something else has painted: (H,W).

        It is searched for on all levels, but never painted anew.
        """
        image, *pictures = self._prepare([*map(channels_of, [image_HWC, *targets])])
        effort = Effort(sweeps=sweeps)
        self._descend(
            pictures,
            seed,
            lambda number, level, field, state: level.search(
                reduce(image, number), field, effort, state
            ),
        )
        return self._levels[0].error()

    def _descend(self, targets: Sequence[Picture], seed: int, improve: _Improve) -> None:
        """Improve a field on each level, from the coarsest on, where it is random at first."""
        state = _first_state(seed)
        field, size = None, (0, 0)
        for number, level in reversed(list(enumerate(self._levels))):
            level.show([reduce(target, number) for target in targets])
            if field is None:
                field, state = level.scatter(state)
            else:
                field = level.enlarge(field, size)
            state, size = improve(number, level, field, state), level.size

    def _prepare(self, targets: Sequence[Picture]) -> list[Picture]:
        """The targets, the style's first, with the channels that the levels have, made anew if
        those have others.
        """
        sources = [self._style, *self._sources]
        counts = [max(a.shape[2], b.shape[2]) for a, b in zip(sources, targets, strict=True)]
        if counts != self._counts:
            self._counts = counts
            weights = []
            for weight, count in zip(self._weights, counts, strict=True):
                weights += [weight / count] * count
            packing = Packing.of(np.asarray(weights), self._patch)
            wide = [widen(*pair) for pair in zip(sources, counts, strict=True)]
            side = min(*self._style.shape[:2], *self._size)
            self._levels = [
                Level(
                    [reduce(picture, level) for picture in wide],
                    packing,
                    level_size(self._size, level),
                    self._uniformity,
                )
                for level in range(level_count(side, self._patch))
            ]
        for target in targets[1:]:
            if target.shape[:2] != self._size:
                raise ValueError(f"guide target {target.shape} for a size of {self._size}")
        return [widen(*pair) for pair in zip(targets, counts, strict=True)]


def _fitting(patch: int, style: Picture) -> int:
    """The side of a patch: a style too small for it gets a smaller one."""
    side = min(style.shape[:2])
    return min(patch, side if side % 2 else side - 1) if side > 1 else 1


def _first_state(seed: int) -> np.uint64:
    return np.uint64((seed * 0x9E3779B97F4A7C15 + 88172645463325252) % 2**64 or 1)
