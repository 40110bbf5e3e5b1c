"""GMFlow's network: flow by matching all of one picture with all of the other.

Source: GMFlow (Xu et al., CVPR 2022). Modules are named as in the published weights.

Shape legend: B pictures (the first and the second of each pair, [first; second]), H x W pixels,
C channels, h x w = H/8 x W/8 tokens, T = h*w of them, V windows of S tokens, D any width.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

STRIDE = 8  # a token's side in pixels
WINDOWS = 2  # along each axis
_APART = -100.0  # added to scores between tokens that a shifted window only seems to join
_EPSILON = 1e-6
_PERIOD = 10000
# At most so many attention scores at once (a quarter of a GiB): what a frame needs beyond that
# grows with its tokens, not with their square.
_SCORES = 1 << 26


@dataclass(frozen=True)
class GmflowWidths:
    """Sizes that a state dict decides; the defaults are those of the published weights."""

    stem: int = 64
    stages: tuple[int, int, int] = (64, 96, 128)
    channels: int = 128
    blocks: int = 6
    hidden: int = 1024  # of the blocks' networks
    upsampler: int = 256

    @classmethod
    def of(cls, state: Mapping[str, Tensor]) -> "GmflowWidths":
        """Those of a state dict.

        Raises:
            KeyError: the state dict is of another network.
        """

        def width(name: str) -> int:
            return state[name].shape[0]

        numbers = (re.match(r"transformer\.layers\.(\d+)\.", name) for name in state)
        stages = [width(f"backbone.layer{i}.0.conv1.weight") for i in (1, 2, 3)]
        return cls(
            stem=width("backbone.conv1.weight"),
            stages=(stages[0], stages[1], stages[2]),
            channels=width("backbone.conv2.weight"),
            blocks=1 + max((int(found[1]) for found in numbers if found), default=-1),
            hidden=width("transformer.layers.0.cross_attn_ffn.mlp.0.weight"),
            upsampler=width("upsampler.0.weight"),
        )


class GmflowNetwork(nn.Module):
    """One scale, two windows along each axis, global matching and propagation."""

    def __init__(self, widths: GmflowWidths) -> None:
        super().__init__()
        channels = widths.channels
        self.backbone = Encoder(widths)
        self.transformer = Transformer(widths)
        self.feature_flow_attn = Propagation(channels)
        self.upsampler = nn.Sequential(
            nn.Conv2d(2 + channels, widths.upsampler, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(widths.upsampler, 9 * STRIDE**2, 1),
        )

    def forward(self, pictures_B3HW: Tensor) -> Tensor:
        """Flow of each picture towards its partner.

        Args:
            pictures_B3HW: [first; second], standardised; H and W multiples of 16.

        Returns:
            (B,2,H,W) in pixels: forward flow on the first pictures, backward on the second.
        """
        features_BChw = self.backbone(pictures_B3HW)
        features_BChw = features_BChw + window_positions(features_BChw)
        rows, columns = features_BChw.shape[-2:]
        tokens_BTC = self.transformer(features_BChw.flatten(2).transpose(1, 2), rows, columns)
        places_T2 = _places(rows, columns).to(tokens_BTC)
        matched_BT2 = attend(
            tokens_BTC, _partners(tokens_BTC), places_T2.expand(len(tokens_BTC), -1, -1)
        )
        flow_BT2 = self.feature_flow_attn(tokens_BTC, matched_BT2 - places_T2)
        both_BDT = torch.cat((flow_BT2, tokens_BTC), -1).transpose(1, 2)
        return self._upsample(both_BDT.unflatten(2, (rows, columns)))

    def _upsample(self, both_BDhw: Tensor) -> Tensor:
        """Each pixel's flow is a mean of the nine tokens around it, weighted by the network."""
        rows, columns = both_BDhw.shape[-2:]
        weights = self.upsampler(both_BDhw).view(-1, 1, 9, STRIDE, STRIDE, rows, columns)
        around = F.unfold(STRIDE * both_BDhw[:, :2], 3, padding=1)
        around = around.view(-1, 2, 9, 1, 1, rows, columns)
        cells = (weights.softmax(2) * around).sum(2)  # (B, 2, STRIDE, STRIDE, h, w)
        return cells.permute(0, 1, 4, 2, 5, 3).reshape(-1, 2, rows * STRIDE, columns * STRIDE)


