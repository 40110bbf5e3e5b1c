"""Poisson fusion."""

import numpy as np
import pytest
from scipy.sparse import coo_matrix, eye
from scipy.sparse.linalg import spsolve

from fresco_core.propagation import poisson
from fresco_core.propagation.histogram import to_lab
from tests.fresco_core.propagation.scene import texture


def by_matrix(
    target: np.ndarray, first: np.ndarray, second: np.ndarray, mask: np.ndarray, weight: float,
    clip: float,
) -> np.ndarray:  # fmt: skip
    """The same minimum from a sparse matrix, built pair by pair."""
    height, width = mask.shape
    rows, columns, values, right = [], [], [], []
    pairs = [((y, x), (y + 1, x)) for y in range(height - 1) for x in range(width)]
    pairs += [((y, x), (y, x + 1)) for y in range(height) for x in range(width - 1)]
    for number, (here, there) in enumerate(pairs):
        picture = second if mask[here] else first
        rows += [number, number]
        columns += [here[0] * width + here[1], there[0] * width + there[1]]
        values += [weight, -weight]
        step = float(picture[here]) - float(picture[there])
        right.append(weight * min(max(step, -clip), clip))
    matrix = coo_matrix((values, (rows, columns)), (len(pairs), height * width)).tocsc()
    normal = (matrix.T @ matrix + eye(height * width)).tocsc()
    return spsolve(normal, matrix.T @ np.array(right) + target.ravel()).reshape(height, width)


@pytest.mark.parametrize("size", [(9, 14), (12, 1), (1, 1)])
def test_solution_is_the_minimum(size: tuple[int, int]):
    first, second, target = (texture(*size, seed=seed) for seed in (1, 2, 3))
    mask = texture(*size, seed=4)[..., 0] > 128
    weights = (2.5, 0.5, 1.0)
    solution = poisson.solve(
        target.astype(np.float32), first, second, mask, weights=weights, clip=20.0
    )
    if min(size) == 1 and max(size) == 1:
        np.testing.assert_allclose(solution, target, atol=1e-3)
        return
    for c, weight in enumerate(weights):
        expected = by_matrix(target[..., c], first[..., c], second[..., c], mask, weight, 20.0)
        np.testing.assert_allclose(solution[..., c], expected, atol=1e-3)


def test_what_is_not_cut_off_is_the_minimum_of_a_larger_picture_too():
    """The sums of many values do not cost the accuracy that one grey level needs."""
    first, second = texture(96, 128, seed=1), texture(96, 128, seed=2)
    mask = texture(96, 128, seed=4)[..., 0] > 128
    target = first.astype(np.float32)
    solution = poisson.solve(target, first, second, mask, weights=(0.5, 0.5, 0.5), clip=None)
    expected = by_matrix(target[..., 0], first[..., 0], second[..., 0], mask, 0.5, np.inf)
    assert np.abs(solution[..., 0] - expected).max() < 0.01


def test_a_seam_becomes_soft():
    """Two pictures that differ in brightness only: the jump between them goes."""
    first = np.full((20, 40, 3), 90, np.uint8)
    second = np.full((20, 40, 3), 130, np.uint8)
    mask = np.zeros((20, 40), np.bool_)
    mask[:, 20:] = True
    blend = np.where(mask[..., None], second, first)
    fused = poisson.fuse(blend, first, second, mask, weights=(2.5, 0.5, 0.5), clip=None)
    steps = np.abs(np.diff(fused[10, :, 0].astype(int)))
    assert steps.max() < 15
    assert fused[10, 0, 0] < 95
    assert fused[10, -1, 0] > 125


@pytest.mark.parametrize("level", [0, 50, 128, 255])
def test_constant_pictures_come_back(level: int):
    flat = np.full((8, 9, 3), level, np.uint8)
    mask = np.zeros((8, 9), np.bool_)
    assert np.abs(poisson.fuse(flat, flat, flat, mask).astype(int) - level).max() <= 1


def test_clip_limits_steep_gradients_only():
    picture = np.zeros((16, 16, 3), np.uint8)
    picture[:, 8:] = 255
    mask = np.zeros((16, 16), np.bool_)
    free = to_lab(poisson.fuse(picture, picture, picture, mask, clip=None)).astype(int)
    assert np.abs(free - to_lab(picture)).max() <= 1
    clipped = to_lab(poisson.fuse(picture, picture, picture, mask, clip=100.0)).astype(int)
    assert clipped[8, 8, 0] - clipped[8, 7, 0] < 150


def test_rounding():
    """Of a picture whose values are known to a fraction: half a level lies between the two."""
    first, second = texture(64, 64, seed=1), texture(64, 64, seed=2)
    mask = np.zeros((64, 64), np.bool_)
    down, nearest = (
        to_lab(poisson.fuse(first, second, second, mask, clip=None, rounding=rounding))
        for rounding in ("down", "nearest")
    )
    assert 0.3 < nearest[..., 0].mean() - down[..., 0].mean() < 0.7
