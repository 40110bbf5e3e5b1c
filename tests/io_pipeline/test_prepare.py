import itertools

import cv2
import numpy as np
import pytest

from fresco_core.errors import ClipError
from io_pipeline.prepare import Prepare
from tests.io_pipeline.media import make_clip


def canny(frame):
    return cv2.Canny(frame, 50, 100)


def prepare(**changes) -> Prepare:
    settings = {"min_interval": 3, "max_interval": 3, "batch_size": 4, "resolution": 64}
    return Prepare(canny, **settings | changes)


def test_windows_cover_the_clip_and_share_one_frame(tmp_path):
    clip = make_clip(tmp_path / "clip.mp4", frames=20, width=96, height=80)
    stage = prepare()
    plan = stage.plan(clip)
    assert plan.working_size == (64, 64)
    assert plan.key_numbers == (0, 3, 6, 9, 12, 15, 18, 19)
    windows = list(stage.windows(plan))
    assert [w.key_numbers for w in windows] == [b.new for b in plan.batches]
    assert [(w.index, w.count) for w in windows] == [(i, len(windows)) for i in range(len(windows))]
    for before, window in itertools.pairwise(windows):
        assert window.first_frame == before.key_numbers[-1]
        assert np.array_equal(window.frames_THWC[0], before.frames_THWC[-1])
    assert sum(len(w.frames_THWC) for w in windows) == 20 + len(windows) - 1


def test_key_frames_and_control_maps_belong_together(tmp_path):
    clip = make_clip(tmp_path / "clip.mp4", frames=11, width=128, height=128)
    stage = prepare()
    for window in stage.windows(stage.plan(clip)):
        for number, key, control in zip(
            window.key_numbers, window.key_frames_KHWC, window.controls_KHW, strict=True
        ):
            assert np.array_equal(key, window.frames_THWC[number - window.first_frame])
            assert np.array_equal(control, canny(key))


@pytest.mark.parametrize("frames", [1, 2, 3, 7])
@pytest.mark.parametrize("maximum", [3, 6])
def test_short_clips(tmp_path, frames, maximum):
    clip = make_clip(tmp_path / "clip.mp4", frames=frames)
    stage = prepare(max_interval=maximum)
    plan = stage.plan(clip)
    assert plan.key_numbers[0] == 0
    assert plan.key_numbers[-1] == frames - 1
    last = list(stage.windows(plan))[-1]
    assert last.first_frame + len(last.frames_THWC) == frames


def test_adaptive_key_frames_follow_the_picture(tmp_path):
    clip = make_clip(tmp_path / "clip.mp4", frames=30)
    plan = prepare(min_interval=4, max_interval=12).plan(clip)
    gaps = np.diff(plan.key_numbers)
    assert (gaps >= 4).all()
    assert (gaps <= 12).all()


def test_without_a_detector_there_are_no_maps(tmp_path):
    clip = make_clip(tmp_path / "clip.mp4", frames=3)
    stage = Prepare(None, min_interval=2, max_interval=2, batch_size=3, resolution=64)
    assert [w.controls_KHW for w in stage.windows(stage.plan(clip))] == [None]


def test_progress_counts_frames(tmp_path):
    seen = []
    prepare().plan(make_clip(tmp_path / "clip.mp4", frames=5), seen.append)
    assert seen == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("resolution", "adaptive", "becomes"),
    [(512, False, "16384x512"), (64, True, "16384x512"), (1024, True, "32768x1024")],
)
def test_a_strip_that_resizing_makes_too_large_is_refused(
    tmp_path, monkeypatch, resolution, adaptive, becomes
):
    clip = make_clip(tmp_path / "strip.mp4", frames=3, width=512, height=16)
    changes = {"resolution": resolution, "max_interval": 6 if adaptive else 3}
    width, height = map(int, becomes.split("x"))
    stage = prepare(max_pixels=width * height - 1, **changes)
    with monkeypatch.context() as patch:
        patch.setattr(cv2, "resize", None)  # refused before anything is resized
        remedy = r"strip\.mp4: .*limits\.max_pixels.*key_frames\.resolution"
        with pytest.raises(ClipError, match=remedy) as refusal:
            stage.plan(clip)
    assert f"512x16 would become {becomes}, more than" in str(refusal.value)
    assert prepare(max_pixels=width * height, **changes).plan(clip).info.frame_count == 3


def test_only_sizes_that_are_needed_count(tmp_path):
    clip = make_clip(tmp_path / "strip.mp4", frames=3, width=512, height=16)
    assert prepare(max_pixels=64 * 2048).plan(clip).working_size == (64, 2048)


def test_a_clip_that_is_none_is_refused(tmp_path):
    (tmp_path / "clip.mp4").write_text("not a video")
    with pytest.raises(ClipError, match=r"clip\.mp4"):
        prepare().plan(tmp_path / "clip.mp4")