class Encoder(nn.Module):
    """Pictures to features at an eighth of their size."""

    def __init__(self, widths: GmflowWidths) -> None:
        super().__init__()
        first, second, third = widths.stages
        self.conv1 = nn.Conv2d(3, widths.stem, 7, stride=2, padding=3, bias=False)
        self.layer1 = _stage(widths.stem, first, 1)
        self.layer2 = _stage(first, second, 2)
        self.layer3 = _stage(second, third, 2)
        self.conv2 = nn.Conv2d(third, widths.channels, 1)

    def forward(self, pictures_B3HW: Tensor) -> Tensor:
        features = F.relu(F.instance_norm(self.conv1(pictures_B3HW)))
        features = self.layer3(self.layer2(self.layer1(features)))
        features_BChw: Tensor = self.conv2(features)
        return features_BChw


def _stage(width: int, wider: int, stride: int) -> nn.Sequential:
    return nn.Sequential(Residual(width, wider, stride), Residual(wider, wider, 1))


class Residual(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, width: int, wider: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, wider, 3, stride=stride, padding=1, bias=False)
        self.conv2 = nn.Conv2d(wider, wider, 3, padding=1, bias=False)
        self.downsample: nn.Module | None = None
        if stride > 1 or wider != width:
            self.downsample = nn.Sequential(
                nn.Conv2d(width, wider, 1, stride=stride), nn.InstanceNorm2d(wider)
            )

    def forward(self, features: Tensor) -> Tensor:
        shortcut = features if self.downsample is None else self.downsample(features)
        features = F.relu(F.instance_norm(self.conv1(features)))
        return F.relu(shortcut + F.relu(F.instance_norm(self.conv2(features))))


class Transformer(nn.Module):
    """Blocks, every other one with its windows shifted."""

    def __init__(self, widths: GmflowWidths) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            Block(widths.channels, widths.hidden) for _ in range(widths.blocks)
        )

    def forward(self, tokens_BTC: Tensor, rows: int, columns: int) -> Tensor:
        for i, block in enumerate(self.layers):
            tokens_BTC = block(tokens_BTC, Windows(rows, columns, shifted=i % 2 == 1))
        return tokens_BTC


class Block(nn.Module):
    """Every token learns from its own picture, then from the other one."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.self_attn = Attention(channels)
        self.cross_attn_ffn = Attention(channels, hidden)

    def forward(self, tokens_BTC: Tensor, windows: "Windows") -> Tensor:
        target_BTC = _partners(tokens_BTC)
        tokens_BTC = self.self_attn(tokens_BTC, tokens_BTC, windows)
        tokens_BTC = self.cross_attn_ffn(tokens_BTC, target_BTC, windows)
        return tokens_BTC


class Attention(nn.Module):
    """Attention within windows, added to its input; with a network behind it where wanted."""

    def __init__(self, channels: int, hidden: int | None = None) -> None:
        super().__init__()
        self.q_proj = nn.Linear(channels, channels, bias=False)
        self.k_proj = nn.Linear(channels, channels, bias=False)
        self.v_proj = nn.Linear(channels, channels, bias=False)
        self.merge = nn.Linear(channels, channels, bias=False)
        self.norm1 = nn.LayerNorm(channels)
        self.mlp: nn.Module | None = None
        if hidden is not None:
            self.mlp = nn.Sequential(
                nn.Linear(2 * channels, hidden, bias=False),
                nn.GELU(),
                nn.Linear(hidden, channels, bias=False),
            )
            self.norm2 = nn.LayerNorm(channels)

    def forward(self, source_BTC: Tensor, target_BTC: Tensor, windows: "Windows") -> Tensor:
        query, key, value = (
            windows.split(projection(tokens_BTC))
            for projection, tokens_BTC in (
                (self.q_proj, source_BTC),
                (self.k_proj, target_BTC),
                (self.v_proj, target_BTC),
            )
        )
        regions = windows.regions(len(source_BTC), source_BTC.device)
        attended_BTC = windows.join(attend(query, key, value, regions))
        message_BTC = self.norm1(self.merge(attended_BTC))
        if self.mlp is not None:
            message_BTC = self.norm2(self.mlp(torch.cat((source_BTC, message_BTC), -1)))
        return source_BTC + message_BTC


class Propagation(nn.Module):
    """Tokens that look alike share their flow, which mends it where nothing could be matched."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.q_proj = nn.Linear(channels, channels)
        self.k_proj = nn.Linear(channels, channels)

    def forward(self, tokens_BTC: Tensor, flow_BT2: Tensor) -> Tensor:
        query_BTC = self.q_proj(tokens_BTC)
        key_BTC = self.k_proj(query_BTC)  # of the query: so the weights were trained
        return attend(query_BTC, key_BTC, flow_BT2)


