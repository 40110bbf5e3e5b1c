import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fresco_core.keyframes import (
    DifferenceCurve,
    batch_key_frames,
    resize_frame,
    select_key_frames,
    working_size,
)


def test_working_size_is_in_multiples_of_64():
    assert working_size(480, 640, 512) == (512, 704)
    assert working_size(479, 853, 512) == (512, 896)
    assert working_size(512, 512, 512) == (512, 512)
    # half of a multiple rounds to the even one
    assert working_size(64, 160, 64) == (64, 128)


def test_working_size_never_vanishes():
    assert working_size(1, 1, 64) == (64, 64)
    assert working_size(10, 4000, 64)[0] == 64


def test_a_frame_of_its_working_size_is_passed_on_unchanged():
    frame = np.random.default_rng(0).integers(0, 256, (64, 128, 3), np.uint8)
    assert resize_frame(frame, 64) is frame


def test_difference_curve_sees_where_the_picture_changes():
    curve = DifferenceCurve()
    dark, light = np.zeros((64, 64, 3), np.uint8), np.full((64, 64, 3), 255, np.uint8)
    for frame in (dark, dark, light, light):
        curve.add(frame)
    assert curve.values() == pytest.approx([0, 0, 4, 0])


def test_adaptive_selection_prefers_change_and_keeps_the_distance():
    differences = np.zeros(41)
    differences[[9, 11, 30]] = 1, 2, 3
    keys = select_key_frames(differences, 5, 15)
    assert {11, 30} <= set(keys)
    assert 9 not in keys  # too near to 11


@given(st.integers(1, 200), st.integers(1, 30), st.integers(0, 30), st.randoms())
def test_first_and_last_frame_are_always_key_frames(count, minimum, extra, random):
    differences = [random.random() for _ in range(count)]
    keys = select_key_frames(differences, minimum, minimum + extra)
    assert keys[0] == 0
    assert keys[-1] == count - 1
    assert sorted(set(keys)) == list(keys)


def test_no_frames_or_no_range_are_refused():
    with pytest.raises(ValueError, match="no frames"):
        select_key_frames([], 5, 5)
    with pytest.raises(ValueError, match="no range"):
        select_key_frames([0.0, 1.0], 6, 5)
    with pytest.raises(ValueError, match="at least 1"):
        select_key_frames([0.0, 1.0], 0, 0)


@given(st.integers(0, 200), st.integers(3, 16))
def test_batches_hold_every_key_frame_once_and_carry_two(count, size):
    batches = batch_key_frames(range(count), size)
    assert [k for b in batches for k in b.new] == list(range(count))
    for before, batch in itertools.pairwise(batches):
        assert batch.carried == (0, before.new[-1])
        assert len(batch.frames) >= 3
    for batch in batches:
        assert len(batch.frames) <= max(size, 5)
    if count >= 2:
        assert len(batches[0].new) >= 2


def test_a_batch_needs_room_for_the_carried_frames():
    with pytest.raises(ValueError, match="below 3"):
        batch_key_frames(range(9), 2)
