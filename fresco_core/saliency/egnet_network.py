"""EGNet's network on a ResNet: salient objects by their edges.

Source: EGNet (Zhao et al., ICCV 2019). Modules are named as in the published weights, including
those of outputs that only training looks at (`score`), which are never computed.

Shape legend: N pictures of H x W pixels. Widths of features are those of `EgnetWidths`; levels 0
to 4 are the backbone's, at 1/2, 1/4, 1/8, 1/16 and 1/16 of the picture.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

_EXPANSION = 4  # of a bottleneck's width at its end
_KERNELS = (3, 3, 5, 5, 7)  # of each level's three convolutions: the deeper, the wider they look


@dataclass(frozen=True)
class EgnetWidths:
    """Sizes that a state dict decides; the defaults are those of the published weights."""

    stem: int = 64
    stages: tuple[int, ...] = (64, 128, 256, 512)
    blocks: tuple[int, ...] = (3, 4, 6, 3)
    edge: int = 128
    low: int = 256
    high: int = 512

    @classmethod
    def of(cls, state: Mapping[str, Tensor]) -> "EgnetWidths":
        """Those of a state dict.

        Raises:
            KeyError: the state dict is of another network.
        """

        def width(name: str) -> int:
            return state[f"{name}.weight"].shape[0]

        stages = [f"base.layer{i}." for i in (1, 2, 3, 4)]
        return cls(
            stem=width("base.conv1"),
            stages=tuple(width(f"{stage}0.conv1") for stage in stages),
            blocks=tuple(
                len({name.split(".")[2] for name in state if name.startswith(stage)})
                for stage in stages
            ),
            edge=width("convert.convert0.0.0"),
            low=width("convert.convert0.1.0"),
            high=width("convert.convert0.2.0"),
        )

    @property
    def levels(self) -> tuple[int, ...]:
        """Widths of the reduced levels."""
        return self.edge, self.low, self.high, self.high, self.high


class EgnetNetwork(nn.Module):
    """Pictures to logits of their salient regions."""

    def __init__(self, widths: EgnetWidths) -> None:
        super().__init__()
        self.base = Backbone(widths)
        self.convert = Reduction(widths)
        self.merge1 = Objects(widths)
        self.merge2 = ObjectsWithEdges(widths)

    def forward(self, pictures_N3HW: Tensor) -> Tensor:
        """Logits (N,1,H,W), 0 between salient and not.

        Args:
            pictures_N3HW: 0..255 less the mean.
        """
        edge, objects = self.merge1(self.convert(self.base(pictures_N3HW)))
        return resize(self.merge2(edge, objects), pictures_N3HW)


class Backbone(nn.Module):
    """ResNet of bottlenecks, whose last stage looks wider instead of making its grid smaller."""

    def __init__(self, widths: EgnetWidths) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, widths.stem, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(widths.stem)
        ends = [_EXPANSION * width for width in widths.stages]
        first, second, third, fourth = zip(
            (widths.stem, *ends), widths.stages, widths.blocks, strict=False
        )
        self.layer1 = _stage(*first)
        self.layer2 = _stage(*second, stride=2)
        self.layer3 = _stage(*third, stride=2)
        self.layer4 = _stage(*fourth, dilation=2)

    def forward(self, pictures_N3HW: Tensor) -> list[Tensor]:
        levels = [F.relu(self.bn1(self.conv1(pictures_N3HW)))]
        features = F.max_pool2d(levels[0], 3, stride=2, padding=1, ceil_mode=True)
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            features = stage(features)
            levels.append(features)
        return levels


def _stage(before: int, width: int, blocks: int, stride: int = 1, dilation: int = 1) -> nn.Module:
    first = Bottleneck(before, width, stride, dilation, shortcut=True)
    others = (Bottleneck(_EXPANSION * width, width, 1, dilation) for _ in range(blocks - 1))
    return nn.Sequential(first, *others)


class Bottleneck(nn.Module):
    """Three convolutions beside a shortcut; the first one has the stride."""

    def __init__(
        self, before: int, width: int, stride: int, dilation: int, shortcut: bool = False
    ) -> None:
        super().__init__()
        after = _EXPANSION * width
        self.conv1 = nn.Conv2d(before, width, 1, stride=stride, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, after, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(after)
        self.downsample: nn.Module | None = None
        if shortcut:
            self.downsample = nn.Sequential(
                nn.Conv2d(before, after, 1, stride=stride, bias=False), nn.BatchNorm2d(after)
            )

    def forward(self, features: Tensor) -> Tensor:
        beside = features if self.downsample is None else self.downsample(features)
        features = F.relu(self.bn1(self.conv1(features)))
        features = F.relu(self.bn2(self.conv2(features)))
        return F.relu(self.bn3(self.conv3(features)) + beside)


class Reduction(nn.Module):
    """The backbone's levels, less wide."""

    def __init__(self, widths: EgnetWidths) -> None:
        super().__init__()
        found = (widths.stem, *(_EXPANSION * width for width in widths.stages))
        pairs = zip(found, widths.levels, strict=True)
        self.convert0 = nn.ModuleList(_projection(wide, narrow) for wide, narrow in pairs)

    def forward(self, levels: Sequence[Tensor]) -> list[Tensor]:
        return [reduce(level) for reduce, level in zip(self.convert0, levels, strict=True)]


