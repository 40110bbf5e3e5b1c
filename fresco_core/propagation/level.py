"""One level of the pyramid: a key frame's side of it, made once, and room for a frame's.

Shape suffixes: H, W rows and columns; C channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from fresco_core.propagation import kernels, votes
from fresco_core.propagation.effort import Effort
from fresco_core.propagation.level_sizes import Size
from fresco_core.propagation.packing import Packing
from fresco_core.propagation.pictures import Picture

Field = NDArray[np.int32]
"""Source patch centre of every target pixel, flat: ``y << 16 | x``."""


class Level:
    """Search and votes at one size.

    ``pictures``: the style, then the guides' sources, (H,W,C) at this size. ``size``: of the
    target. ``image``: what was painted last.
    """

    def __init__(
        self, pictures: Sequence[Picture], packing: Packing, size: Size, uniformity: float
    ) -> None:
        style_HWC = pictures[0]
        self.packing = packing
        self.size = size
        self.source_size: Size = (style_HWC.shape[0], style_HWC.shape[1])
        self.image: Picture = np.zeros((*size, style_HWC.shape[2]), np.uint8)
        self._source = packing.blank(self.source_size)
        self._put(self._source, pictures, 0)
        self._source_means = packing.means(self._source, self.source_size)
        self._lanes = votes.lanes(np.ascontiguousarray(style_HWC))
        self._target = packing.blank(size)
        self._target_means = np.zeros(size[0] * size[1] * packing.depth, np.int16)
        reach = packing.patch - 1
        covered = (self.source_size[0] + 2 * reach) * (self.source_size[1] + 2 * reach)
        self._coverage = np.zeros(covered, np.int32)
        self._cost = np.zeros(size[0] * size[1], np.int32)
        self._moved = np.zeros(size[0] * size[1], np.int32)
        self._changed = np.zeros(size, np.uint8)
        self._voted: Field = np.zeros(size[0] * size[1], np.int32)
        self._everywhere = np.ones(size, np.uint8)
        # Mean coverage of a patch over the mean coverage of the whole source.
        ideal = packing.patch**2 * size[0] * size[1] / (style_HWC.shape[0] * style_HWC.shape[1])
        self._penalty = np.float32(uniformity * packing.unit / (packing.patch**2 * ideal))

    def show(self, pictures: Sequence[Picture]) -> None:
        """Take the guides' targets, (H,W,C) at this size."""
        self._put(self._target, pictures, self.image.shape[2])

    def scatter(self, state: np.uint64) -> tuple[Field, np.uint64]:
        """A random field."""
        field, state = kernels.scatter(
            self._cost.size, self.source_size[1], self.source_size[0], self.packing.patch, state
        )
        return field, np.uint64(state)

    def enlarge(self, field: Field, size: Size) -> Field:
        """The field of the level above, which is of another size."""
        enlarged: Field = kernels.enlarge(
            field, *size[::-1], *self.size[::-1], *self.source_size[::-1], self.packing.patch
        )
        return enlarged

    def refine(self, field: Field, effort: Effort, state: np.uint64) -> np.uint64:
        """Vote and search in turn; the field is improved in place."""
        self._vote(field, self._everywhere)
        self.packing.put(self._target, self.image, 0)
        self._begin(field)
        active = self._everywhere
        turn = 0
        for number in range(effort.votes):
            self._voted[:] = field
            self._measure(field, active)
            for _ in range(effort.sweeps):
                state = self._sweep(field, active, turn, effort, state)
                turn += 1
            if number + 1 == effort.votes:
                break
            stale = self._stale(field)
            self._vote(field, stale)
            self._repack(stale, max(effort.still, 0))
            active = self._everywhere if effort.still < 0 else self._around(self._changed)
        # The error is that against the synthesis before the last vote, to the last grey level.
        self.packing.put(self._target, self.image, 0)
        self._measure(field, self._everywhere)
        self._vote(field, self._stale(field))
        return state

    def search(
        self, image_HWC: Picture, field: Field, effort: Effort, state: np.uint64
    ) -> np.uint64:
        """Search for a picture that is what it is; the field is improved in place."""
        self.packing.put(self._target, image_HWC, 0)
        self._begin(field)
        self._measure(field, self._everywhere)
        for turn in range(effort.sweeps):
            state = self._sweep(field, self._everywhere, turn, effort, state)
        return state

    def error(self) -> NDArray[np.float32]:
        """The cost of every patch, (H,W), as it was last measured or improved."""
        return (self._cost / self.packing.unit).astype(np.float32).reshape(self.size)

    def _put(self, packed: NDArray[np.int16], pictures: Sequence[Picture], first: int) -> None:
        for picture in pictures:
            self.packing.put(packed, picture, first)
            first += picture.shape[2]

    def _around(self, mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """What the patches that reach into a mask are the centres of."""
        side = self.packing.patch
        return np.asarray(cv2.dilate(mask, np.ones((side, side), np.uint8)), np.uint8)

    def _begin(self, field: Field) -> None:
        """What sweeps keep up to date, made from the field and the whole packed target."""
        kernels.cover_all(field, self._coverage, self.source_size[1], self.packing.patch_tuple)
        self.packing.means(self._target, self.size, self._target_means)
        self._moved[:] = -2

    def _stale(self, field: Field) -> NDArray[np.uint8]:
        """Where a vote may come out otherwise than that of the field before the last sweeps."""
        return self._around((self._voted != field).view(np.uint8).reshape(self.size))

    def _vote(self, field: Field, stale: NDArray[np.uint8]) -> None:
        votes.vote(
            self._lanes,
            self.source_size[1],
            field,
            stale,
            self.image,
            self.packing.patch_tuple,
        )

    def _repack(self, stale: NDArray[np.uint8], still: int) -> None:
        votes.repack(
            self.image,
            stale,
            still,
            self.packing.tables,
            self._target,
            self.packing.depth,
            self.packing.margin,
            self._changed,
        )

    def _measure(self, field: Field, active: NDArray[np.uint8]) -> None:
        kernels.measure(
            self._source,
            self._target,
            self._target_means,
            field,
            self._cost,
            active.ravel(),
            self.source_size[1],
            self.size[1],
            self.image.shape[2],
            self.packing.depth_tuple,
            self.packing.patch_tuple,
        )

    def _sweep(
        self,
        field: Field,
        active: NDArray[np.uint8],
        turn: int,
        effort: Effort,
        state: np.uint64,
    ) -> np.uint64:
        least = effort.far * float(self._cost.mean()) if effort.far else -1.0
        return np.uint64(
            kernels.sweep(
                self._source,
                self._source_means,
                self._target,
                self._target_means,
                field,
                self._cost,
                self._coverage,
                active.ravel(),
                *self.source_size[::-1],
                *self.size[::-1],
                self._penalty,
                state,
                turn,
                turn % effort.sweeps > 0,
                self._moved,
                # With one pass a round there is no way back: all neighbours are asked.
                effort.sweeps == 1,
                np.float32(least),
                self.packing.depth_tuple,
                self.packing.patch_tuple,
            )
        )