@dataclass(frozen=True)
class Windows:
    """A picture's tokens in two by two windows, moved by half a window where shifted."""

    rows: int
    columns: int
    shifted: bool

    def split(self, tokens_BTD: Tensor) -> Tensor:
        """Tokens by window (B*V,S,D)."""
        grid = tokens_BTD.unflatten(1, (self.rows, self.columns))
        return self._windows(grid.roll(tuple(-step for step in self._shift()), (1, 2)))

    def join(self, windows_VSD: Tensor) -> Tensor:
        """What `split` has split (B,T,D)."""
        high, wide = self._size()
        split = windows_VSD.view(-1, WINDOWS, WINDOWS, high, wide, windows_VSD.shape[-1])
        grid = split.transpose(2, 3).reshape(-1, self.rows, self.columns, split.shape[-1])
        return grid.roll(self._shift(), (1, 2)).flatten(1, 2)

    def regions(self, count: int, device: torch.device) -> Tensor | None:
        """Which tokens of a window lie together in the picture too (B*V,S); None: all.

        Args:
            count: B.
        """
        if not self.shifted:
            return None
        vertical, horizontal = (
            (torch.arange(size, device=device) >= size - window).long()
            + (torch.arange(size, device=device) >= size - step)
            for size, window, step in zip(
                (self.rows, self.columns), self._size(), self._shift(), strict=True
            )
        )
        grid = (3 * vertical[:, None] + horizontal).expand(count, -1, -1)
        return self._windows(grid[..., None])[..., 0]

    def _windows(self, grid_BhwD: Tensor) -> Tensor:
        high, wide = self._size()
        split = grid_BhwD.reshape(-1, WINDOWS, high, WINDOWS, wide, grid_BhwD.shape[-1])
        return split.transpose(2, 3).reshape(-1, high * wide, split.shape[-1])

    def _size(self) -> tuple[int, int]:
        return self.rows // WINDOWS, self.columns // WINDOWS

    def _shift(self) -> tuple[int, int]:
        high, wide = self._size()
        return (high // 2, wide // 2) if self.shifted else (0, 0)


def attend(
    query_BTC: Tensor, key_BTC: Tensor, value_BTD: Tensor, regions_BT: Tensor | None = None
) -> Tensor:
    """Attention of one head in bounded memory.

    Args:
        regions_BT: tokens of different regions hardly see each other; None: all do.

    Returns:
        like ``value_BTD``.
    """
    count, tokens, channels = query_BTC.shape
    step = max(1, _SCORES // (count * tokens))
    attended = []
    for first in range(0, tokens, step):
        some = slice(first, first + step)
        scores_BST = query_BTC[:, some] @ key_BTC.transpose(1, 2) / math.sqrt(channels)
        if regions_BT is not None:
            apart = regions_BT[:, some, None] != regions_BT[:, None]
            scores_BST = scores_BST + _APART * apart
        attended.append(scores_BST.softmax(-1) @ value_BTD)
    return torch.cat(attended, 1)


def window_positions(features_BChw: Tensor) -> Tensor:
    """What tells a token its place in its window (C,h,w): sines and cosines of y, then of x."""
    channels, rows, columns = features_BChw.shape[1:]
    half = channels // 2
    index = torch.arange(half, device=features_BChw.device)
    frequencies = _PERIOD ** (2 * (index // 2) / half)

    def waves(size: int) -> Tensor:
        window = size // WINDOWS
        place = torch.arange(1, window + 1, device=features_BChw.device)
        angles = place / (window + _EPSILON) * 2 * math.pi / frequencies[:, None]
        waves_Cs = torch.where(index[:, None] % 2 == 0, angles.sin(), angles.cos())
        return waves_Cs.repeat(1, WINDOWS)

    vertical = waves(rows)[:, :, None].expand(-1, -1, columns)
    horizontal = waves(columns)[:, None].expand(-1, rows, -1)
    return torch.cat((vertical, horizontal))


def _partners(tokens_BTC: Tensor) -> Tensor:
    """[first; second] -> [second; first]."""
    return tokens_BTC.roll(len(tokens_BTC) // 2, 0)


def _places(rows: int, columns: int) -> Tensor:
    """Each token's (x, y)."""
    y_hw, x_hw = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    return torch.stack((x_hw.flatten(), y_hw.flatten()), -1)
