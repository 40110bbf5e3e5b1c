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

import cv2
import numpy as np
from numpy.typing import NDArray

from fresco_core.propagation import kernels

Picture = NDArray[np.uint8]
Size = tuple[int, int]

SMALLEST_SIDE = 11
"""The pyramid ends at the last level whose shorter side is at least this long."""


@dataclass(frozen=True)
class Guide:
    """A guidance picture pair: uint8 (H,W) or (H,W,C), the source at the style's size."""

    source: Picture
    target: Picture
    weight: float


@dataclass(frozen=True)
class Synthesis:
    """A synthesised picture and how well each of its patches fits.

    ``image_HWC``: uint8, or (H,W) if the style was. ``error_HW``: float32, per pixel the weighted
    sum of squared differences between the patch and its source patch, without the uniformity
    term, against the synthesis before the last vote.
    """

    image_HWC: Picture
    error_HW: NDArray[np.float32]


@dataclass
class _Field:
    """Source patch centre of every target pixel, flat, row by row."""

    x: NDArray[np.int32]
    y: NDArray[np.int32]
    size: Size


def synthesize(
    style_HWC: Picture,
    guides: Sequence[Guide],
    *,
    style_weight: float = 1.0,
    patch: int = 5,
    votes: int = 12,
    sweeps: int = 6,
    uniformity: float = 3500.0,
    still: int = -1,
    seed: int = 0,
) -> Synthesis:
    """Paint the target that the guides describe with patches of the style picture.

    All guide sources have the style's height and width, all targets share another size. A guide's
    weight, like the style's, is divided by its number of channels; a picture whose channels are
    all equal counts as one channel. ``still``: after a level's first vote a pixel is searched again
    only if some pixel of its patch changed by more than this many grey levels; -1 searches every
    pixel. Runs on one thread; the same arguments give the same picture. Raises ValueError for
    sizes that do not fit together.
    """
    style, style_channels = _channels(style_HWC)
    _check(style_HWC, guides, patch, votes)
    target_size = guides[0].target.shape[:2]
    pairs = [_pair(guide) for guide in guides]
    source = np.concatenate([source for source, _ in pairs], axis=2)
    target = np.concatenate([target for _, target in pairs], axis=2)
    weights = [style_weight / style_channels] * style_channels
    for guide, (pair_source, _) in zip(guides, pairs, strict=True):
        weights += [guide.weight / pair_source.shape[2]] * pair_source.shape[2]

    patch = _fitting(patch, style)
    packing = _Packing.of(np.asarray(weights), patch)
    state = _first_state(seed)

    field: _Field | None = None
    count = _level_count(min(*style.shape[:2], *target_size))
    for level in reversed(range(count)):
        level_style = _reduce(style, level)
        level_target = _reduce(target, level)
        size = (level_target.shape[0], level_target.shape[1])
        if field is None:
            field, state = _random_field(level_style.shape[:2], size, patch, state)
        else:
            field = _enlarge(field, level_style.shape[:2], size, patch)
        image, error, state = _refine(
            level_style,
            packing.pack(level_style, _reduce(source, level)),
            level_target,
            packing,
            field,
            votes=votes,
            sweeps=sweeps,
            uniformity=uniformity,
            still=still,
            state=state,
        )
    if style_HWC.ndim == 2:
        image = image[..., 0]
    elif style_channels < style_HWC.shape[2]:
        image = np.repeat(image, style_HWC.shape[2], axis=2)
    return Synthesis(image, error)


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
    _check(style_HWC, guides, patch, votes=1)
    if image_HWC.shape[:2] != guides[0].target.shape[:2]:
        raise ValueError(f"picture {image_HWC.shape} for a target {guides[0].target.shape}")
    pairs = [_pair(Guide(style_HWC, image_HWC, style_weight)), *map(_pair, guides)]
    source = np.concatenate([source for source, _ in pairs], axis=2)
    target = np.concatenate([target for _, target in pairs], axis=2)
    weights: list[float] = []
    for weight, (part, _) in zip([style_weight, *(g.weight for g in guides)], pairs, strict=True):
        weights += [weight / part.shape[2]] * part.shape[2]
    packing = _Packing.of(np.asarray(weights), _fitting(patch, style_HWC))
    state = _first_state(seed)

    field: _Field | None = None
    for level in reversed(range(_level_count(min(*source.shape[:2], *target.shape[:2])))):
        level_source, level_target = _reduce(source, level), _reduce(target, level)
        size = (level_target.shape[0], level_target.shape[1])
        if field is None:
            field, state = _random_field(level_source.shape[:2], size, packing.patch, state)
        else:
            field = _enlarge(field, level_source.shape[:2], size, packing.patch)
        search = _Search.of(packing, packing.pack(level_source), field, uniformity)
        state = search(search.framed(packing.pack(level_target)), sweeps, state)
    return search.error()


