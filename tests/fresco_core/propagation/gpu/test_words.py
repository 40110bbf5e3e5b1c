"""Bytes of a pixel's words and what they weigh."""

import numpy as np
import pytest

from fresco_core.propagation.gpu.words import LARGEST_COST, SHIFT, Words

USUAL = [2.0] * 3 + [1 / 6] * 6 + [2 / 3] * 3


def test_usual_channels_fill_one_load() -> None:
    words = Words.of([1 / 3] * 3, USUAL, 5)
    assert words.depth == 4
    assert words.channel_Y[:3] == (0, 1, 2)
    assert sorted(c for c in words.channel_Y if c >= 0) == list(range(15))


@pytest.mark.parametrize("style", [1, 2, 3, 4])
@pytest.mark.parametrize("guides", [[1.0], USUAL, list(np.linspace(0, 3, 14)), [0.0, 0.5, 0.0]])
def test_words_weigh_what_their_bytes_do(style: int, guides: list[float]) -> None:
    words = Words.of([0.25] * style, guides, 5)
    assert words.depth & (words.depth - 1) == 0
    assert words.channel_Y[:style] == tuple(range(style))
    squares = np.random.default_rng(0).integers(0, 1000, 4 * words.depth)
    wanted = int((squares * np.array(words.weight_Y)).sum())
    total = 0
    for word, (light, heavy, mask) in enumerate(zip(*words.table_3D, strict=True)):
        assert heavy >= 0
        for byte in range(4):
            if words.channel_Y[4 * word + byte] >= 0:
                share = light + heavy * bool(mask >> 8 * byte & 0xFF)
                total += share * int(squares[4 * word + byte])
    assert total == wanted


@pytest.mark.parametrize("patch", [1, 5, 15])
def test_no_patch_costs_more_than_fits(patch: int) -> None:
    words = Words.of([1 / 3] * 3, USUAL, patch)
    worst = sum(words.weight_Y) * (255 * patch) ** 2 >> SHIFT
    assert 0.9 * LARGEST_COST < worst < LARGEST_COST
    assert max(words.weight_Y) < 2**31
