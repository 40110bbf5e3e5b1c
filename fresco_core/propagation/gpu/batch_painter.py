"""Many chains painted at once on a device: each knows its own key frame and guides.

Does what `fresco_core.propagation.painter` does for one chain on the CPU; errors, weights and
levels mean the same. All pixels of a sweep look at the same field, which makes results the same in
every run, and another than the CPU's.

Shape suffixes: K chains known, B those painted; H, W rows and columns; C channels; N target and M
source pixels, row by row; D int32 words of a pixel.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fresco_core.propagation.effort import Effort
from fresco_core.propagation.gpu import chance, sizes, twin
from fresco_core.propagation.gpu.scene import ENTRY, Engine, Scene, Turn
from fresco_core.propagation.gpu.words import MOST_STYLE_CHANNELS, SHIFT, Words, signed
from fresco_core.propagation.level_sizes import Size, level_count, level_size
from fresco_core.propagation.options import LARGEST_PATCH


class BatchPainter:
    """Paints frames of K chains, of one size and one set of weights.

    ``styles_KHWC``: uint8, up to four channels. ``sources``: the guides' side of the styles, uint8
    (K,H,W,C) each. ``weights``: of the guides; like that of the style they are divided by the
    number of channels. All tensors are on the device that paints.
    """

    def __init__(
        self,
        styles_KHWC: Tensor,
        sources: Sequence[Tensor],
        weights: Sequence[float],
        *,
        style_weight: float = 1.0,
        patch: int = 5,
        uniformity: float = 3500.0,
        engine: Engine | None = None,
    ) -> None:
        if not sources:
            raise ValueError("synthesis needs at least one guide")
        if patch % 2 == 0 or not 1 <= patch <= LARGEST_PATCH:
            raise ValueError(f"patch must be odd and at most {LARGEST_PATCH}, not {patch}")
        if styles_KHWC.shape[3] > MOST_STYLE_CHANNELS:
            raise ValueError(f"styles of more than {MOST_STYLE_CHANNELS} channels")
        for source in sources:
            if source.shape[:3] != styles_KHWC.shape[:3]:
                raise ValueError(
                    f"guide sources {tuple(source.shape)} for styles {tuple(styles_KHWC.shape)}"
                )
        self._channels = [source.shape[3] for source in sources]
        self._style_channels = styles_KHWC.shape[3]
        side = min(styles_KHWC.shape[1:3])
        self._patch = min(patch, side if side % 2 else side - 1) if side > 1 else 1
        self._words = Words.of(
            [style_weight / self._style_channels] * self._style_channels,
            [
                weight / count
                for weight, count in zip(weights, self._channels, strict=True)
                for _ in range(count)
            ],
            self._patch,
        )
        self._uniformity = uniformity
        self._device = styles_KHWC.device
        self._size: Size = (styles_KHWC.shape[1], styles_KHWC.shape[2])
        self._engine: Engine = engine or _engine(self._device)
        self._table_3D = torch.tensor(self._words.table_3D, dtype=torch.int32, device=self._device)
        last = styles_KHWC.shape[3] + sum(self._channels)
        self._order_Y = torch.tensor(
            [last if channel < 0 else channel for channel in self._words.channel_Y],
            device=self._device,
        )
        self._sources_KMD = [
            self._pack([styles_KHWC, *sources], level) for level in range(level_count(side, 1))
        ]

    def paint(
        self,
        targets: Sequence[Tensor],
        effort: Effort,
        seed: int = 0,
        *,
        chains: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """What the targets, uint8 (B,H,W,C), describe: images (B,H,W,C) uint8, errors (B,H,W).

        ``chains`` (B): which of the chains the targets belong to; without it they are of all K. A
        chain's result is the same whatever others are painted. Errors, float32: per pixel the
        weighted sum of squared differences between the patch and its source patch, without the
        uniformity term, against the synthesis before the last vote.
        """
        if chains is None:
            chains = torch.arange(len(self._sources_KMD[0]), device=self._device)
        sizes_of_targets = {tuple(target.shape[:3]) for target in targets}
        channels = [target.shape[3] for target in targets]
        if (
            channels != self._channels
            or len(sizes_of_targets) != 1
            or len(chains) != len(targets[0])
        ):
            raise ValueError(
                f"guide targets {[tuple(target.shape) for target in targets]} for {len(chains)} "
                f"chains and sources of {self._channels} channels"
            )
        with torch.cuda.device_of(targets[0]):
            return self._descend(targets, effort, seed, chains)

    def _descend(
        self, targets: Sequence[Tensor], effort: Effort, seed: int, chains: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Improve a field on each level, from the coarsest on, where it is random at first."""
        size: Size = (targets[0].shape[1], targets[0].shape[2])
        field, coarse = None, (0, 0)
        for level in reversed(range(level_count(min(*self._size, *size), self._patch))):
            scene = self._scene(level, size, targets, chains)
            if field is None:
                numbers = chance.draw(
                    chance.key(seed, level),
                    torch.arange(scene.field_BN.shape[1], device=self._device),
                )
                field = sizes.scatter(numbers, len(chains), scene.source_size, self._patch)
            else:
                field = sizes.enlarge(field, coarse, scene.size, scene.source_size, self._patch)
            scene.field_BN = field
            self._refine(scene, effort, chance.key(seed, level, 0))
            field, coarse = scene.field_BN & ENTRY, scene.size
        image = scene.image_BN.view(torch.uint8).view(len(chains), *size, 4)
        error = (scene.cost_BN / self._words.unit).view(len(chains), *size)
        return image[..., : self._style_channels].contiguous(), error

    def _refine(self, scene: Scene, effort: Effort, key: int) -> None:
        """Vote and search in turn."""
        engine = self._engine
        engine.count(scene)
        engine.vote(scene)
        engine.show(scene, -1)
        engine.measure(scene)
        far = round(effort.far * 256)
        for number in range(effort.votes):
            for turn in range(effort.sweeps):
                engine.cover(scene, far)
                engine.sweep(
                    scene,
                    chance.key(key, number * effort.sweeps + turn),
                    Turn(again=turn > 0, fresh=turn == 0 and number > 0),
                )
            if number + 1 == effort.votes:
                break
            engine.vote(scene)
            engine.show(scene, effort.still)
        # The error is that against the synthesis before the last vote, to the last grey level.
        engine.show(scene, -1)
        engine.measure(scene)
        engine.vote(scene)

    def _pack(self, pictures: Sequence[Tensor], level: int) -> Tensor:
        """Words (K,M,D) of pictures at a level."""
        smaller = [sizes.reduce(picture, level) for picture in pictures]
        nothing = torch.zeros_like(smaller[0][..., :1])
        channels = torch.cat([*smaller, nothing], 3)
        return channels[..., self._order_Y].flatten(1, 2).contiguous().view(torch.int32)

    def _scene(self, level: int, size: Size, targets: Sequence[Tensor], chains_B: Tensor) -> Scene:
        source_size, size = level_size(self._size, level), level_size(size, level)
        full = targets[0][..., :1]
        style = full.new_zeros(()).expand(*full.shape[:3], self._style_channels)
        target_BND = self._pack([style, *targets], level)
        batch, pixels = target_BND.shape[:2]
        covered = source_size[0] * source_size[1]

        def room(*shape: int, dtype: torch.dtype = torch.int32) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=self._device)

        mask = signed((1 << 8 * self._style_channels) - 1)
        # Mean coverage of a patch over the mean coverage of the whole source.
        ideal = self._patch**2 * pixels / covered
        penalty = self._uniformity * self._words.unit / (self._patch**2 * ideal)
        source_KMD = self._sources_KMD[level]
        return Scene(
            words=self._words,
            patch=self._patch,
            size=size,
            source_size=source_size,
            penalty=round(penalty * 2**SHIFT),
            style_mask=mask,
            table_3D=self._table_3D,
            chain_B=chains_B.int(),
            source_KMD=source_KMD,
            style_KM=source_KMD[..., 0] & mask,
            target_BND=target_BND,
            field_BN=room(batch, pixels),
            next_BN=room(batch, pixels),
            cost_BN=room(batch, pixels),
            total_B=room(batch, dtype=torch.int64),
            image_BN=room(batch, pixels),
            changed_BN=room(batch, pixels, dtype=torch.uint8),
            active_BN=room(batch, pixels, dtype=torch.uint8),
            count_BM=room(batch, covered),
            coverage_BM=room(batch, covered),
            limit_B=room(batch, dtype=torch.int64),
        )


def _engine(device: torch.device) -> Engine:
    if device.type != "cuda":
        return twin
    from fresco_core.propagation.gpu import kernels

    return kernels