def _check(style: Picture, guides: Sequence[Guide], patch: int, votes: int) -> None:
    if not guides:
        raise ValueError("synthesis needs at least one guide")
    if patch < 1 or patch % 2 == 0:
        raise ValueError(f"patch must be odd, not {patch}")
    if votes < 1:
        raise ValueError(f"votes must be at least 1, not {votes}")
    for guide in guides:
        if guide.source.shape[:2] != style.shape[:2]:
            raise ValueError(f"guide source {guide.source.shape} for a style {style.shape}")
        if guide.target.shape[:2] != guides[0].target.shape[:2]:
            raise ValueError("guide targets differ in size")


def _fitting(patch: int, style: Picture) -> int:
    """The side of a patch: pictures too small for it get a smaller one."""
    side = min(style.shape[:2])
    return min(patch, side if side % 2 else side - 1) if side > 1 else 1


def _first_state(seed: int) -> np.uint32:
    return np.uint32((seed * 2654435761 + 88172645) % (2**32) or 1)


def _channels(picture: Picture) -> tuple[Picture, int]:
    """The picture as (H,W,C), reduced to one channel if all are equal, and C."""
    if picture.ndim == 2:
        return picture[..., None], 1
    if (picture == picture[..., :1]).all():
        return picture[..., :1], 1
    return picture, picture.shape[2]


def _pair(guide: Guide) -> tuple[Picture, Picture]:
    """Source and target of a guide with the larger of their channel counts."""
    source, source_count = _channels(guide.source)
    target, target_count = _channels(guide.target)
    count = max(source_count, target_count)
    return (
        np.broadcast_to(source, (*source.shape[:2], count)),
        np.broadcast_to(target, (*target.shape[:2], count)),
    )


