import itertools
from dataclasses import replace

import cv2
import numpy as np
import pytest

from fresco_core.errors import ClipError
from fresco_core.keyframes import resize_frame
from io_pipeline import clip_reader
from io_pipeline.options import KeyFrameOptions
from io_pipeline.prepare import Prepare
from io_pipeline.window import windows
from tests.io_pipeline.media import make_clip, read

OPTIONS = KeyFrameOptions(3, 3, 4, 64)


def windows_of(plan):
    return list(windows(plan, steps=2, flows=False))


def empty(window):
    return np.empty((window.frame_count, window.height, window.width, 3), np.uint8)


def filled(stage, plan, chosen=slice(None)):
    """The frames of some of a clip's windows."""
    result = []
    with stage.windows(plan) as reader:
        for window in windows_of(plan)[chosen]:
            result.append(empty(window))
            reader.read(window, result[-1])
    return result


@pytest.mark.parametrize(("width", "height"), [(96, 80), (32, 40), (64, 64)])
def test_windows_hold_the_resized_frames_and_share_one(tmp_path, width, height):
    clip = make_clip(tmp_path / "clip.mp4", frames=20, width=width, height=height)
    stage = Prepare()
    plan = stage.plan(clip, OPTIONS)
    assert plan.working_size == (64, 64)
    assert plan.key_numbers == (0, 3, 6, 9, 12, 15, 18, 19)
    expected = [resize_frame(frame, 64) for frame in read(clip)]
    found = filled(stage, plan)
    for window, frames in zip(windows_of(plan), found, strict=True):
        last = window.first_frame + window.frame_count
        assert np.array_equal(frames, expected[window.first_frame : last])
    for before, frames in itertools.pairwise(found):
        assert np.array_equal(frames[0], before[-1])
    assert sum(map(len, found)) == 20 + len(found) - 1


@pytest.mark.parametrize("chosen", [slice(1, None), slice(2, 3), slice(0, None, 2)])
def test_windows_that_are_not_wanted_are_passed_over(tmp_path, monkeypatch, chosen):
    stage = Prepare()
    plan = stage.plan(make_clip(tmp_path / "clip.mp4", frames=30, width=96, height=80), OPTIONS)
    assert len(windows_of(plan)) >= 4
    wanted = filled(stage, plan)[chosen]
    resized = []
    resize = cv2.resize
    monkeypatch.setattr(cv2, "resize", lambda *a, **k: resized.append(1) or resize(*a, **k))
    found = filled(stage, plan, chosen)
    assert all(map(np.array_equal, found, wanted))
    assert len(resized) <= 1 + sum(map(len, wanted))


@pytest.mark.parametrize(("width", "height"), [(96, 80), (64, 64)])
def test_every_window_can_have_the_clips_first_frame(tmp_path, width, height):
    """Also where the clip is opened at a later one."""
    clip = make_clip(tmp_path / "clip.mp4", frames=20, width=width, height=height)
    stage = Prepare()
    plan = stage.plan(clip, OPTIONS)
    expected = resize_frame(next(iter(read(clip))), 64)
    assert not np.array_equal(expected, filled(stage, plan)[1][0])
    for begin in (0, 1, 2):
        with stage.windows(plan) as reader:
            reader.skip_to(plan.batches[begin - 1].new[-1] if begin else 0)
            for window in windows_of(plan)[begin:]:
                first = np.zeros_like(expected)
                reader.read(window, empty(window), first_HWC=first)
                assert np.array_equal(first, expected)


def test_a_window_that_lies_behind_is_not_read(tmp_path):
    stage = Prepare()
    plan = stage.plan(make_clip(tmp_path / "clip.mp4", frames=20), OPTIONS)
    first, second, *_ = windows_of(plan)
    with stage.windows(plan) as reader:
        reader.read(second, empty(second))
        with pytest.raises(ValueError, match="lies behind"):
            reader.read(first, empty(first))


def test_frames_must_fit_into_the_array(tmp_path):
    stage = Prepare()
    plan = stage.plan(make_clip(tmp_path / "clip.mp4", frames=20), OPTIONS)
    first = windows_of(plan)[0]
    with stage.windows(plan) as reader:
        with pytest.raises(ValueError, match="frames for an array of"):
            reader.read(first, empty(first)[1:])
        with pytest.raises(ValueError, match="does not fit"):
            reader.read(first, empty(first)[:, 1:])


@pytest.mark.parametrize("frames", [1, 2, 3, 7])
@pytest.mark.parametrize("maximum", [3, 6])
def test_short_clips(tmp_path, frames, maximum):
    clip = make_clip(tmp_path / "clip.mp4", frames=frames)
    stage = Prepare()
    plan = stage.plan(clip, replace(OPTIONS, max_interval=maximum))
    assert plan.key_numbers[0] == 0
    assert plan.key_numbers[-1] == frames - 1
    last = windows_of(plan)[-1]
    assert last.first_frame + len(filled(stage, plan)[-1]) == frames


