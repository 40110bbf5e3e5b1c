"""The loop, with small stages in place of the real ones. Clips and publishing are real."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import cv2
import numpy as np
import pytest

from daemon import pipeline
from daemon.config import Layer, merge
from daemon.demo_clip import render_clip
from daemon.jobs import Job, JobResult, Outcome
from daemon.settings import Settings
from fresco_core.errors import ClipError, FrescodError, ModelsError
from io_pipeline.prepare import Prepare
from io_pipeline.publish import Publisher

SETTINGS = merge(
    Layer(
        "test",
        {
            "key_frames.min_interval": 4,
            "key_frames.max_interval": 4,
            "key_frames.batch_size": 3,
            "key_frames.resolution": 64,
        },
    )
)


@dataclass
class Watcher:
    """A progress that remembers."""

    stages: dict[str, list[tuple[int, int | None]]] = field(default_factory=dict)
    ended: list[JobResult] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    traces: list[str] = field(default_factory=list)

    def begin(self, job: Job, number: int, count: int) -> None:
        self.stages = {}

    def stage(self, name: str, done: int, total: int | None, seconds: float) -> None:
        self.stages.setdefault(name, []).append((done, total))

    def end(self, result: JobResult) -> None:
        self.ended.append(result)

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    def trace(self, text: str) -> None:
        self.traces.append(text)


class Invert:
    """Translates by inverting; the carry counts the windows before."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, tuple[int, ...], Any, str]] = []

    def __call__(self, window: Any, prompt: Any, carry: Any, on_step: Any) -> Any:
        self.calls.append((window.index, window.key_numbers, carry, prompt.positive))
        for step in range(3):
            on_step(step + 1, 3)
        return SimpleNamespace(keys_KHWC=255 - window.key_frames_KHWC, carry=(carry or 0) + 1)


def between(segment: Any) -> Any:
    """Propagates by inverting too: so every output frame is the inverted input."""
    return 255 - segment.frames_THWC[1:-1]


def edges(frame_HWC: Any) -> Any:
    return cv2.Canny(frame_HWC, 50, 100)


