"""The kernels' layout."""

import numpy as np
import pytest

from fresco_core.propagation.packing import Packing


@pytest.mark.parametrize("weights", [[1.0], [2.0] * 3 + [1 / 6] * 12, [0.0, 1e9], [1e-9] * 40])
@pytest.mark.parametrize("patch", [1, 5, 15])
def test_nothing_overflows(weights: list[float], patch: int):
    packing = Packing.of(np.array(weights), patch)
    assert packing.depth % 8 == 0
    assert packing.depth >= len(weights)
    pixel = packing.tables[:, 255].astype(np.int64)
    assert (pixel * patch).max() <= 2**15 - 1
    assert (pixel**2).sum() * patch**2 < 2**31


def test_border_is_repeated_and_channels_lie_side_by_side():
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (4, 6, count)).astype(np.uint8) for count in (3, 1)]
    packing = Packing.of(np.ones(4), 5)
    packed = packing.blank((4, 6))
    packing.put(packed, pictures[0], 0)
    packing.put(packed, pictures[1], 3)
    framed = np.pad(np.concatenate(pictures, axis=2), ((2, 2), (2, 2), (0, 0)), "edge")
    cube = packed.reshape(8, 10, packing.depth)
    np.testing.assert_array_equal(cube[..., :4], packing.tables[0][framed])
    assert not cube[..., 4:].any()


def test_means_are_sums_of_patches_over_their_side():
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (9, 11, 2)).astype(np.uint8)
    packing = Packing.of(np.ones(2), 3)
    packed = packing.blank((9, 11))
    packing.put(packed, picture, 0)
    means = packing.means(packed, (9, 11)).reshape(9, 11, packing.depth)
    cube = packed.reshape(11, 13, packing.depth).astype(int)
    for y in range(9):
        for x in range(11):
            expected = cube[y : y + 3, x : x + 3].sum((0, 1)) / 3
            assert np.abs(means[y, x] - expected).max() <= 1
