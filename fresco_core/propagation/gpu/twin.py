"""The steps of synthesis in plain torch, on any device: what `kernels` must do, to the bit.

Slow. It is read to understand the kernels, tests compare with it, and it runs where they cannot.

Shape suffixes: K chains known, B those painted; N target and M source pixels, row by row; D int32
words and Y = 4D bytes of a pixel; P places in a list.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from fresco_core.propagation.gpu.chance import draw
from fresco_core.propagation.gpu.scene import ENTRY, MOVED, Scene, Turn
from fresco_core.propagation.gpu.words import LARGEST_COST, SHIFT

AT_ONCE = 1 << 16
"""Patch distances computed together."""


def vote(scene: Scene) -> None:
    """Write the image: means of overlapping source patches, rounded half up."""
    height, width = scene.size
    radius = scene.patch // 2
    batch = len(scene.chain_B)
    entry = scene.field_BN.view(batch, height, width).long() & ENTRY
    style = scene.style_KM[scene.chain_B.long()].long()
    sums = torch.zeros((4, batch, height, width), dtype=torch.int64, device=style.device)
    count = torch.zeros((height, width), dtype=torch.int64, device=style.device)
    for dy in range(-radius, radius + 1):
        for dx in range(-radius, radius + 1):
            here, there = _shifted(height, dy), _shifted(height, -dy)
            rows, columns = (here, there), (_shifted(width, dx), _shifted(width, -dx))
            at = entry[:, rows[0], columns[0]]
            place = ((at >> 16) - dy) * scene.source_size[1] + (at & 0xFFFF) - dx
            word = style.gather(1, place.flatten(1)).view(place.shape)
            for byte in range(4):
                sums[byte, :, rows[1], columns[1]] += word >> 8 * byte & 0xFF
            count[rows[1], columns[1]] += 1
    means = (2 * sums + count) // (2 * count)
    image = means[0] | means[1] << 8 | means[2] << 16 | means[3] << 24
    scene.image_BN.copy_(_signed(image).flatten(1))


def show(scene: Scene, still: int) -> None:
    """Put the image's pixels that differ by more than ``still`` levels into the target, and mark
    what they change and the centres of the patches that they are part of.
    """
    height, width = scene.size
    old, new = scene.target_BND[..., 0], scene.image_BN
    changed = torch.zeros_like(new, dtype=torch.bool)
    for byte in range(4):
        if scene.style_mask >> 8 * byte & 0xFF:
            difference = (old >> 8 * byte & 0xFF) - (new >> 8 * byte & 0xFF)
            changed |= difference.abs() > still
    kept = old & ~scene.style_mask
    scene.target_BND[..., 0] = torch.where(changed, kept | new & scene.style_mask, old)
    scene.changed_BN.copy_(changed)
    wide = changed.view(-1, 1, height, width).float()
    active = functional.max_pool2d(wide, scene.patch, 1, scene.patch // 2)
    scene.active_BN.copy_(active.flatten(1))


def count(scene: Scene) -> None:
    """Count the field's entries by source pixel."""
    scene.count_BM.zero_()
    at = scene.field_BN.long() & ENTRY
    place = (at >> 16) * scene.source_size[1] + (at & 0xFFFF)
    scene.count_BM.scatter_add_(1, place, torch.ones_like(scene.field_BN))


def cover(scene: Scene, far: int) -> None:
    """Sum the counts over what overlaps each source patch: two patches dy and dx apart share
    (patch - |dy|) * (patch - |dx|) pixels. Renew the limits, which are ``far`` 256ths of the mean
    costs, or -1 where that is 0.
    """
    counts = scene.count_BM.view(-1, *scene.source_size)
    strips = torch.zeros_like(counts)
    covered = scene.coverage_BM.view(counts.shape)
    covered.zero_()
    for step in range(1 - scene.patch, scene.patch):
        here, there = _shifted(scene.source_size[1], step), _shifted(scene.source_size[1], -step)
        strips[:, :, there] += (scene.patch - abs(step)) * counts[:, :, here]
    for step in range(1 - scene.patch, scene.patch):
        here, there = _shifted(scene.source_size[0], step), _shifted(scene.source_size[0], -step)
        covered[:, there] += (scene.patch - abs(step)) * strips[:, here]
    mean_B = scene.total_B * far // (256 * scene.field_BN.shape[1])
    scene.limit_B.copy_(mean_B if far else torch.full_like(mean_B, -1))


