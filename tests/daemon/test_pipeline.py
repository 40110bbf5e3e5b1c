"""The loop, with small stages for the networks. Clips, processes and publishing are real."""

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from daemon.demo_clip import render_clip
from daemon.jobs import Outcome
from fresco_core.errors import ClipError, FrescodError, ModelsError
from io_pipeline.staging import Staging
from tests.daemon.rig import Rig
from tests.daemon.simulated import Fault, fail

KEYS = [0, 4, 8, 12, 16, 17]  # of a clip of 18 frames, in three windows


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Rig:
    """A run over one clip, to be looked at."""
    rig = Rig(tmp_path_factory.mktemp("done"))
    (result,) = rig.run(rig.job(prompt="a car\nNegative prompt: rain"))
    assert result.outcome is Outcome.DONE, result.reason
    assert result.folder == rig.output / "a"
    return rig


def read_frames(path: Path) -> Iterator[Any]:
    with av.open(str(path)) as container:
        yield from (frame.to_ndarray(format="rgb24") for frame in container.decode(video=0))


def check_frames(rig: Rig, name: str = "a") -> None:
    """Every frame came out once and in order."""
    given = list(read_frames(rig.folder / f"{name}.mp4"))
    made = list(read_frames(rig.output / name / "blend.mp4"))
    assert len(given) == len(made)
    for number, frame in enumerate(made):
        distances = [np.abs(255 - frame.astype(int) - other).mean() for other in given]
        assert int(np.argmin(distances)) == number


class TestResult:
    def test_every_frame_comes_out_once_and_in_order(self, done: Rig) -> None:
        check_frames(done)

    def test_folder(self, done: Rig) -> None:
        names = sorted(path.name for path in (done.output / "a").iterdir())
        assert names == [
            "blend.mp4",
            "comparison.mp4",
            "contact_sheet.png",
            "keys",
            "manifest.json",
        ]
        keys = sorted(path.name for path in (done.output / "a/keys").iterdir())
        assert keys == [f"{number:04d}.png" for number in KEYS]
        assert [path.name for path in done.output.iterdir()] == ["a"]

    def test_comparison_shows_input_map_and_output(self, done: Rig) -> None:
        given = list(read_frames(done.folder / "a.mp4"))
        beside = list(read_frames(done.output / "a/comparison.mp4"))
        assert len(beside) == 18
        for number, frame in enumerate(beside):
            first, edges, last = np.split(frame.astype(int), 3, axis=1)
            assert np.abs(first + last - 255).mean() < 12
            assert edges.max() > 10
            picture = given[number].astype(int)
            assert abs(first.mean() - picture.mean()) < 6

    def test_manifest(self, done: Rig) -> None:
        manifest = done.manifest()
        assert manifest["clip"]["file"] == "a.mp4"
        assert manifest["clip"]["frames"] == 18
        assert manifest["clip"]["rate"] == "12"
        assert manifest["prompt"] == {"positive": "a car", "negative": "rain", "timed": []}
        assert manifest["seed"] == 0
        assert manifest["sizes"] == {
            "clip": [96, 64],
            "working": [128, 64],
            "scale": [128 / 96, 1.0],
            "crop": None,
        }
        numbers = KEYS
        assert manifest["key_frames"] == numbers
        assert [number for batch in manifest["batches"] for number in batch["new"]] == numbers
        assert manifest["settings"] == done.settings().model_dump(mode="json")
        assert manifest["device"] == "simulated"
        assert manifest["devices"] == ["cpu"]
        assert manifest["propagated"] == {"cpu": 18 - len(KEYS), "gpu": 0}
        stages = {"prepare", "match", "translate", "propagate", "publish"}
        assert set(manifest["seconds"]) == stages
        assert all(seconds > 0 for seconds in manifest["seconds"].values())

    def test_what_a_device_warns_of_is_shown_and_kept(self, done: Rig) -> None:
        assert done.watcher.warnings == ["a.mp4: seen: a car"]
        assert done.manifest()["warnings"] == ["seen: a car"]

    def test_progress_of_every_stage_rises_to_its_total(self, done: Rig) -> None:
        stages = done.watcher.stages["a"]
        assert set(stages) == {"prepare", "translate", "propagate", "publish"}
        for name, steps in stages.items():
            told = [number for number, total in steps if total is not None]
            assert told == sorted(told), name
            assert steps[-1][0] == steps[-1][1], name
            assert all(number <= total for number, total in steps if total is not None), name

    def test_every_window_goes_once_through_every_step(self, done: Rig) -> None:
        for step in ("translate", "save", "publish"):
            events = [e for e in done.events(step) if not e.endswith("done")]
            if step != "translate":  # the pool's processes take them side by side
                events.sort()
            assert events == [f"{step} a {index}" for index in range(3)]
        assert len(done.events("load ")) == 1  # the device, and no checkpoint

    def test_key_frames_are_matched_ahead_of_their_device(self, done: Rig) -> None:
        """Each with the next one, the last with the first, the two carried ones included."""
        events = done.events("match", "step 0")
        batches = done.manifest()["batches"]
        assert len(batches) == 3
        for index, batch in enumerate(batches):
            begun = events.index(f"step 0 of translate a {index}")
            pairs = len(batch["new"]) + (2 if index else 0)
            for pair in range(pairs):
                assert events.index(f"match {index} {pair} done") < begun
            assert f"match {index} {pairs}" not in events

    def test_the_fewest_processes(self, done: Rig) -> None:
        assert len(done.workshop.readers.workers) == 1
        assert len(done.workshop.pool.workers) == 2


