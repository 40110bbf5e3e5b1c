"""Windows of any clip: every frame in one of them, every segment between two key frames."""

import itertools
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fresco_core.keyframes import batch_key_frames, select_key_frames
from io_pipeline.blocks import Block
from io_pipeline.clip_info import ClipInfo
from io_pipeline.colour import Colour
from io_pipeline.plan import ClipPlan, ControlPictures
from io_pipeline.window import Window, windows


def plan(frames: int, interval: int, batch_size: int) -> ClipPlan:
    info = ClipInfo(
        path=Path("a.mp4"),
        width=96,
        height=64,
        frame_count=frames,
        times=tuple(range(frames)),
        end=frames,
        time_base=Fraction(1, 25),
        frame_rate=Fraction(25),
        rotation=0,
        mirrored=False,
        pixel_aspect=Fraction(1),
        colour=Colour(1, 1, 1, False),
        sound_tracks=0,
        codec="h264",
        pixel_format="yuv420p",
        engine="pyav",
        warnings=(),
    )
    keys = select_key_frames(np.zeros(frames), interval, interval)
    return ClipPlan(info, (64, 128), keys, batch_key_frames(keys, batch_size))


def cut(
    frames: int,
    interval: int = 5,
    batch_size: int = 4,
    *,
    controls: tuple[ControlPictures | None, ...] = (None, None),
    flows: bool = False,
) -> list[Window]:
    planned = replace(plan(frames, interval, batch_size), controls=controls)
    return list(windows(planned, steps=15, flows=flows))


@given(st.integers(1, 200), st.integers(1, 12), st.integers(3, 16))
def test_every_frame_is_new_once_and_every_segment_ends_at_key_frames(
    frames: int, interval: int, batch_size: int
) -> None:
    chosen = plan(frames, interval, batch_size)
    cuts = cut(frames, interval, batch_size)
    seen: list[int] = []
    ends: list[tuple[int, int]] = []
    for window in cuts:
        numbers = range(window.first_frame, window.first_frame + window.frame_count)
        seen += numbers[window.new_frames]
        ends += [(numbers[a], numbers[b]) for a, b in window.segments]
        assert [numbers[offset] for offset in window.key_offsets] == list(window.key_numbers)
        assert window.count == len(cuts)
    assert seen == list(range(frames))
    keys = chosen.key_numbers
    assert ends == list(itertools.pairwise(keys))


def test_flows_have_room_whoever_finds_them() -> None:
    searched = list(windows(plan(26, 5, 4), steps=15, flows=False, searched=True))
    by_device = list(windows(plan(26, 5, 4), steps=15, flows=True))
    assert [each.layout() for each in searched] == [each.layout() for each in by_device]
    keys_alone = windows(plan(26, 5, 4), steps=15, flows=False, between=False, searched=True)
    assert not any(each.searched for each in keys_alone)


def test_arrays() -> None:
    first, second = cut(26)
    assert (first.first_frame, first.key_numbers) == (0, (0, 5, 10))
    assert (second.first_frame, second.key_numbers) == (10, (15, 20, 25))
    with Block.create(second.layout()) as block:
        shapes = {array.name: array.shape for array in second.layout().arrays}
        assert shapes == {
            "frames": (16, 64, 128, 3),
            "keys": (4, 64, 128, 3),
            "carry_latents": (15, 2, 4, 8, 16),
            "carry_frames": (2, 64, 128, 3),
            "results": (16, 64, 128, 3),
            "controls": (2, 3, 2, 64, 128),
            "carry_controls": (2, 2, 64, 128),
            "previous_control": (2, 64, 128),
        }
        assert block["carry_latents"].dtype == np.float32


def test_what_comes_with_the_clip_is_not_drawn() -> None:
    given = ControlPictures(Path("a.depth"), ("1.png",) * 6)
    for window in cut(6, controls=(None, given, None)):
        assert (window.controls, window.given, window.to_draw) == (3, (1,), (0, 2))
    (drawn,) = cut(6)
    assert (drawn.given, drawn.to_draw) == ((), (0, 1))


def test_what_is_not_needed_takes_no_memory() -> None:
    (plain,) = cut(6, controls=())
    names = {array.name for array in plain.layout().arrays}
    assert not names & {"controls", "carry_controls", "previous_control", "flows"}
    (flowing,) = cut(6, flows=True)
    (flows,) = (array for array in flowing.layout().arrays if array.name == "flows")
    assert (flows.shape, flows.dtype) == ((2, 5, 2, 64, 128), "<f2")


def test_key_frames_to_be_matched_have_room_for_it() -> None:
    planned = plan(26, 5, 4)
    alike = windows(planned, steps=15, flows=False)
    first, second, *_ = windows(planned, steps=15, flows=False, matched=True, salient=True)
    assert [window.ring for window in (first, second)] == [3, 5]
    assert [window.ring_pairs for window in (first, second)] == [3, 5]
    without = next(alike).layout().nbytes
    shapes = {array.name: (array.shape, array.dtype) for array in second.layout().arrays}
    assert shapes["ring_flows"] == ((2, 5, 64, 128, 2), "<f4")
    assert shapes["salient"] == ((5, 32, 64), "|u1")
    assert shapes["first_frame"] == ((64, 128, 3), "|u1")
    names = {array.name for array in first.layout().arrays}
    assert {"ring_flows", "salient"} <= names
    assert "first_frame" not in names  # its frames have it
    assert first.layout().nbytes - without >= 3 * (2 * 64 * 128 * 2 * 4 + 32 * 64)
    (flows_alone, *_) = windows(planned, steps=15, flows=False, matched=True)
    assert "salient" not in {array.name for array in flows_alone.layout().arrays}


def test_one_key_frame_has_nothing_to_match() -> None:
    (window,) = windows(plan(1, 5, 4), steps=15, flows=False, matched=True, salient=True)
    assert (window.ring, window.ring_pairs) == (1, 0)
    names = {array.name for array in window.layout().arrays}
    assert not names & {"ring_flows", "salient", "first_frame"}


def test_frames_between_that_nobody_makes_take_no_memory() -> None:
    planned = plan(20, 5, 4)
    made = list(windows(planned, steps=15, flows=True))
    for window in windows(planned, steps=15, flows=True, between=False):
        assert window.segments == ()
        assert window.shown == window.key_offsets
        assert not {"results", "flows"} & {array.name for array in window.layout().arrays}
        assert window.layout().nbytes < 0.6 * made[window.index].layout().nbytes
    for window in made:
        assert list(window.shown) == list(range(window.frame_count))[window.new_frames]
