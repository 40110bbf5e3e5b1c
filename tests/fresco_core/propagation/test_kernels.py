"""Kernels against plain numpy, and where their machine code may live."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fresco_core.propagation import kernels

ROOT = Path(__file__).resolve().parents[3]


def random_field(count: int, width: int, height: int, patch: int) -> tuple[np.ndarray, np.ndarray]:
    x, y, _ = kernels.scatter(count, width, height, patch, np.uint32(7))
    return x, y


def test_scatter_uses_exactly_the_valid_centres():
    x, y = random_field(5000, 9, 12, 5)
    assert set(x.tolist()) == set(range(2, 7))
    assert set(y.tolist()) == set(range(2, 10))


@pytest.mark.parametrize("patch", [1, 3, 5])
def test_coverage_is_the_use_of_all_pixels_of_a_patch(patch: int):
    width, height, radius = 10, 8, patch // 2
    x, y = random_field(40, width, height, patch)
    uses = np.zeros((height, width), int)
    for cx, cy in zip(x, y, strict=True):
        uses[cy - radius : cy + radius + 1, cx - radius : cx + radius + 1] += 1
    reach = patch - 1
    sums = kernels.cover_all(x, y, width, height, patch).reshape(height + 2 * reach, -1)
    for cy in range(radius, height - radius):
        for cx in range(radius, width - radius):
            expected = uses[cy - radius : cy + radius + 1, cx - radius : cx + radius + 1].sum()
            assert sums[cy + reach, cx + reach] == expected


def test_vote_is_the_rounded_mean_of_the_overlapping_patches():
    rng = np.random.default_rng(0)
    height, width, radius = 7, 9, 1
    style = rng.integers(0, 256, (height, width, 2)).astype(np.uint8)
    x, y = random_field(height * width, width, height, 3)
    out = kernels.vote(style.ravel(), 2, x, y, width, width, height, 3).reshape(height, width, 2)
    for row in range(height):
        for column in range(width):
            votes = [
                style[y[j] - dy, x[j] - dx]
                for dy in range(-radius, radius + 1)
                for dx in range(-radius, radius + 1)
                if 0 <= row + dy < height and 0 <= column + dx < width
                for j in [(row + dy) * width + column + dx]
            ]
            expected = np.floor(np.mean(votes, axis=0) + 0.5)
            np.testing.assert_array_equal(out[row, column], expected)


def pictures(height: int, width: int, depth: int, patch: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    source = rng.integers(0, 3000, (height, width, depth)).astype(np.int16)
    target = rng.integers(0, 3000, (height, width, depth)).astype(np.int16)
    radius = patch // 2
    return source, np.pad(target, ((radius, radius), (radius, radius), (0, 0)), "edge")


def patch_cost(source: np.ndarray, target: np.ndarray, i: int, x: int, y: int, patch: int) -> int:
    radius = patch // 2
    row, column = divmod(i, source.shape[1])
    theirs = source[y - radius : y + radius + 1, x - radius : x + radius + 1].astype(int)
    return int(((theirs - target[row : row + patch, column : column + patch]) ** 2).sum())


@pytest.mark.parametrize(("depth", "patch"), [(8, 3), (16, 5), (8, 1)])
def test_sweeps_keep_costs_and_coverage_true(depth: int, patch: int):
    height, width = 12, 15
    source, target = pictures(height, width, depth, patch)
    x, y = random_field(height * width, width, height, patch)
    cost = np.zeros(height * width, np.int32)
    active = np.ones(height * width, np.bool_)
    rows = (0,) * patch
    flat = source.ravel(), target.ravel()
    kernels.measure(*flat, x, y, cost, active, width, width, (0,) * depth, rows)
    before = cost.copy()
    coverage = kernels.cover_all(x, y, width, height, patch)
    active[:20] = False
    frozen = x[:20].copy()
    state = np.uint32(3)
    for forward in (True, False, True):
        state = np.uint32(
            kernels.sweep(
                *flat, x, y, cost, coverage, active, width, height, width, height,
                np.float32(0.0), state, forward, (0,) * depth, rows,
            )
        )  # fmt: skip
    expected = [patch_cost(source, target, i, x[i], y[i], patch) for i in range(height * width)]
    np.testing.assert_array_equal(cost, expected)
    np.testing.assert_array_equal(coverage, kernels.cover_all(x, y, width, height, patch))
    np.testing.assert_array_equal(x[:20], frozen)
    assert (cost <= before).all()
    assert cost.sum() < 0.95 * before.sum()


def test_works_where_nothing_can_be_written(tmp_path: Path):
    """A read-only installation run without a home: compiled anew, but it runs."""
    package = tmp_path / "fresco_core" / "propagation"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").touch()
    (package / "__init__.py").touch()
    source = Path(kernels.__file__).read_text()
    (package / "kernels.py").write_text(source)
    # A file where the cache folder would be stops root as well as anyone else.
    (package / "__pycache__").touch()
    (package / "kernels.py").chmod(stat.S_IRUSR)
    nowhere = tmp_path / "file"
    nowhere.touch()
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("NUMBA", "XDG"))
    }
    environment |= {
        "HOME": str(nowhere),
        "XDG_CACHE_HOME": str(nowhere),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": str(tmp_path),
    }
    program = (
        "import numpy as np; from fresco_core.propagation import kernels; "
        "print(kernels.__file__, kernels.scatter(3, 9, 9, 5, np.uint32(1))[0].size)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment, cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(package / "kernels.py"), "3"]