def test_comparison_and_contact_sheet_can_be_left_out(rig: Rig) -> None:
    rig.run(rig.job(frames=2), output__comparison=False, output__contact_sheet=False)
    names = sorted(path.name for path in (rig.output / "a").iterdir())
    assert names == ["blend.mp4", "keys", "manifest.json"]


def test_short_clips_side_by_side_on_two_devices(rig: Rig) -> None:
    frames = {"a": 1, "b": 2, "c": 3, "d": 5, "e": 7, "f": 18}
    jobs = [rig.job(name, count) for name, count in frames.items()]
    results = rig.run(*jobs, devices=("cpu", "cpu"))
    assert [result.clip for result in results] == [job.clip for job in jobs]
    assert {result.outcome for result in results} == {Outcome.DONE}
    for name in frames:
        check_frames(rig, name)
    assert len(rig.events("load cpu")) == 2  # models are loaded once in each
    used = {name for name in frames for name in rig.manifest(name)["devices"]}
    assert used <= {"cpu 1", "cpu 2"}


def test_without_controlnet(rig: Rig) -> None:
    (result,) = rig.run(rig.job(), control__enabled=False)
    assert result.outcome is Outcome.DONE, result.reason
    check_frames(rig)
    assert rig.events("map") == []


def test_a_gpu_draws_maps_that_nobody_has_begun(rig: Rig) -> None:
    (result,) = rig.run(rig.job(), devices=("cuda:0",), control__device="gpu")
    assert result.outcome is Outcome.DONE, result.reason
    assert rig.events("map") == []
    # 77 is what the device draws
    for frame in read_frames(rig.output / "a/comparison.mp4"):
        assert abs(np.split(frame.astype(int), 3, axis=1)[1].mean() - 77) < 5


