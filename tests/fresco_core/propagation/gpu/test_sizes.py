"""Levels of the pyramid on a device against those of the CPU."""

import numpy as np
import pytest
import torch

from fresco_core.propagation import kernels, pyramid
from fresco_core.propagation.gpu import sizes


@pytest.mark.parametrize(("height", "width"), [(32, 48), (33, 47), (21, 90)])
def test_reduced_as_on_the_cpu(height: int, width: int) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    for level in (0, 1, 2):
        reduced = sizes.reduce(torch.from_numpy(picture)[None], level)[0].numpy()
        assert np.array_equal(reduced, pyramid.reduce(picture, level))


def test_enlarged_as_on_the_cpu() -> None:
    coarse, size, source, patch = (7, 9), (15, 18), (16, 20), 5
    rng = np.random.default_rng(0)
    field = (rng.integers(2, 6, coarse) << 16 | rng.integers(2, 8, coarse)).astype(np.int32)
    wanted = kernels.enlarge(field.ravel(), *coarse[::-1], *size[::-1], *source[::-1], patch)
    fields = torch.from_numpy(field.reshape(1, -1))
    assert np.array_equal(sizes.enlarge(fields, coarse, size, source, patch)[0].numpy(), wanted)


def test_scattered_all_over_the_source() -> None:
    field = sizes.scatter(torch.randint(0, 2**32, (5000,)), 2, (12, 40), 5)
    assert field.shape == (2, 5000)
    assert torch.equal(field[0], field[1])
    y, x = field[0] >> 16, field[0] & 0xFFFF
    assert (int(y.min()), int(y.max()), int(x.min()), int(x.max())) == (2, 9, 2, 37)