def measure(scene: Scene) -> None:
    """Write the cost of the field, and its sums."""
    costs = _Costs(scene)
    scene.cost_BN.view(-1).copy_(costs.of(costs.all, scene.field_BN.flatten().long() & ENTRY))
    torch.sum(scene.cost_BN, 1, out=scene.total_B)


def sweep(scene: Scene, key: int, turn: Turn) -> None:
    """One search over the active pixels; entries, costs, counts and sums are renewed.

    Each pixel looks at the entries of before the sweep alone: first those of its
    four neighbours, then at random ones around the best so far, from all over the source (if it
    costs more than the limit of its chain) to next to it.
    """
    height, width = scene.size
    costs = _Costs(scene)
    number = height * width
    radius = scene.patch // 2
    last_y, last_x = (side - 1 - radius for side in scene.source_size)
    entries = scene.field_BN.flatten().long()
    old = entries & ENTRY
    cost, limit = scene.cost_BN.view(-1), scene.limit_B.repeat_interleave(number)
    seeking = scene.active_BN.flatten() != 0
    y, x = (costs.all % number) // width, costs.all % width
    if turn.fresh:
        places = seeking.nonzero()[:, 0]
        cost[places] = costs.of(places, old[places])

    def neighbour(dy: int, dx: int) -> tuple[Tensor, Tensor]:
        inside = (y + dy >= 0) & (y + dy < height) & (x + dx >= 0) & (x + dx < width)
        return inside, entries[torch.where(inside, costs.all + dy * width + dx, costs.all)]

    if turn.again:
        moved = entries < 0
        for dy, dx in ((-1, 0), (1, 0), (0, -1), (0, 1)):
            moved |= neighbour(dy, dx)[1] < 0
        seeking &= moved | (cost > limit)
    found, found_cost = old.clone(), cost.clone()
    best = cost + costs.penalty(costs.all, old)

    def offer(places: Tensor, new: Tensor) -> None:
        differs = new != found[places]
        places, new = places[differs], new[differs]
        new_cost = costs.of(places, new)
        total = new_cost + costs.penalty(places, new)
        better = total < best[places]
        places = places[better]
        best[places], found[places] = total[better], new[better]
        found_cost[places] = new_cost[better]

    for dy, dx in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        inside, entry = neighbour(dy, dx)
        new_y, new_x = ((entry & ENTRY) >> 16) - dy, (entry & 0xFFFF) - dx
        inside &= seeking & (radius <= new_y) & (new_y <= last_y)
        inside &= (radius <= new_x) & (new_x <= last_x)
        places = inside.nonzero()[:, 0]
        offer(places, (new_y << 16 | new_x)[places])
    span, counter = max(scene.source_size) // 2, 0
    while span >= 1:
        eager = seeking if span == 1 else seeking & (found_cost > limit)
        places = eager.nonzero()[:, 0]
        bits = draw(key, (places % number) * 32 + counter)
        new_y = _around(found[places] >> 16, span, radius, last_y, bits >> 16)
        new_x = _around(found[places] & 0xFFFF, span, radius, last_x, bits & 0xFFFF)
        offer(places, new_y << 16 | new_x)
        span, counter = span >> 1, counter + 1

    moved = found != old
    for entry, change in ((old, -1), (found, 1)):
        place = (entry >> 16) * scene.source_size[1] + (entry & 0xFFFF)
        scene.count_BM.scatter_add_(
            1, place.view(-1, number), (change * moved).int().view(-1, number)
        )
    cost.copy_(found_cost)
    torch.sum(scene.cost_BN, 1, out=scene.total_B)
    scene.next_BN.view(-1).copy_(torch.where(moved, found + MOVED, found))
    scene.field_BN, scene.next_BN = scene.next_BN, scene.field_BN


