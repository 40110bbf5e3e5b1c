"""How the channels of all pictures share the bytes of a pixel's words.

A pixel is a few int32 words, a power of two of them, so that one wide load fetches it. A byte is a
channel. The bytes of a word have one weight or two: the cost of two patches is then, for each word,
one sum of squared differences over all of its bytes and one over the heavier ones.

Shape suffixes: D words of a pixel; Y = 4D bytes of a pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MOST_STYLE_CHANNELS = 4
"""The style's channels fill one word, which a vote writes."""
SHIFT = 16
"""Binary places of fixed-point weights and penalties."""
LARGEST_COST = 1 << 30
"""Of a patch, and of its penalty: their sum fits into int32."""


@dataclass(frozen=True)
class Words:
    """The bytes of a pixel and their weights.

    ``channel_Y``: the channel of each byte, -1 for none; the style's are the first bytes.
    ``weight_Y``: fixed-point weights (`SHIFT` binary places) of bytes, as costs have them.
    ``unit``: integer cost of one unit of weighted squared difference.
    """

    channel_Y: tuple[int, ...]
    weight_Y: tuple[int, ...]
    unit: float

    @classmethod
    def of(cls, style: Sequence[float], guides: Sequence[float], patch: int) -> Words:
        """Bytes for the channels of these weights, the style's and then the guides'.

        The unit is the finest at which no patch's cost overflows.
        """
        weights = [*style, *guides]
        words = [list(range(len(style)))]
        kinds = [set(style)]
        # Light channels first: the style is light, and shares its word with its like.
        for channel in sorted(range(len(style), len(weights)), key=lambda c: (weights[c], c)):
            kind = kinds[-1] | {weights[channel]}
            if len(words[-1]) == 4 or len(kind) > 2:
                words.append([])
                kind = {weights[channel]}
                kinds.append(kind)
            words[-1].append(channel)
            kinds[-1] = kind
        depth = 1 << (len(words) - 1).bit_length()
        words += [[]] * (depth - len(words))
        channels = tuple(c for word in words for c in [*word, -1, -1, -1, -1][:4])
        unit = 0.98 * LARGEST_COST / (max(sum(weights), 1e-12) * (255 * patch) ** 2)
        fixed = tuple(round(weights[c] * unit * 2**SHIFT) if c >= 0 else 0 for c in channels)
        return cls(channels, fixed, unit)

    @property
    def depth(self) -> int:
        return len(self.channel_Y) // 4

    @property
    def light_D(self) -> tuple[int, ...]:
        """Weight of all bytes of a word."""
        return tuple(min(weights, default=0) for weights in self._of_words())

    @property
    def heavy_D(self) -> tuple[int, ...]:
        """What the heavier bytes of a word weigh above the others."""
        return tuple(
            max(weights, default=0) - min(weights, default=0) for weights in self._of_words()
        )

    @property
    def mask_D(self) -> tuple[int, ...]:
        """The heavier bytes of a word as bits of an int32."""
        masks = []
        for word, light in enumerate(self.light_D):
            mask = sum(
                0xFF << 8 * byte
                for byte in range(4)
                if self.channel_Y[4 * word + byte] >= 0 and self.weight_Y[4 * word + byte] > light
            )
            masks.append(signed(mask))
        return tuple(masks)

    @property
    def mixed(self) -> bool:
        """Whether any word has bytes of two weights."""
        return any(self.heavy_D)

    @property
    def table_3D(self) -> list[tuple[int, ...]]:
        """``light_D``, ``heavy_D`` and ``mask_D``."""
        return [self.light_D, self.heavy_D, self.mask_D]

    def _of_words(self) -> list[list[int]]:
        """Weights of the bytes that each word uses."""
        pairs = list(zip(self.channel_Y, self.weight_Y, strict=True))
        return [
            [weight for channel, weight in pairs[4 * word : 4 * word + 4] if channel >= 0]
            for word in range(self.depth)
        ]


def signed(bits: int) -> int:
    """The int32 of these 32 bits."""
    return bits - (1 << 32) if bits & 0x80000000 else bits
