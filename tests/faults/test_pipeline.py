"""The pipeline when processes die, hang or run out of something. Networks are small stages."""

import asyncio
import pickle
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import pytest

from daemon import workshop
from daemon.devices import DeviceError
from daemon.jobs import Job, Outcome
from fresco_core.errors import ClipError
from io_pipeline.control_source import ControlFile
from io_pipeline.worker import FatalError, NoMemoryToPropagate
from io_pipeline.writing import DiskFullError
from tests.conftest import ROOT
from tests.daemon.rig import Rig
from tests.daemon.simulated import Fault, fail, fail_unless, kill, kill_supervisor, wait_for


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of clip ``a`` when nothing happens."""
    rig = Rig(tmp_path_factory.mktemp("undisturbed"))
    rig.run(rig.job())
    return rig.pictures()


def repeated(events: list[str]) -> list[str]:
    """What was begun again although it was done."""
    finished: set[str] = set()
    again = []
    for event in events:
        again += [event] if event in finished else []
        if event.endswith(" done"):
            finished.add(event.removesuffix(" done"))
    return again


def test_a_device_is_killed_in_the_middle_of_a_step(
    rig: Rig, undisturbed: dict[str, bytes]
) -> None:
    """Its clip goes on at that window; so do the others."""
    fault = Fault("step 1 of translate a 1", kill)
    jobs = [rig.job("a"), rig.job("b", 5), rig.job("c", 5)]
    results = rig.run(*jobs, devices=("cpu", "cpu"), faults=[fault])
    assert [result.reason for result in results] == ["", "", ""]
    assert rig.pictures() == undisturbed
    assert len(rig.events("step 0 of translate a 0")) == 1
    assert len(rig.events("step 0 of translate a 1")) == 2
    assert rig.workshop.devices.all[0].deaths or rig.workshop.devices.all[1].deaths
    (told,) = (text for text in rig.manifest()["warnings"] if "killed" in text)
    assert told.endswith("killed by SIGKILL; window 1 is done again")
    assert repeated(rig.events()) == []


@pytest.mark.parametrize(
    "event",
    [
        "map 1 0",
        "match 1 0",
        "propagate 1 0",
        "save a 1",
        "publish a 1",
        "join a",
        "plan a auto",
        "read 1",
    ],
)
def test_a_process_is_killed_and_only_its_task_done_again(
    rig: Rig, undisturbed: dict[str, bytes], event: str
) -> None:
    (result,) = rig.run(rig.job(), faults=[Fault(event, kill)])
    assert result.reason == ""
    assert rig.pictures() == undisturbed
    assert len([line for line in rig.events(event) if line == event]) == 2
    assert repeated(rig.events()) == []


def test_a_task_that_kills_every_process_fails_its_clip_only(rig: Rig) -> None:
    fault = Fault("publish a 0", kill, times=99)
    results = rig.run(rig.job("a", 5), rig.job("b", 5), faults=[fault])
    assert "ended, again and again: killed by SIGKILL" in results[0].reason
    assert results[1].outcome is Outcome.DONE
    assert len(rig.events("publish a 0")) == 3


def test_a_clip_that_kills_every_device_fails_alone(rig: Rig) -> None:
    fault = Fault("step 0 of translate a 0", kill, times=99)
    results = rig.run(rig.job("a"), rig.job("b", 5), faults=[fault])
    assert "3 times the process that translated it ended: killed by SIGKILL" in results[0].reason
    assert results[1].outcome is Outcome.DONE


def test_a_device_that_gives_up_is_replaced(rig: Rig, undisturbed: dict[str, bytes]) -> None:
    error = FatalError("CUDA error: an illegal memory access was encountered")
    (result,) = rig.run(rig.job(), faults=[Fault("step 2 of translate a 1", partial(fail, error))])
    assert result.reason == ""
    assert rig.pictures() == undisturbed
    assert any("illegal memory access" in text for text in rig.watcher.warnings)


def test_a_step_that_hangs(rig: Rig, undisturbed: dict[str, bytes]) -> None:
    fault = Fault("step 1 of translate a 1", partial(time.sleep, 600))
    (result,) = rig.run(rig.job(), faults=[fault], timeouts__step=3)
    assert result.reason == ""
    assert rig.pictures() == undisturbed
    assert any("step made no progress in 3 s" in text for text in rig.watcher.warnings)


def test_a_clip_whose_device_is_lost_waits_for_another(
    rig: Rig, undisturbed: dict[str, bytes]
) -> None:
    """It gives its memory back, for the others to go on, and continues from its checkpoint."""
    faults = [
        Fault("step 1 of translate a 1", kill),
        Fault("load cpu", kill, times=5, after=2),
        Fault("step 0 of translate b 0", partial(wait_for, rig.folder, "load cpu", 7)),
    ]
    jobs = [rig.job("a"), rig.job("b", 40)]
    results = rig.run(*jobs, devices=("cpu", "cpu"), faults=faults, prefetch__memory="8MiB")
    assert [result.reason for result in results] == ["", ""]
    assert rig.pictures() == undisturbed
    assert len(rig.events("step 0 of translate a 0")) == 1
    assert len(rig.events("load a")) <= 2  # the checkpoint of window 0, unless it was published
    assert any("is lost, the others carry on" in text for text in rig.watcher.warnings)


def test_devices_that_cannot_be_started_end_the_run(rig: Rig) -> None:
    with pytest.raises(DeviceError, match="no device is left") as caught:
        rig.run(rig.job(frames=2), faults=[Fault("load cpu", kill, times=99)])
    assert caught.value.exit_code == 69
    assert len(rig.events("load cpu")) == 6


class TestOutOfMemory:
    def test_half_the_batch_and_remembered(self, rig: Rig) -> None:
        jobs = [rig.job("a", 40), rig.job("b", 40)]
        results = rig.run(*jobs, largest_batch=4, key_frames__batch_size=8)
        assert [result.reason for result in results] == ["", ""]
        for name in "ab":
            sizes = [len(batch["new"]) for batch in rig.manifest(name)["batches"]]
            assert max(sizes) == 4
        assert len(rig.events("load cpu")) == 2  # a fresh process, once
        assert [text for text in rig.watcher.warnings if "memory" in text] == [
            "a.mp4: cpu ran out of memory: batches of 4 from here on"
        ]

    def test_too_little_for_the_smallest_batch(self, rig: Rig) -> None:
        results = rig.run(rig.job("a", 5), rig.job("b", 5), largest_batch=1)
        for result in results:
            assert "too little memory for a batch of 3 key frames" in result.reason
            assert "lower key_frames.resolution" in result.reason


class TestPropagationOnADevice:
    """All of it, unless something happens; every frame is there whatever does."""

    VALUES: ClassVar[dict[str, Any]] = {
        "devices": ("cuda:0",),
        "propagation__device": "gpu",
        "control__device": "cpu",
        "cpu__cores": 3,
    }

    def test_undisturbed(self, rig: Rig, undisturbed: dict[str, bytes]) -> None:
        (result,) = rig.run(rig.job(), **self.VALUES)
        assert result.reason == ""
        assert rig.pictures() == undisturbed
        assert rig.manifest()["propagated"] == {"cpu": 0, "gpu": 12}
        assert not repeated(rig.events())

    def test_out_of_memory(self, rig: Rig, undisturbed: dict[str, bytes]) -> None:
        error = NoMemoryToPropagate("tried to allocate 3 GiB")
        fault = Fault("propagate 0 on device", partial(fail, error))
        (result,) = rig.run(rig.job(), faults=[fault], **self.VALUES)
        assert result.reason == ""
        assert rig.pictures() == undisturbed
        assert rig.manifest()["propagated"] == {"cpu": 12, "gpu": 0}
        assert len(rig.events("load cuda:0")) == 1  # the process goes on
        (warning,) = [text for text in rig.watcher.warnings if "memory" in text]
        assert "cuda:0 has no memory to propagate at 128x64 (tried to allocate 3 GiB)" in warning
        assert warning in [f"a.mp4: {text}" for text in rig.manifest()["warnings"]]

    def test_its_process_is_killed(self, rig: Rig, undisturbed: dict[str, bytes]) -> None:
        jobs = [rig.job("a"), rig.job("b", 5)]
        results = rig.run(*jobs, faults=[Fault("propagate 1 on device", kill)], **self.VALUES)
        assert [result.reason for result in results] == ["", ""]
        assert rig.pictures() == undisturbed
        assert rig.manifest()["propagated"]["cpu"] == 3
        assert len(rig.events("load cuda:0")) == 2
        (warning,) = [text for text in rig.watcher.warnings if "cuda:0" in text]
        assert warning == "a.mp4: cuda:0: killed by SIGKILL; the CPU propagates what it had"

    def test_a_job_whose_segments_kill_it_is_done_by_cores(self, rig: Rig) -> None:
        fault = Fault("propagate 0 on device", kill, times=99)
        results = rig.run(*[rig.job(name, 5) for name in "abcd"], faults=[fault], **self.VALUES)
        assert [result.reason for result in results] == [""] * 4
        assert len(rig.events("load cuda:0")) == 4
        assert sum("the CPU alone propagates" in text for text in rig.watcher.warnings) == 1


def test_a_full_disk_is_waited_for(
    rig: Rig, undisturbed: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workshop, "_AGAIN", 0.05)
    space = rig.folder / "space"
    full = partial(fail_unless, space, DiskFullError("a: cannot be written (No space left)"))
    faults = [Fault(event, full, times=9999) for event in ("publish a 0", "save a 1", "join a")]

    async def make_space(run: "asyncio.Task[Any]") -> None:
        while len(rig.events("publish a 0")) < 5:
            await asyncio.sleep(0.05)
        assert not run.done()
        space.touch()

    (result,) = rig.run(rig.job(), faults=faults, beside=make_space)
    assert result.reason == ""
    assert rig.pictures() == undisturbed
    assert len([text for text in rig.watcher.warnings if "no space left" in text]) == 1
    assert len(rig.events("step 0 of translate")) == 3


def test_a_disk_that_stays_full(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workshop, "_AGAIN", 0.1)
    full = Fault("publish a 0", partial(fail, DiskFullError("a: no space; free some")), times=9999)
    results = rig.run(rig.job("a"), rig.job("b", 2), faults=[full], timeouts__space=0.3)
    assert results[0].reason == "a: no space; free some"
    assert results[1].outcome is Outcome.DONE
    rig.forget_events()
    assert rig.run(rig.job("a"))[0].outcome is Outcome.DONE
    assert not rig.events("translate a 0")  # its checkpoint was kept


def test_a_failed_clip_returns_what_it_held(rig: Rig) -> None:
    """In the middle of everything, with maps waiting for a core: the rig looks for what is left."""
    faults = [
        Fault("propagate 0 1", partial(fail, ClipError("a: bad"))),
        Fault("map 2 0", partial(time.sleep, 0.5)),
    ]
    results = rig.run(rig.job("a", 30), rig.job("b", 5), faults=faults)
    assert [result.reason for result in results] == ["a: bad", ""]
    assert not (rig.output / ".staging").exists()


def test_a_cancelled_run_is_continued(rig: Rig, undisturbed: dict[str, bytes]) -> None:
    async def cancel(run: "asyncio.Task[Any]") -> None:
        while not rig.events("publish a 0 done"):
            await asyncio.sleep(0.02)
        run.cancel()

    job = rig.job()
    with pytest.raises(asyncio.CancelledError):
        rig.run(job, faults=[Fault("publish a 2", partial(time.sleep, 60))], beside=cancel)
    assert (rig.output / ".staging/a").is_dir()
    assert not (rig.output / "a").exists()
    (result,) = rig.run(job)
    assert result.reason == ""
    assert rig.pictures() == undisturbed
    again = repeated(rig.events("translate", "save", "publish"))
    # a window that was translated but not yet saved is translated again
    saved = {event.split()[2] for event in rig.events("save") if event.endswith("done")}
    assert [event for event in again if not event.startswith("translate")] == []
    assert "0" in saved
    assert len(rig.events("step 0 of translate a 0")) == 1


def run_and_die(rig: Rig, job: Job, *faults: Fault, **values: Any) -> None:
    """A run in a process of its own, which one of the faults kills."""
    plan = rig.folder / "plan.pickle"
    plan.write_bytes(pickle.dumps((rig.folder, [job], faults, values)))
    run = subprocess.run([sys.executable, "-m", "tests.daemon.rig", plan], cwd=ROOT)
    assert run.returncode == -9
    time.sleep(0.1)


@pytest.mark.parametrize("event", ["step 1 of translate a 1", "save a 1", "publish a 1", "join a"])
def test_the_supervisor_is_killed(rig: Rig, undisturbed: dict[str, bytes], event: str) -> None:
    job = rig.job()
    run_and_die(rig, job, Fault(event, kill_supervisor))
    before = rig.events()
    rig.forget_events()
    (result,) = rig.run(job)
    assert result.reason == ""
    assert rig.pictures() == undisturbed
    after = rig.events()
    for index in range(3):
        if f"save a {index} done" in before:
            assert f"translate a {index}" not in after
            assert f"match {index} 0" not in after
        if f"publish a {index} done" in before:
            assert not any(line.endswith(f"a {index}") for line in after)


class TestKeyFramesWithAllThereIs:
    """Prompts by time, several ControlNets, one with maps of its own."""

    VALUES: ClassVar[dict[str, Any]] = {
        "control__type": ["canny", "depth"],
        "control__device": "cpu",
        "models__controlnet": ["one", "two"],
    }

    def job(self, rig: Rig) -> Job:
        job = rig.job(prompt="a car\n[0-6] day\n[9-] night\nNegative prompt: rain")
        folder = rig.folder / "a.depth"
        folder.mkdir()
        for number in range(18):
            cv2.imwrite(str(folder / f"{number}.png"), np.full((64, 96), 10 * number, np.uint8))
        return replace(job, control_files=(ControlFile("depth", folder),))

    def undisturbed(self, folder: Path, **values: Any) -> dict[str, bytes]:
        folder.mkdir()
        rig = Rig(folder)
        (result,) = rig.run(self.job(rig), **values)
        assert result.reason == ""
        return rig.pictures()

    def test_the_supervisor_is_killed(self, rig: Rig) -> None:
        values = {**self.VALUES, "output__frames": "keys"}
        job = self.job(rig)
        saved = partial(wait_for, rig.folder, "save a 0 done", 1)
        faults = (
            Fault("step 0 of translate a 1", saved),
            Fault("step 1 of translate a 1", kill_supervisor),
        )
        run_and_die(rig, job, *faults, **values)
        (result,) = rig.run(job, **values)
        assert result.reason == ""
        assert len(rig.events("step 0 of translate a 0")) == 1
        assert rig.pictures() == self.undisturbed(rig.folder / "other", **values)

    def test_a_device_is_killed_in_a_preview(self, rig: Rig) -> None:
        values = {**self.VALUES, "output__frames": "preview"}
        (result,) = rig.run(
            self.job(rig), faults=[Fault("step 1 of translate a 0", kill)], **values
        )
        assert result.reason == ""
        assert len(rig.events("step 0 of translate a 0")) == 2
        assert rig.pictures() == self.undisturbed(rig.folder / "other", **values)