def test_adaptive_key_frames_follow_the_picture(tmp_path):
    clip = make_clip(tmp_path / "clip.mp4", frames=30)
    plan = Prepare().plan(clip, KeyFrameOptions(4, 12, 4, 64))
    gaps = np.diff(plan.key_numbers)
    assert (gaps >= 4).all()
    assert (gaps <= 12).all()


def test_progress_counts_frames(tmp_path):
    seen = []
    stage = Prepare()
    clip = make_clip(tmp_path / "clip.mp4", frames=20)
    plan = stage.plan(clip, OPTIONS, on_frame=seen.append)
    assert seen == list(range(20))
    seen.clear()
    with stage.windows(plan) as reader:
        reader.skip_to(2, seen.append)
        for window in windows_of(plan)[1:]:
            reader.read(window, empty(window), seen.append)
    assert seen == list(range(20))


def test_a_clip_that_shrank_is_told(tmp_path):
    stage = Prepare()
    clip = make_clip(tmp_path / "clip.mp4", frames=20)
    plan = stage.plan(clip, OPTIONS)
    make_clip(clip, frames=10)
    with pytest.raises(ClipError, match="changed while it was read"):
        filled(stage, plan)
    with pytest.raises(ClipError, match="changed while it was read"):
        filled(stage, plan, slice(-1, None))


@pytest.mark.parametrize(
    ("resolution", "adaptive", "becomes"),
    [(512, False, "16384x512"), (64, True, "16384x512"), (1024, True, "32768x1024")],
)
def test_a_strip_that_resizing_makes_too_large_is_refused(
    tmp_path, monkeypatch, resolution, adaptive, becomes
):
    clip = make_clip(tmp_path / "strip.mp4", frames=3, width=512, height=16)
    options = replace(OPTIONS, resolution=resolution, max_interval=6 if adaptive else 3)
    width, height = map(int, becomes.split("x"))
    stage = Prepare(max_pixels=width * height - 1)
    with monkeypatch.context() as patch:
        patch.setattr(cv2, "resize", None)  # refused before anything is resized
        remedy = r"strip\.mp4: .*limits\.max_pixels.*key_frames\.resolution"
        with pytest.raises(ClipError, match=remedy) as refusal:
            stage.plan(clip, options)
    assert f"512x16 would become {becomes}, more than" in str(refusal.value)
    assert Prepare(max_pixels=width * height).plan(clip, options).info.frame_count == 3


def test_only_sizes_that_are_needed_count(tmp_path):
    clip = make_clip(tmp_path / "strip.mp4", frames=3, width=512, height=16)
    assert Prepare(max_pixels=64 * 2048).plan(clip, OPTIONS).working_size == (64, 2048)


def test_a_clip_that_is_none_is_refused(tmp_path):
    (tmp_path / "clip.mp4").write_text("not a video")
    with pytest.raises(ClipError, match=r"clip\.mp4"):
        Prepare().plan(tmp_path / "clip.mp4", OPTIONS)


def test_a_preview_is_the_first_batch_and_nothing_after_it(tmp_path):
    clip = make_clip(tmp_path / "clip.mp4", frames=20, width=64, height=64)
    stage = Prepare()
    whole = stage.plan(clip, OPTIONS)
    plan = stage.plan(clip, replace(OPTIONS, first_batch_only=True))
    assert plan.info == whole.info
    assert plan.batches == whole.batches[:1]
    assert plan.key_numbers == plan.batches[0].new == (0, 3, 6, 9)
    assert (plan.frame_count, whole.frame_count) == (10, 20)
    (window,) = windows_of(plan)
    assert (window.count, window.frame_count) == (1, 10)
    (frames,) = filled(stage, plan)
    assert np.array_equal(frames, filled(stage, whole)[0])


@pytest.mark.parametrize(("largest", "converted"), [(3, 1), (6, 10)])
def test_frames_of_equal_intervals_are_counted_only(tmp_path, monkeypatch, largest, converted):
    clip = make_clip(tmp_path / "clip.mp4", frames=10)
    made, seen = [], []
    convert = clip_reader.ToRGB.__call__
    monkeypatch.setattr(
        clip_reader.ToRGB, "__call__", lambda *given: made.append(1) or convert(*given)
    )
    plan = Prepare().plan(clip, replace(OPTIONS, max_interval=largest), "auto", seen.append)
    assert (plan.info.frame_count, len(made)) == (10, converted)
    assert seen == list(range(10))