@dataclass(frozen=True)
class _Packing:
    """How channels become the kernels' int16 layout (see kernels.py)."""

    factors: NDArray[np.float64]
    depth: int
    patch: int
    unit: float
    """Integer cost of one unit of weighted squared difference."""

    @classmethod
    def of(cls, weights: NDArray[np.float64], patch: int) -> _Packing:
        """The finest scale at which neither a pixel nor the cost of a patch overflows."""
        total = max(float(weights.sum()), 1e-12)
        heaviest = max(float(weights.max()), 1e-12)
        unit = min(0.98 * 2**31 / (total * (255.5 * patch) ** 2), (32000 / 255) ** 2 / heaviest)
        return cls(np.sqrt(weights * unit), -(-len(weights) // 8) * 8, patch, unit)

    def pack(self, *pictures: Picture) -> NDArray[np.int16]:
        packed = np.zeros((*pictures[0].shape[:2], self.depth), np.int16)
        first = 0
        for picture in pictures:
            self.put(packed, picture, first)
            first += picture.shape[2]
        return packed

    def put(self, packed: NDArray[np.int16], picture: Picture, first: int) -> None:
        """Write a picture's channels from ``first`` on."""
        for c in range(picture.shape[2]):
            table = np.rint(np.arange(256) * self.factors[first + c]).astype(np.int16)
            packed[..., first + c] = table[picture[..., c]]


def _level_count(side: int) -> int:
    count = 1
    while side * 0.5**count >= SMALLEST_SIDE:
        count += 1
    return count


def _reduce(picture: Picture, level: int) -> Picture:
    """Bilinear point samples of the full picture at multiples of the width ratio."""
    if level == 0:
        return picture
    height, width = picture.shape[:2]
    rows, columns = int(height * 0.5**level), int(width * 0.5**level)
    ratio = width / columns
    y = np.minimum(np.arange(rows) * ratio, height - 1)
    x = np.minimum(np.arange(columns) * ratio, width - 1)
    top, left = y.astype(int), x.astype(int)
    dy = (y - top)[:, None, None]
    dx = (x - left)[None, :, None]
    upper = picture[top]
    lower = picture[np.minimum(top + 1, height - 1)]
    right = np.minimum(left + 1, width - 1)
    mixed = (upper[:, left] * (1 - dx) + upper[:, right] * dx) * (1 - dy)
    mixed += (lower[:, left] * (1 - dx) + lower[:, right] * dx) * dy
    return np.asarray(np.rint(mixed), np.uint8)


def _random_field(
    source_size: Size, target_size: Size, patch: int, state: np.uint32
) -> tuple[_Field, np.uint32]:
    x, y, state = kernels.scatter(
        target_size[0] * target_size[1], source_size[1], source_size[0], patch, state
    )
    return _Field(x, y, target_size), np.uint32(state)


def _enlarge(field: _Field, source_size: Size, size: Size, patch: int) -> _Field:
    """The field at twice the size: neighbours stay neighbours, kept clear of the border."""
    y, x = np.indices(size)
    coarse = (
        np.minimum(y // 2, field.size[0] - 1) * field.size[1]
        + np.minimum(x // 2, field.size[1] - 1)
    ).ravel()
    centres = []
    for values, odd, side in (
        (field.x, x.ravel() % 2, source_size[1]),
        (field.y, y.ravel() % 2, source_size[0]),
    ):
        low, high = patch, side - patch - 1
        if low > high:
            low, high = patch // 2, side - 1 - patch // 2
        centres.append(np.clip(2 * values[coarse] + odd, low, high).astype(np.int32))
    return _Field(centres[0], centres[1], size)


def _refine(
    style: Picture,
    source: NDArray[np.int16],
    target_guides: Picture,
    packing: _Packing,
    field: _Field,
    *,
    votes: int,
    sweeps: int,
    uniformity: float,
    still: int,
    state: np.uint32,
) -> tuple[Picture, NDArray[np.float32], np.uint32]:
    """Search and vote in turn on one level; changes the field in place."""
    channels = style.shape[2]
    height, width = field.size
    flat_style = np.ascontiguousarray(style).ravel()
    search = _Search.of(packing, source, field, uniformity)

    def vote() -> Picture:
        flat = kernels.vote(
            flat_style, channels, field.x, field.y, source.shape[1], width, height, packing.patch
        )
        return flat.reshape(height, width, channels)

    image = vote()
    inner = packing.pack(image, target_guides)
    target = search.framed(inner)
    for number in range(votes):
        state = search(target, sweeps, state)
        before, image = image, vote()
        if number + 1 < votes:
            packing.put(inner, image, 0)
            target = search.framed(inner)
            if still >= 0:
                changed = (cv2.absdiff(before, image).reshape(*image.shape).max(2) > still).astype(
                    np.uint8
                )
                around = np.ones((packing.patch, packing.patch), np.uint8)
                search.active = cv2.dilate(changed, around).ravel() > 0
    search.active = np.ones(height * width, np.bool_)
    search(target, 0, state)
    return image, search.error(), state


@dataclass
class _Search:
    """The search for one level's field, which it improves in place.

    ``active``: the target pixels that are searched.
    """

    packing: _Packing
    source: NDArray[np.int16]
    source_size: Size
    field: _Field
    coverage: NDArray[np.int32]
    cost: NDArray[np.int32]
    active: NDArray[np.bool_]
    penalty: np.float32

    @classmethod
    def of(
        cls, packing: _Packing, source: NDArray[np.int16], field: _Field, uniformity: float
    ) -> _Search:
        """The search of a packed source (H,W,C)."""
        height, width = source.shape[:2]
        patch, count = packing.patch, field.size[0] * field.size[1]
        # Mean coverage of a patch over the mean coverage of the whole source.
        ideal = patch**2 * count / (height * width)
        return cls(
            packing,
            source.ravel(),
            (height, width),
            field,
            kernels.cover_all(field.x, field.y, width, height, patch),
            np.zeros(count, np.int32),
            np.ones(count, np.bool_),
            np.float32(uniformity * packing.unit / (patch**2 * ideal)),
        )

    def framed(self, packed: NDArray[np.int16]) -> NDArray[np.int16]:
        """A packed target (H,W,C), flat, with a border that patches may reach into."""
        radius = self.packing.patch // 2
        return np.pad(packed, ((radius, radius), (radius, radius), (0, 0)), "edge").ravel()

    def __call__(self, target: NDArray[np.int16], sweeps: int, state: np.uint32) -> np.uint32:
        """Measure the field against a target, then improve it in so many passes."""
        field, (source_h, source_w), (height, width) = self.field, self.source_size, self.field.size
        depth, rows = (0,) * self.packing.depth, (0,) * self.packing.patch
        kernels.measure(
            self.source,
            target,
            field.x,
            field.y,
            self.cost,
            self.active,
            source_w,
            width,
            depth,
            rows,
        )
        for turn in range(sweeps):
            state = np.uint32(
                kernels.sweep(
                    self.source,
                    target,
                    field.x,
                    field.y,
                    self.cost,
                    self.coverage,
                    self.active,
                    source_w,
                    source_h,
                    width,
                    height,
                    self.penalty,
                    state,
                    turn % 2 == 0,
                    depth,
                    rows,
                )
            )
        return state

    def error(self) -> NDArray[np.float32]:
        """The cost of every patch, (H,W), as it was last measured or improved."""
        return (self.cost / self.packing.unit).astype(np.float32).reshape(self.field.size)
