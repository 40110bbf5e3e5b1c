"""The public function: a scene whose stylised truth is known."""

import hashlib
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from fresco_core.propagation import PropagationOptions, machine_code, propagate, segment
from fresco_core.propagation.patchmatch import Synthesis
from tests.conftest import ROOT
from tests.fresco_core.propagation.scene import psnr, sliding, stylise

QUICK = PropagationOptions(votes=4, sweeps=3)


def run(count: int, options: PropagationOptions = QUICK, **scene):
    frames, forward, backward = sliding(count, **scene)
    truth = stylise(frames)
    return propagate(frames, truth[0], truth[-1], forward, backward, options=options), truth


def test_frames_between_follow_the_scene():
    frames, truth = run(6, PropagationOptions(), height=64, width=96)
    assert frames.shape == (4, 64, 96, 3)
    assert frames.dtype == np.uint8
    for i, frame in enumerate(frames, 1):
        copy = max(psnr(truth[0], truth[i]), psnr(truth[-1], truth[i]))
        assert psnr(frame, truth[i]) > max(copy + 5, 25)


def test_both_directions_are_equally_good():
    """Played backwards, the same scene gives about the same frames."""
    frames, forward, backward = sliding(5, height=64, width=96)
    truth = stylise(frames)
    one = propagate(frames, truth[0], truth[-1], forward, backward, options=QUICK)
    two = propagate(
        frames[::-1], truth[-1], truth[0], backward[::-1], forward[::-1], options=QUICK
    )[::-1]
    assert abs(psnr(one, truth[1:-1]) - psnr(two, truth[1:-1])) < 1.0
    assert psnr(one, two) > 28


def test_wrong_flows_are_worse():
    """The flows matter, and their directions are those of the docstring."""
    frames, forward, backward = sliding(5, height=64, width=96, step=(5, 3))
    truth = stylise(frames)
    right = propagate(frames, truth[0], truth[-1], forward, backward, options=QUICK)
    wrong = propagate(frames, truth[0], truth[-1], backward, forward, options=QUICK)
    assert psnr(right, truth[1:-1]) > psnr(wrong, truth[1:-1]) + 0.5


def test_results_errors_and_flows_of_a_frame_meet(monkeypatch: pytest.MonkeyPatch):
    """Every array carries the number of its frame; all must meet in order of time."""
    count = 6
    frames = np.stack([np.full((4, 5, 3), t, np.uint8) for t in range(count)])
    flows = np.stack([np.full((2, 4, 5), i, np.float32) for i in range(count - 1)])
    forward, backward = flows + 100, flows + 200

    def numbered(frames, key, flows, flows_back, options, on_frame):
        return [Synthesis(frame, frame[..., 0].astype(np.float32)) for frame in frames[1:]]

    def check(first, second, error_first, error_second, flows, options):
        assert len(first) == count - 2
        for i, arrays in enumerate(
            zip(first, second, error_first, error_second, flows, strict=True)
        ):
            *of_frame, flow = [int(array.flat[0]) for array in arrays]
            assert of_frame == [i + 1] * 4
            assert flow == 200 + i
            yield arrays[0], None

    monkeypatch.setattr(machine_code, "ready", lambda *_: None)
    monkeypatch.setattr(segment, "propagate_key", numbered)
    monkeypatch.setattr(segment, "merge", check)
    between = propagate(frames, frames[0], frames[-1], forward, backward)
    assert between[:, 0, 0, 0].tolist() == [1, 2, 3, 4]


def test_neighbouring_key_frames_have_nothing_between():
    frames, _ = run(2)
    assert frames.shape == (0, 48, 64, 3)


@pytest.mark.parametrize("timing", ["symmetric", "published"])
def test_one_frame_between(timing: str):
    frames, truth = run(3, replace(QUICK, timing=timing))
    assert frames.shape == (1, 48, 64, 3)
    assert psnr(frames[0], truth[1]) > psnr(truth[0], truth[1]) + 3


def test_every_frame_is_told_of():
    frames, forward, backward = sliding(4, height=16, width=16)
    told: list[int] = []
    propagate(
        frames,
        frames[0],
        frames[-1],
        forward,
        backward,
        options=QUICK,
        on_frame=lambda: told.append(1),
    )
    assert len(told) == 3 * 2


def test_same_arguments_same_frames():
    first, _ = run(4)
    again, _ = run(4)
    np.testing.assert_array_equal(first, again)


def test_read_only_and_strided_arrays():
    """What arrives from shared memory is neither ours nor always contiguous."""
    frames, forward, backward = sliding(3, height=32, width=40)
    keys = stylise(frames)
    expected = propagate(frames, keys[0], keys[2], forward, backward, options=QUICK)
    strided = np.asfortranarray(frames)
    arrays = [strided, np.asfortranarray(keys[0]), keys[2].copy(), forward.copy(), backward.copy()]
    for array in arrays:
        array.flags.writeable = False
    np.testing.assert_array_equal(propagate(*arrays, options=QUICK), expected)


@pytest.mark.parametrize("size", [(64, 64), (11, 13), (6, 40), (3, 3)])
def test_small_and_odd_sizes(size: tuple[int, int]):
    frames, _ = run(4, height=size[0], width=size[1])
    assert frames.shape == (2, *size, 3)


def test_black_clip():
    frames = np.zeros((4, 32, 32, 3), np.uint8)
    flows = np.zeros((3, 2, 32, 32), np.float32)
    assert not propagate(frames, frames[0], frames[0], flows, flows, options=QUICK).any()


def test_published_options_work():
    options = replace(PropagationOptions.published(), votes=2, sweeps=2)
    frames, truth = run(4, options)
    assert psnr(frames, truth[1:-1]) > psnr(np.stack([truth[0]] * 2), truth[1:-1])


def test_shapes_are_checked():
    frames, forward, backward = sliding(4, height=16, width=16)
    key = frames[0]
    with pytest.raises(ValueError, match="two or more"):
        propagate(frames[:1], key, key, forward[:0], backward[:0])
    with pytest.raises(ValueError, match="second key frame"):
        propagate(frames, key, key[1:], forward, backward)
    with pytest.raises(ValueError, match="forward flows"):
        propagate(frames, key, key, forward[1:], backward)
    with pytest.raises(ValueError, match="backward flows"):
        propagate(frames, key, key, forward, backward[..., 1:])


def test_who_runs_it_and_on_how_many_threads_decides_nothing():
    """Another process, that hashes and shuffles otherwise, and two threads at once."""
    (frames, _), code = run(4), (
        "import hashlib, sys\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "from tests.fresco_core.propagation.test_propagate import run\n"
        "with ThreadPoolExecutor(2) as pool:\n"
        "    for frames in pool.map(lambda _: run(4)[0], range(2)):\n"
        "        print(hashlib.sha256(frames.tobytes()).hexdigest())\n"
    )  # fmt: skip
    names = ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    environment = {**os.environ, **dict.fromkeys(names, "2"), "PYTHONHASHSEED": "7"}
    told = subprocess.run(
        [sys.executable, "-c", code], check=True, cwd=ROOT, env=environment, capture_output=True
    )
    assert told.stdout.decode().split() == [hashlib.sha256(frames.tobytes()).hexdigest()] * 2