class Objects(nn.Module):
    """From the deepest level up: where objects are; and their edges, on the finest level."""

    def __init__(self, widths: EgnetWidths) -> None:
        super().__init__()
        edge, low, high = widths.edge, widths.low, widths.high
        # the first is of no use, but in the published weights
        self.trans = nn.ModuleList(
            (_projection(low, edge), _projection(high, low), _projection(high, edge))
        )
        levels = zip(widths.levels, _KERNELS, strict=True)
        self.up = nn.ModuleList(_convolutions(width, kernel) for width, kernel in levels)
        self.score = nn.ModuleList(nn.Conv2d(width, 1, 3, padding=1) for width in widths.levels)

    def forward(self, levels: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Features of the edge, and of objects on levels 1 to 4."""
        deepest = self.up[4](levels[4])
        objects = [deepest]
        for level in (3, 2, 1):
            deeper = self.trans[1](objects[0]) if level == 1 else objects[0]
            level_and_deeper = levels[level] + resize(deeper, levels[level])
            objects.insert(0, self.up[level](level_and_deeper))
        edge = self.up[0](levels[0] + resize(self.trans[2](deepest), levels[0]))
        return edge, objects


class ObjectsWithEdges(nn.Module):
    """Every level of objects looked at together with the edge, then all of them."""

    def __init__(self, widths: EgnetWidths) -> None:
        super().__init__()
        edge, levels = widths.edge, widths.levels[1:]
        # lists in lists, as the published names have it
        self.trans = nn.ModuleList([nn.ModuleList(_projection(width, edge) for width in levels)])
        self.up = nn.ModuleList(
            [nn.ModuleList(_convolutions(edge, kernel) for kernel in _KERNELS[1:])]
        )
        self.score = nn.ModuleList(
            [nn.ModuleList(nn.Conv2d(edge, 1, 3, padding=1) for _ in levels)]
        )
        self.final_score = nn.Sequential(
            nn.Conv2d(edge, edge, 5, padding=2), nn.ReLU(), nn.Conv2d(edge, 1, 3, padding=1)
        )

    def forward(self, edge: Tensor, objects: Sequence[Tensor]) -> Tensor:
        narrows, looks = self.trans[0].children(), self.up[0].children()
        seen: Tensor | None = None
        for narrow, look, level in zip(narrows, looks, objects, strict=True):
            with_edge = look(resize(narrow(level), edge) + edge)
            seen = with_edge if seen is None else F.relu(seen + with_edge)
        logits: Tensor = self.final_score(seen)
        return logits


def resize(features: Tensor, like: Tensor) -> Tensor:
    """Bilinear, corners on corners, to the size of another."""
    return F.interpolate(features, like.shape[-2:], mode="bilinear", align_corners=True)


def _projection(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, after, 1, bias=False), nn.ReLU())


def _convolutions(width: int, kernel: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(3):
        layers += [nn.Conv2d(width, width, kernel, padding=kernel // 2), nn.ReLU()]
    return nn.Sequential(*layers)