class _Costs:
    """Patch costs of places: pixels of all chains painted, numbered through."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        height, width = scene.size
        radius = scene.patch // 2
        batch, depth = len(scene.chain_B), 4 * scene.words.depth
        rows = torch.arange(-radius, height + radius).clamp(0, height - 1)
        columns = torch.arange(-radius, width + radius).clamp(0, width - 1)
        framed = scene.target_BND.view(batch, height, width, -1)[:, rows][:, :, columns]
        self._width, self._framed = width + 2 * radius, framed.shape[1] * framed.shape[2]
        self._target = self._strips(framed)
        self._source = self._strips(scene.source_KMD)
        self._weights = torch.tensor(scene.words.weight_Y, dtype=torch.float64)
        self._weights = self._weights.to(framed.device)
        self.all = torch.arange(batch * height * width, device=framed.device)
        self._depth = depth

    def _strips(self, words: Tensor) -> Tensor:
        """Bytes of a row of a patch, from each pixel on."""
        depth = 4 * self.scene.words.depth
        flat = words.contiguous().view(torch.uint8).view(-1)
        count = flat.numel() // depth - self.scene.patch + 1
        return flat.as_strided((count, depth * self.scene.patch), (depth, 1))

    def of(self, places_P: Tensor, entries_P: Tensor) -> Tensor:
        """Costs of these places' patches to the source patches of these entries, int32."""
        if len(places_P) > AT_ONCE:
            pairs = zip(places_P.split(AT_ONCE), entries_P.split(AT_ONCE), strict=True)
            return torch.cat([self.of(*pair) for pair in pairs])
        scene = self.scene
        height, width = scene.size
        radius = scene.patch // 2
        slot, at = places_P // (height * width), places_P % (height * width)
        b = slot * self._framed + at // width * self._width + at % width
        a = scene.chain_B.long()[slot] * scene.style_KM.shape[1]
        a = a + ((entries_P >> 16) - radius) * scene.source_size[1]
        a = a + (entries_P & 0xFFFF) - radius
        sums_PY = torch.zeros((len(a), self._depth), dtype=torch.int32, device=a.device)
        for row in range(scene.patch):
            source = self._source[a + row * scene.source_size[1]].int()
            difference = source - self._target[b + row * self._width].int()
            sums_PY += (
                difference.square_().view(-1, scene.patch, self._depth).sum(1, dtype=torch.int32)
            )
        # Exact: no sum reaches 2**53.
        cost_P = (sums_PY.double() * self._weights).sum(1)
        return (cost_P.long() >> SHIFT).int()

    def penalty(self, places_P: Tensor, entries_P: Tensor) -> Tensor:
        """What the use of these source patches costs, int32."""
        scene = self.scene
        slot = places_P // scene.field_BN.shape[1]
        place = (entries_P >> 16) * scene.source_size[1] + (entries_P & 0xFFFF)
        use = scene.coverage_BM.view(-1)[slot * scene.coverage_BM.shape[1] + place].long()
        return (use * scene.penalty >> SHIFT).clamp_(max=LARGEST_COST).int()


def _around(centre: Tensor, span: int, low: int, high: int, bits: Tensor) -> Tensor:
    """A random number within a span of another, by 16 random bits."""
    first = (centre - span).clamp(min=low)
    return first + (bits * ((centre + span).clamp(max=high) - first + 1) >> 16)


def _shifted(side: int, step: int) -> slice:
    """The part of a side that stays within it after a step."""
    return slice(max(step, 0), side + min(step, 0))


def _signed(words: Tensor) -> Tensor:
    return (words << 32 >> 32).int()