def test_memory_for_two_windows_is_enough_for_many_clips(rig: Rig) -> None:
    jobs = [rig.job(name) for name in "abcd"]
    one = 64 * 128 * (9 * 3 + 4 * 3 + 9 * 3 + 2 * 3 + 3 * 2 + 1 + 2) + 15 * 2 * 4 * 8 * 16 * 4
    one += 64 * 128 * (2 * 5 * 2 * 4 + 5 // 4 + 3)  # its five key frames matched
    results = rig.run(*jobs, devices=("cpu", "cpu"), prefetch__memory=f"{2 * one / 2**20 + 0.1}MiB")
    assert [result.reason for result in results] == [""] * 4
    shop = rig.workshop
    assert one <= shop.memory.peak <= shop.memory.total < 2.5 * one


class TestKeyFramesAlone:
    def test_first_a_look_then_all_of_them(self, rig: Rig) -> None:
        job = rig.job(frames=13)
        for frames, keys in (("preview", KEYS[:2]), ("keys", KEYS[:4])):
            (result,) = rig.run(job, output__frames=frames)
            assert result.outcome is Outcome.DONE, result.reason
            names = sorted(path.name for path in (rig.output / "a").iterdir())
            assert names == ["contact_sheet.png", "keys", "manifest.json"]
            made = sorted(path.name for path in (rig.output / "a/keys").iterdir())
            assert made == [f"{number:04d}.png" for number in keys]
            manifest = rig.manifest()
            assert (manifest["frames"], manifest["key_frames"]) == (frames, keys)
            assert manifest["clip"]["frames"] == 13
            for name in ("prepare", "propagate", "publish"):
                assert rig.watcher.stages["a"][name][-1] == (keys[-1] + 1, keys[-1] + 1)
            assert rig.events("propagate") == []
        assert rig.events("translate") == [f"translate a {index}" for index in (0, 0, 1)]
        before = rig.pictures()
        (result,) = rig.run(job, output__frames="preview")
        assert result.outcome is Outcome.FAILED
        assert "out/a: has all key frames of its clip" in result.reason
        assert rig.pictures() == before


class TestSkipping:
    def test_a_done_clip_is_skipped_until_something_changes(self, rig: Rig) -> None:
        job = rig.job(frames=2)
        rig.run(job)
        rig.forget_events()
        assert rig.run(job)[0].outcome is Outcome.ALREADY_DONE
        assert rig.events() == []  # no model is loaded, nothing is read
        assert rig.run(job, force=True)[0].outcome is Outcome.DONE
        job.prompt_file.write_text("a dog")
        assert rig.run(job)[0].outcome is Outcome.DONE
        assert rig.manifest()["prompt"]["positive"] == "a dog"
        assert rig.run(job, key_frames__resolution=128)[0].outcome is Outcome.DONE
        render_clip(job.clip, width=96, height=64, frames=3)
        assert rig.run(job, key_frames__resolution=128)[0].outcome is Outcome.DONE
        assert rig.manifest()["clip"]["frames"] == 3
        assert rig.run(job, key_frames__resolution=128)[0].outcome is Outcome.ALREADY_DONE

    @pytest.mark.parametrize("endless", [False, True])
    def test_what_an_interrupted_change_left_goes_with_it(self, rig: Rig, endless: bool) -> None:
        """A folder's run may still be continued with the settings that it had."""
        job = rig.job(frames=2)
        rig.run(job)
        staging = Staging(rig.output, "a")
        staging.open({"of": "the changed clip"})
        assert rig.run(job, endless=endless)[0].outcome is Outcome.ALREADY_DONE
        assert staging.folder.exists() is not endless

    def test_damaged_manifest_means_not_done_and_nothing_to_replace(self, rig: Rig) -> None:
        job = rig.job(frames=2)
        (rig.output / "a").mkdir(parents=True)
        (rig.output / "a/manifest.json").write_text("{")
        (result,) = rig.run(job)
        assert result.outcome is Outcome.FAILED
        assert "is no result of frescod" in result.reason


class TestFailing:
    def test_bad_clips_do_not_stop_the_others(self, rig: Rig) -> None:
        bad, no_prompt, gone, good = (
            rig.job(name, 5) for name in ("bad", "silent", "gone", "good")
        )
        bad.clip.write_bytes(b"no clip at all")
        no_prompt.prompt_file.write_text(" ")
        gone.clip.unlink()
        results = rig.run(bad, no_prompt, gone, good)
        assert [result.outcome for result in results] == [Outcome.FAILED] * 3 + [Outcome.DONE]
        assert "bad.mp4" in results[0].reason
        assert "prompt is empty" in results[1].reason
        assert "gone.mp4: cannot be read" in results[2].reason
        notes = [f"{name}.failed.txt" for name in ("bad", "gone", "silent")]
        assert sorted(path.name for path in rig.output.iterdir()) == sorted([*notes, "good"])
        assert "prompt is empty" in (rig.output / "silent.failed.txt").read_text()
        assert {result.clip for result in rig.watcher.ended} == {r.clip for r in results}
        check_frames(rig, "good")

    def test_a_failed_clip_keeps_the_older_result(self, rig: Rig) -> None:
        job = rig.job(frames=9)
        rig.run(job)
        before = rig.manifest()
        error = Fault("translate a 0", partial(fail, ClipError("frame 3 is upside down: turn it")))
        (result,) = rig.run(job, faults=[error_again(error)], force=True)
        assert result.outcome is Outcome.FAILED
        assert result.reason == "frame 3 is upside down: turn it"
        assert rig.manifest() == before
        assert sorted(path.name for path in rig.output.iterdir()) == ["a", "a.failed.txt"]
        rig.run(job, force=True)
        assert [path.name for path in rig.output.iterdir()] == ["a"]

    @pytest.mark.parametrize("debug", [False, True])
    def test_an_unexpected_error_is_one_line(self, rig: Rig, debug: bool) -> None:
        error = RuntimeError("CUDA error:\n  device-side assert")
        fault = Fault("propagate 1 0", partial(fail, error))
        (result,) = rig.run(rig.job(), faults=[fault], debug=debug)
        assert result.outcome is Outcome.FAILED
        assert (
            result.reason == "unexpected RuntimeError: CUDA error: (run with --debug for details)"
        )
        assert [("in fail" in trace) for trace in rig.watcher.traces] == [True] * debug

    def test_a_failed_clip_s_reader_is_free_when_it_is(self, rig: Rig) -> None:
        """The next clip does not get a reader that still reads the failed one."""
        wait = Fault("read 1", partial(time.sleep, 1.0))
        error = Fault("translate a 0", partial(fail, ClipError("a: bad")))
        results = rig.run(rig.job("a"), rig.job("b"), rig.job("c"), faults=[wait, error])
        assert [result.reason for result in results] == ["a: bad", "", ""]
        assert not rig.watcher.warnings[2:]
        check_frames(rig, "b")
        check_frames(rig, "c")

    def test_missing_models_end_the_run(self, rig: Rig) -> None:
        fault = Fault("load cpu", partial(fail, ModelsError("no weights")))
        with pytest.raises(ModelsError, match="no weights") as caught:
            rig.run(rig.job("a"), rig.job("b"), rig.job("c"), faults=[fault])
        assert caught.value.exit_code == 78
        assert {path.name for path in rig.output.glob("*")} <= {".staging"}

    def test_an_unexpected_error_while_loading_ends_the_run(self, rig: Rig) -> None:
        fault = Fault("load cpu", partial(fail, RuntimeError("CUDA out of memory.\n Tried 2 GiB")))
        with pytest.raises(FrescodError, match=r"RuntimeError: CUDA out of memory\.") as caught:
            rig.run(rig.job(frames=2), faults=[fault])
        assert caught.value.exit_code == 1
        assert "\n" not in str(caught.value)

    def test_a_window_that_is_too_large_for_the_memory(self, rig: Rig) -> None:
        (result,) = rig.run(rig.job(), prefetch__memory="1MiB")
        assert "a window of it takes" in result.reason
        assert "prefetch.memory" in result.reason


def error_again(fault: Fault) -> Fault:
    """The same at every time that the event comes."""
    return Fault(fault.event, fault.do, times=99)
