"""Kernels against plain numpy, and where their machine code may live."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fresco_core.propagation import compiled, kernels

ROOT = Path(__file__).resolve().parents[3]


def random_field(count: int, width: int, height: int, patch: int) -> np.ndarray:
    return kernels.scatter(count, width, height, patch, np.uint64(7))[0]


def test_scatter_uses_exactly_the_valid_centres():
    field = random_field(5000, 9, 12, 5)
    assert set((field & 0xFFFF).tolist()) == set(range(2, 7))
    assert set((field >> 16).tolist()) == set(range(2, 10))


def test_enlarged_neighbours_stay_neighbours():
    coarse = (np.full(6, 10) << 16 | np.full(6, 12)).astype(np.int32)  # 3 x 2, all from one patch
    field = kernels.enlarge(coarse, 3, 2, 7, 4, 40, 60, 5).reshape(4, 7)
    assert (field & 0xFFFF)[0].tolist() == [24, 25, 24, 25, 24, 25, 24]
    assert (field >> 16)[:, 0].tolist() == [20, 21, 20, 21]
    near_the_border = kernels.enlarge(coarse, 3, 2, 7, 4, 27, 24, 5)
    assert (near_the_border & 0xFFFF).max() <= 27 - 1 - 5
    assert (near_the_border >> 16).max() <= 24 - 1 - 5


def coverage_of(field: np.ndarray, width: int, height: int, patch: int) -> np.ndarray:
    coverage = np.full((height + 2 * patch - 2) * (width + 2 * patch - 2), 7, np.int32)
    kernels.cover_all(field, coverage, width, (0,) * patch)
    return coverage


@pytest.mark.parametrize("patch", [1, 3, 5])
def test_coverage_is_the_use_of_all_pixels_of_a_patch(patch: int):
    width, height, radius = 10, 8, patch // 2
    field = random_field(40, width, height, patch)
    uses = np.zeros((height, width), int)
    for cx, cy in zip(field & 0xFFFF, field >> 16, strict=True):
        uses[cy - radius : cy + radius + 1, cx - radius : cx + radius + 1] += 1
    reach = patch - 1
    sums = coverage_of(field, width, height, patch).reshape(height + 2 * reach, -1)
    for cy in range(radius, height - radius):
        for cx in range(radius, width - radius):
            expected = uses[cy - radius : cy + radius + 1, cx - radius : cx + radius + 1].sum()
            assert sums[cy + reach, cx + reach] == expected


def framed(picture: np.ndarray, patch: int) -> np.ndarray:
    radius = patch // 2
    return np.pad(picture, ((radius, radius), (radius, radius), (0, 0)), "edge")


def means(picture: np.ndarray, patch: int) -> np.ndarray:
    height, width = picture.shape[:2]
    padded = framed(picture, patch).astype(np.int64)
    total = sum(
        padded[dy : dy + height, dx : dx + width] for dy in range(patch) for dx in range(patch)
    )
    return (total // patch).astype(np.int16)


def patch_cost(source: np.ndarray, target: np.ndarray, i: int, at: int, patch: int) -> int:
    y, x = at >> 16, at & 0xFFFF
    row, column = divmod(i, source.shape[1])
    theirs, ours = framed(source, patch).astype(int), framed(target, patch)
    theirs, ours = theirs[y : y + patch, x : x + patch], ours[row : row + patch, column:]
    return int(((theirs - ours[:, :patch]) ** 2).sum())


@pytest.mark.parametrize(("depth", "patch"), [(8, 3), (16, 5), (24, 3), (8, 1)])
@pytest.mark.parametrize("around", [False, True])
def test_sweeps_keep_costs_and_coverage_true(depth: int, patch: int, around: bool):
    height, width = 12, 15
    rng = np.random.default_rng(1)
    source = rng.integers(0, 3000, (height, width, depth)).astype(np.int16)
    target = rng.integers(0, 3000, (height, width, depth)).astype(np.int16)
    field = random_field(height * width, width, height, patch)
    cost = np.zeros(height * width, np.int32)
    active = np.ones(height * width, np.uint8)
    lengths = (0,) * depth, (0,) * patch
    source_means, target_means = means(source, patch).ravel(), means(target, patch).ravel()
    pictures = framed(source, patch).ravel(), framed(target, patch).ravel()
    expected_means = target_means.copy()
    target_means.reshape(-1, depth)[:, :2] = -1
    kernels.measure(*pictures, target_means, field, cost, active, width, width, 2, *lengths)
    np.testing.assert_allclose(target_means, expected_means, atol=1)
    before = cost.copy()
    coverage = coverage_of(field, width, height, patch)
    active[:20] = 0
    frozen = field[:20].copy()
    moved = np.full(height * width, -2, np.int32)
    state = np.uint64(3)
    for turn in range(3):
        state = np.uint64(
            kernels.sweep(
                pictures[0], source_means, pictures[1], target_means, field, cost, coverage,
                active, width, height, width, height, np.float32(0.0), state, turn, turn > 0,
                moved, around, np.float32(-1.0), *lengths,
            )
        )  # fmt: skip
    expected = [patch_cost(source, target, i, int(field[i]), patch) for i in range(height * width)]
    np.testing.assert_array_equal(cost, expected)
    np.testing.assert_array_equal(coverage, coverage_of(field, width, height, patch))
    np.testing.assert_array_equal(field[:20], frozen)
    assert (moved[20:] >= 0).any()
    assert (cost <= before).all()
    assert cost.sum() < 0.95 * before.sum()


def test_what_kernels_are_made_with_is_known():
    """Numba does not see that machine code is old when another file of it has changed."""
    for made in compiled._KERNELS:
        own = made.py_func.__code__.co_filename
        for name in made.py_func.__code__.co_names:
            used = made.py_func.__globals__.get(name)
            code = getattr(
                getattr(used, "py_func", None) or getattr(used, "_defn", None), "__code__", None
            )
            if code is not None and code.co_filename != own:
                assert Path(code.co_filename) in compiled._BUILT_IN, (own, name)
    stamps = {made._cache._cache_file._source_stamp[1:] for made in compiled._KERNELS}
    assert stamps == {tuple(map(compiled.stamp, compiled._BUILT_IN))}


def test_works_where_nothing_can_be_written(tmp_path: Path):
    """A read-only installation run without a home: compiled anew, with a word, but it runs."""
    package = tmp_path / "fresco_core" / "propagation"
    there = Path(str(kernels.__file__)).parent
    shutil.copytree(there, package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(there.parent / "errors.py", package.parent)
    (package.parent / "__init__.py").touch()
    # A file where the cache folder would be stops root as well as anyone else.
    (package / "__pycache__").touch()
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
        "NUMBA_OPT": "1",  # what is made so is made sooner
    }
    # Without search and votes, which take longest to compile: what is painted stays black.
    program = """
import numpy as np
from fresco_core.propagation import PropagationOptions, compiled, propagate
from fresco_core.propagation.level import Level

Level.refine = lambda level, field, effort, state: state
options = PropagationOptions(
    patch=1, votes=1, sweeps=1, inpaint_scale=1, blend="selection", poisson=False
)
frames = np.full((3, 4, 4, 3), 7, np.uint8)
flows = np.zeros((2, 2, 4, 4), np.float32)
painted = propagate(frames, frames[0], frames[2], flows, flows, options=options)
print(compiled.__file__, compiled.folder(), painted.shape, painted.max())
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment, cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{package / 'compiled.py'} None (1, 4, 4, 3) 0\n"
    assert done.stderr.startswith("propagation is compiled in every process")
    assert len(done.stderr.splitlines()) == 1