class Rig:
    """Folders, stages and a watcher around one run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.output = folder / "out"
        self.watcher = Watcher()
        self.translate: Any = Invert()
        self.propagate: Any = between
        self.loads = 0

    def job(self, name: str = "a", frames: int = 14, prompt: str = "a car") -> Job:
        clip, prompt_file = self.folder / f"{name}.mp4", self.folder / f"{name}.txt"
        render_clip(clip, width=96, height=64, frames=frames)
        prompt_file.write_text(prompt)
        return Job(clip, prompt_file, name)

    def load(self, settings: Settings) -> Any:
        self.loads += 1
        frames = settings.key_frames
        return SimpleNamespace(
            prepare=Prepare(edges, **frames.model_dump()),
            translate=self.translate,
            propagate=self.propagate,
            inspect=lambda prompt: (f"seen: {prompt.positive}",),
            facts={"device": "cpu"},
        )

    def run(self, *jobs: Job, settings: Settings = SETTINGS, **options: Any) -> list[JobResult]:
        return pipeline.run(jobs, settings, self.output, self.load, self.watcher, **options)

    def manifest(self, name: str = "a") -> dict[str, Any]:
        return json.loads((self.output / name / "manifest.json").read_bytes())


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def read_frames(path: Path) -> Iterator[Any]:
    with av.open(str(path)) as container:
        yield from (frame.to_ndarray(format="rgb24") for frame in container.decode(video=0))


def test_every_frame_comes_out_once_and_in_order(rig: Rig) -> None:
    (result,) = rig.run(rig.job())
    assert result.outcome is Outcome.DONE, result.reason
    assert result.folder == rig.output / "a"
    given = list(read_frames(rig.folder / "a.mp4"))
    made = list(read_frames(rig.output / "a" / "blend.mp4"))
    assert len(given) == len(made) == 14
    for number, frame in enumerate(made):
        distances = [np.abs(255 - frame.astype(int) - other).mean() for other in given]
        assert int(np.argmin(distances)) == number


def test_result_folder(rig: Rig) -> None:
    rig.run(rig.job())
    names = sorted(path.name for path in (rig.output / "a").iterdir())
    assert names == ["blend.mp4", "comparison.mp4", "contact_sheet.png", "keys", "manifest.json"]
    keys = sorted(path.name for path in (rig.output / "a/keys").iterdir())
    assert keys == ["0000.png", "0004.png", "0008.png", "0012.png", "0013.png"]
    assert [path.name for path in rig.output.iterdir()] == ["a"]


def test_comparison_and_contact_sheet_can_be_left_out(rig: Rig) -> None:
    settings = merge(
        Layer("a", {"output.comparison": False, "output.contact_sheet": False}),
        Layer("b", {"key_frames.resolution": 64}),
    )
    rig.run(rig.job(frames=2), settings=settings)
    names = sorted(path.name for path in (rig.output / "a").iterdir())
    assert names == ["blend.mp4", "keys", "manifest.json"]


def test_carry_goes_from_window_to_window_and_not_from_clip_to_clip(rig: Rig) -> None:
    rig.run(rig.job("a", prompt="one"), rig.job("b", frames=3, prompt="two"))
    windows = [call[0] for call in rig.translate.calls]
    carries = [call[2] for call in rig.translate.calls]
    last = windows.index(0, 1)
    assert last > 1
    assert carries[:last] == [None, *range(1, last)]
    assert carries[last] is None
    assert [call[3] for call in rig.translate.calls] == ["one"] * last + ["two"] * (
        len(windows) - last
    )


def test_manifest(rig: Rig) -> None:
    rig.run(rig.job(prompt="a car\nNegative prompt: rain"))
    manifest = rig.manifest()
    assert manifest["clip"]["file"] == "a.mp4"
    assert manifest["clip"]["frames"] == 14
    assert manifest["clip"]["rate"] == "12"
    assert manifest["prompt"] == {"positive": "a car", "negative": "rain"}
    assert manifest["seed"] == 0
    assert manifest["sizes"] == {
        "clip": [96, 64],
        "working": [128, 64],
        "scale": [128 / 96, 1.0],
        "crop": None,
    }
    assert manifest["key_frames"] == [0, 4, 8, 12, 13]
    assert [number for batch in manifest["batches"] for number in batch["new"]] == [0, 4, 8, 12, 13]
    assert manifest["settings"] == SETTINGS.model_dump(mode="json")
    assert set(manifest["seconds"]) == {"prepare", "translate", "propagate", "publish"}
    assert sum(manifest["seconds"].values()) <= rig.watcher.ended[0].seconds
    assert manifest["device"] == "cpu"
    assert "seen: a car" in manifest["warnings"]
    assert rig.watcher.warnings == ["a.mp4: seen: a car"]


def test_what_publishing_warns_of_is_shown_too(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    told = "sound track 1 (pcm_s16le) was encoded as AAC for mp4"
    monkeypatch.setattr(Publisher, "warnings", (told,))
    rig.run(rig.job(frames=2))
    assert rig.watcher.warnings == ["a.mp4: seen: a car", f"a.mp4: {told}"]
    assert rig.manifest()["warnings"] == ["seen: a car", told]


def test_progress_of_every_stage_rises_to_its_total(rig: Rig) -> None:
    rig.run(rig.job())
    assert set(rig.watcher.stages) == {"prepare", "translate", "propagate", "publish"}
    for name, steps in rig.watcher.stages.items():
        done = [number for number, total in steps if total is not None]
        assert done == sorted(done), name
        assert steps[-1][0] == steps[-1][1], name
        assert [number == total for number, total in steps].count(True) == 1, name


@pytest.mark.parametrize("frames", [1, 2, 3, 5, 7])
def test_short_clips(rig: Rig, frames: int) -> None:
    (result,) = rig.run(rig.job(frames=frames))
    assert result.outcome is Outcome.DONE, result.reason
    assert len(list(read_frames(rig.output / "a/blend.mp4"))) == frames


class TestSkipping:
    def test_a_done_clip_is_skipped_and_no_model_is_loaded(self, rig: Rig) -> None:
        job = rig.job(frames=2)
        rig.run(job)
        (result,) = rig.run(job)
        assert result.outcome is Outcome.ALREADY_DONE
        assert rig.loads == 1

    def test_force(self, rig: Rig) -> None:
        job = rig.job(frames=2)
        rig.run(job)
        (result,) = rig.run(job, force=True)
        assert result.outcome is Outcome.DONE
        assert len(rig.translate.calls) == 2

    def test_changed_prompt_settings_or_clip(self, rig: Rig) -> None:
        job = rig.job(frames=2)
        rig.run(job)
        job.prompt_file.write_text("a dog")
        assert rig.run(job)[0].outcome is Outcome.DONE
        assert rig.manifest()["prompt"]["positive"] == "a dog"
        other = merge(Layer("x", {"key_frames.resolution": 128}))
        assert rig.run(job, settings=other)[0].outcome is Outcome.DONE
        render_clip(job.clip, width=96, height=64, frames=3)
        assert rig.run(job, settings=other)[0].outcome is Outcome.DONE
        assert rig.manifest()["clip"]["frames"] == 3
        assert rig.run(job, settings=other)[0].outcome is Outcome.ALREADY_DONE

    def test_damaged_manifest_means_not_done_and_nothing_to_replace(self, rig: Rig) -> None:
        job = rig.job(frames=2)
        rig.run(job)
        (rig.output / "a/manifest.json").write_text("{")
        (result,) = rig.run(job)
        assert result.outcome is Outcome.FAILED
        assert "is no result of frescod" in result.reason


class TestFailing:
    def test_one_bad_clip_does_not_stop_the_others(self, rig: Rig) -> None:
        bad = rig.job("bad")
        bad.clip.write_bytes(b"no clip at all")
        results = rig.run(bad, rig.job("good", frames=2))
        assert [result.outcome for result in results] == [Outcome.FAILED, Outcome.DONE]
        assert "bad.mp4" in results[0].reason
        assert [path.name for path in rig.output.iterdir()] == ["good"]

    def test_bad_prompt(self, rig: Rig) -> None:
        (result,) = rig.run(rig.job(prompt=" "))
        assert result.outcome is Outcome.FAILED
        assert "prompt is empty" in result.reason

    def test_vanished_clip(self, rig: Rig) -> None:
        job = rig.job()
        job.clip.unlink()
        (result,) = rig.run(job, rig.job("b", frames=1))[:1]
        assert "a.mp4: cannot be read" in result.reason

    def test_a_reason_of_ours_is_shown_as_it_is(self, rig: Rig) -> None:
        def fail(segment: Any) -> Any:
            raise ClipError("frame 3 is upside down: turn it")

        rig.propagate = fail
        (result,) = rig.run(rig.job())
        assert result.reason == "frame 3 is upside down: turn it"
        assert not any(rig.output.glob("**/*.mp4"))

    def test_an_unexpected_error_is_one_line(self, rig: Rig) -> None:
        def fail(*arguments: Any) -> Any:
            raise RuntimeError("CUDA error:\n  device-side assert")

        rig.translate = fail
        (result,) = rig.run(rig.job())
        assert result.outcome is Outcome.FAILED
        assert result.reason.startswith("unexpected RuntimeError: CUDA error: device-side assert")
        assert rig.watcher.traces == []
        rig.run(rig.job(), debug=True)
        assert "in fail" in rig.watcher.traces[0]

    def test_a_failed_clip_keeps_the_older_result(self, rig: Rig) -> None:
        job = rig.job(frames=2)
        rig.run(job)
        before = rig.manifest()

        def fail(*arguments: Any) -> Any:
            raise RuntimeError

        rig.translate = fail
        assert rig.run(job, force=True)[0].outcome is Outcome.FAILED
        assert rig.manifest() == before

    def test_missing_models_end_the_run_before_the_first_clip(self, rig: Rig) -> None:
        def load(settings: Settings) -> Any:
            raise ModelsError("no weights")

        with pytest.raises(ModelsError):
            pipeline.run([rig.job()], SETTINGS, rig.output, load, rig.watcher)
        assert not rig.output.exists()

    def test_an_unexpected_error_while_loading_is_one_line(self, rig: Rig) -> None:
        def load(settings: Settings) -> Any:
            raise RuntimeError("CUDA out of memory.\n Tried to allocate 2 GiB")

        for debug in (False, True):
            with pytest.raises(FrescodError) as caught:
                pipeline.run([rig.job()], SETTINGS, rig.output, load, rig.watcher, debug=debug)
            assert str(caught.value) == (
                "unexpected RuntimeError: CUDA out of memory. Tried to allocate 2 GiB "
                "(run with --debug for details)"
            )
            assert caught.value.exit_code == 1
            assert len(rig.watcher.traces) == debug
        assert "in load" in rig.watcher.traces[0]

    def test_interrupt_leaves_no_staging(self, rig: Rig) -> None:
        def interrupt(segment: Any) -> Any:
            assert (rig.output / ".staging").exists()
            raise KeyboardInterrupt

        rig.propagate = interrupt
        with pytest.raises(KeyboardInterrupt):
            rig.run(rig.job())
        assert list(rig.output.iterdir()) == []


def test_models_are_loaded_once(rig: Rig) -> None:
    rig.run(rig.job("a", frames=1), rig.job("b", frames=1), rig.job("c", frames=1))
    assert rig.loads == 1
