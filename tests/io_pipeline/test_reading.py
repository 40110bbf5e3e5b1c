"""The reader's tasks, in this process."""

import pickle
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fresco_core.errors import ClipError
from io_pipeline.blocks import Block
from io_pipeline.options import KeyFrameOptions
from io_pipeline.plan import ClipPlan
from io_pipeline.reading import Reader, ReaderStage
from io_pipeline.tasks import ClipSize, MeasureClip, OpenClip, PlanClip, ReadWindow
from io_pipeline.window import Window, windows
from tests.io_pipeline.media import cut, make_clip, read

STAGE = ReaderStage(8192 * 8192)
OPTIONS = KeyFrameOptions(3, 3, 4, 64)


class Reports(list[tuple[str, int, int]]):
    def __call__(self, phase: str, done: int, count: int) -> None:
        self.append((phase, done, count))


@pytest.fixture
def reader() -> Reader:
    return pickle.loads(pickle.dumps(STAGE)).load(Reports())


def windows_of(plan: ClipPlan) -> list[Window]:
    return list(windows(plan, steps=2, flows=False, matched=True))


def frames_of(reader: Reader, window: Window) -> Any:
    with Block.create(window.layout()) as block:
        reader(ReadWindow(window), (block,), Reports())
        return block["frames"].copy()


def test_plans_and_reads_a_clip(tmp_path: Path, reader: Reader) -> None:
    clip = make_clip(tmp_path / "a.mp4", frames=20)
    plan = reader(PlanClip(clip, "auto", OPTIONS), (), Reports())
    assert pickle.loads(pickle.dumps(plan)) == plan
    found = [frames_of(reader, window)[window.new_frames] for window in windows_of(plan)]
    assert np.array_equal(np.concatenate(found), read(clip))


@pytest.mark.parametrize("index", [0, 1, -1])
def test_another_reader_goes_on(tmp_path: Path, reader: Reader, index: int) -> None:
    clip = make_clip(tmp_path / "a.mp4", frames=20)
    plan = reader(PlanClip(clip, "auto", OPTIONS), (), Reports())
    window = windows_of(plan)[index]
    other, reports = STAGE.load(Reports()), Reports()
    other(OpenClip(plan, window.index), (), reports)
    assert reports[0] == ("decode", 0, 20)
    expected = read(clip)[window.first_frame : window.first_frame + window.frame_count]
    with Block.create(window.layout()) as block:
        other(ReadWindow(window), (block,), Reports())
        assert np.array_equal(block["frames"], expected)
        if window.index:
            assert np.array_equal(block["first_frame"], read(clip)[0])


def test_takes_one_clip_after_another(tmp_path: Path, reader: Reader) -> None:
    for frames in (5, 9):
        clip = make_clip(tmp_path / f"{frames}.mp4", frames=frames)
        plan = reader(PlanClip(clip, "auto", OPTIONS), (), Reports())
        assert plan.info.frame_count == frames
        frames_of(reader, windows_of(plan)[0])


def test_window_that_had_no_memory_is_read_later(
    tmp_path: Path, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = make_clip(tmp_path / "a.mp4", frames=9)
    window = windows_of(reader(PlanClip(clip, "auto", OPTIONS), (), Reports()))[0]

    def full(block: Block) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(Block, "allocate", full)
        with pytest.raises(MemoryError):
            frames_of(reader, window)
    assert np.array_equal(frames_of(reader, window), read(clip)[: window.frame_count])


def test_files_are_closed_with_the_last_window(tmp_path: Path, reader: Reader) -> None:
    def open_files() -> int:
        return sum(path.resolve().is_relative_to(tmp_path) for path in descriptors.iterdir())

    descriptors = Path("/proc/self/fd")
    plan = reader(
        PlanClip(make_clip(tmp_path / "a.mp4", frames=20), "auto", OPTIONS), (), Reports()
    )
    *most, last = windows_of(plan)
    for window in most:
        frames_of(reader, window)
    assert open_files() == 1
    frames_of(reader, last)
    assert open_files() == 0


def test_progress_comes_often_but_not_for_every_frame(
    tmp_path: Path, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = make_clip(tmp_path / "a.mp4", frames=60)
    now = iter(range(1000))
    monkeypatch.setattr(time, "monotonic", lambda: next(now) * 0.1)
    reports = Reports()
    reader(PlanClip(clip, "auto", OPTIONS), (), reports)
    assert reports[0] == ("decode", 0, 0)
    done = [number for _, number, _ in reports]
    assert done == sorted(done)
    assert all(1 <= b - a <= 4 for a, b in pairwise(done))
    assert 60 - done[-1] <= 4


def test_a_window_that_was_read_is_reported(tmp_path: Path, reader: Reader) -> None:
    plan = reader(
        PlanClip(make_clip(tmp_path / "a.mp4", frames=20), "auto", OPTIONS), (), Reports()
    )
    for window in windows_of(plan):
        reports = Reports()
        with Block.create(window.layout()) as block:
            reader(ReadWindow(window), (block,), reports)
        assert reports[-1] == ("decode", window.key_numbers[-1] + 1, 20)


class TestMeasure:
    @pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi"])
    def test_by_the_header(
        self, tmp_path: Path, reader: Reader, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        clip = make_clip(tmp_path / name, frames=48, width=96)
        monkeypatch.setattr("io_pipeline.clip_source.ClipSource.frames", None)
        assert reader(MeasureClip(clip), (), Reports()) == ClipSize(48, 96 * 64)

    def test_a_cut_clip_counts_by_what_its_header_says(
        self, tmp_path: Path, reader: Reader
    ) -> None:
        clip = cut(make_clip(tmp_path / "a.avi", frames=48))
        assert reader(MeasureClip(clip), (), Reports()).frames > 0

    @pytest.mark.parametrize("content", [b"", b"not a video", None])
    def test_what_cannot_be_opened_is_nothing(
        self, tmp_path: Path, reader: Reader, content: bytes | None
    ) -> None:
        if content is not None:
            (tmp_path / "a.mp4").write_bytes(content)
        assert reader(MeasureClip(tmp_path / "a.mp4"), (), Reports()) == ClipSize(0, 0)


def test_mistakes_are_told(tmp_path: Path, reader: Reader) -> None:
    clip = make_clip(tmp_path / "a.mp4", frames=20)
    window = windows_of(reader(PlanClip(clip, "auto", OPTIONS), (), Reports()))[0]
    with pytest.raises(ClipError, match=r"b\.mp4: cannot be read"):
        reader(PlanClip(tmp_path / "b.mp4", "auto", OPTIONS), (), Reports())
    with pytest.raises(ValueError, match="no clip is open"):
        frames_of(reader, window)
    with pytest.raises(TypeError, match="no task for a reader"):
        reader("read", (), Reports())


def test_needs_neither_torch_nor_the_supervisor() -> None:
    unwanted = ("torch", "numba", "daemon", "diffusers", "rich", "decord")
    code = f"import io_pipeline.reading, sys; print([n for n in {unwanted} if n in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout == "[]\n", result.stderr
