import numpy as np
import pytest

from fresco_core.flow import load_flow
from fresco_core.propagation import PropagationOptions
from io_pipeline.prepare import Window
from io_pipeline.propagate import FLOW_PAIRS, Propagate, Segment, segments
from tests.fresco_core.scenes import panning

QUICK = PropagationOptions(votes=2, sweeps=1)


def window(first: int, count: int, keys: tuple[int, ...]) -> Window:
    frames = np.zeros((count, 64, 64, 3), np.uint8)
    frames[:, 0, 0, 0] = np.arange(first, first + count)
    return Window(0, 1, first, frames, keys, None)


def keys_of(numbers: tuple[int, ...]) -> np.ndarray:
    return np.stack([np.full((64, 64, 3), 100 + n, np.uint8) for n in numbers])


def test_segments_of_the_first_window_begin_at_its_first_key_frame():
    found = list(segments(window(0, 6, (0, 3, 5)), keys_of((0, 3, 5)), None))
    assert [(s.first_frame, len(s.frames_THWC)) for s in found] == [(0, 4), (3, 3)]
    assert found[1].frames_THWC[:, 0, 0, 0].tolist() == [3, 4, 5]
    assert found[1].first_key_HWC[0, 0, 0] == 103
    assert found[1].second_key_HWC[0, 0, 0] == 105


def test_later_windows_begin_at_the_key_frame_before():
    previous = keys_of((10,))[0]
    found = list(segments(window(10, 8, (14, 17)), keys_of((14, 17)), previous))
    assert [(s.first_frame, len(s.frames_THWC)) for s in found] == [(10, 5), (14, 4)]
    assert found[0].first_key_HWC is previous


def test_a_single_key_frame_has_no_segment():
    assert list(segments(window(0, 1, (0,)), keys_of((0,)), None)) == []


@pytest.fixture(scope="module")
def stage() -> Propagate:
    return Propagate(load_flow("dis"), QUICK)


def test_neighbouring_key_frames_have_nothing_between(stage):
    frames = panning(2, 64, 64)
    assert stage(Segment(0, frames, frames[0], frames[1])).shape == (0, 64, 64, 3)


def test_frames_between_look_like_the_key_frames_moved(stage):
    frames = panning(4, 64, 64, step=2)
    inverse = 255 - frames  # the "translation"
    between = stage(Segment(0, frames, inverse[0], inverse[-1]))
    assert between.shape == (2, 64, 64, 3)
    error = np.abs(between.astype(int) - inverse[1:3]).mean()
    copied = np.abs(inverse[[0, 0]].astype(int) - inverse[1:3]).mean()
    assert error < 0.5 * copied


def test_long_segments_are_found_in_pieces(stage):
    frames = panning(FLOW_PAIRS + 3, 64, 64, step=1)
    forward, backward = stage._pair_flows(frames)
    assert forward.shape == backward.shape == (len(frames) - 1, 2, 64, 64)
    assert forward[-1, 0, 20:40, 20:40].mean() == pytest.approx(-1, abs=0.3)
    assert backward[-1, 0, 20:40, 20:40].mean() == pytest.approx(1, abs=0.3)
