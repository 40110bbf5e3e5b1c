"""A daemon whose disk is full: it waits, says why, and loses nothing."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.daemon_rig import DaemonRig, fill, tmpfs


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    try:
        with tmpfs(tmp_path / "disk", 4) as folder:
            yield folder
    except OSError as error:
        pytest.skip(f"no tmpfs can be mounted: {error}")


def test_full_in_the_output(tmp_path: Path, disk: Path) -> None:
    """The job waits, no attempt is charged, and it is done when there is space."""
    with DaemonRig(tmp_path, output=disk / "output") as rig:
        rig.start()
        rig.hooks.arm("step 2 of translate a 0", "hold")
        rig.drop("a")
        rig.wait_for_event("step 2 of translate a 0")
        fill(disk / "ballast")
        rig.hooks.disarm("step 2 of translate a 0")
        waits = rig.wait_until(
            lambda: [each for each in rig.status()["blocked"] if each["for"] == "disk"], "disk"
        )
        assert waits[0]["clip"] == "a.mp4"
        rig.wait_until(lambda: "a.mp4: no space left for" in rig.tail(), "line in the log")
        job = rig.job("a")
        assert job["state"] not in ("done", "failed")
        assert job["attempts"] == 1
        assert rig.results() == set()
        (disk / "ballast").unlink()
        job = rig.wait_for("a", "done", "failed")
        assert (job["state"], job["attempts"]) == ("done", 1)
        assert len(rig.events("step 0 of translate a 0")) == 1
        assert rig.results() == {"a"}
        rig.stop()


def test_full_for_longer_than_is_waited(tmp_path: Path, disk: Path) -> None:
    """The job is queued again and says why; a kill and a start change nothing about it."""
    with DaemonRig(tmp_path, output=disk / "output", timeouts__space=0.5) as rig:
        rig.start()
        rig.hooks.arm("before blend", "hold")
        rig.drop("a")
        rig.wait_for_event("before blend")
        fill(disk / "ballast")
        rig.hooks.disarm("before blend")
        rig.wait_until(lambda: "No space" in rig.job("a")["reason"], "reason")
        assert rig.job("a")["attempts"] <= 1
        rig.kill()
        rig.start()
        (disk / "ballast").unlink()
        assert rig.wait_for("a", "done", "failed")["state"] == "done"


@pytest.mark.parametrize("killed", [False, True])
def test_full_for_the_note_of_a_broken_clip(tmp_path: Path, disk: Path, killed: bool) -> None:
    """The note that says why comes when there is space, also from the next daemon."""
    with DaemonRig(tmp_path, output=disk / "output") as rig:
        rig.start()
        with rig.holding("before note"):
            rig.drop("a", content=b"no clip at all")
            rig.wait_for_event("before note")
            fill(disk / "ballast")
        job = rig.wait_for("a", "done", "failed")
        assert job["state"] == "failed"
        assert rig.results() == set()
        if killed:
            rig.kill()
            rig.start()
            assert rig.results() == set()
        (disk / "ballast").unlink()
        rig.wait_until(lambda: rig.results() == {"a.failed.txt"}, "note")
        assert job["reason"] in (rig.output / "a.failed.txt").read_text()
        assert rig.job("a") == job
        rig.stop()


def test_full_for_the_store(tmp_path: Path, disk: Path) -> None:
    with DaemonRig(tmp_path, service__state=str(disk / "state")) as rig:
        rig.client.path = disk / "state" / "control.sock"
        rig.start()
        fill(disk / "ballast")
        rig.drop("a")
        (problem,) = rig.wait_until(lambda: rig.status()["problems"], "problem")
        assert "job store cannot be written" in problem
        assert rig.status()["state"] == "serving"
        (disk / "ballast").unlink()
        assert rig.wait_for("a", "done", "failed")["state"] == "done"
        assert rig.status()["problems"] == []
        rig.stop()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_full_for_the_store_while_it_ends(
    tmp_path: Path, disk: Path, number: signal.Signals
) -> None:
    """It ends all the same; a start on the full disk waits or is for later; then all is done."""
    state = disk / "state"
    with DaemonRig(tmp_path, service__state=str(state), service__drain_seconds=0.2) as rig:
        rig.client.path = state / "control.sock"
        rig.start()
        with rig.holding("before rename"):
            rig.drop("a")
            rig.wait_for_event("before rename")
            fill(disk / "ballast")
            rig.process.send_signal(number)
            assert rig.process.wait(30) in ((0, 75) if number == signal.SIGTERM else (-9,))
        assert "Traceback" not in rig.tail()
        rig.assert_nothing_runs()
        fill(disk / "more")
        rig.start(ready=False)
        # Only then is there space: a start that the full disk ends may take long to come to it.
        rig.wait_until(lambda: rig.is_ready() or rig.has_ended(), "start or refusal")
        assert rig.process.poll() in (None, 75), rig.tail()
        assert "Traceback" not in rig.tail()
        for file in ("more", "ballast"):
            (disk / file).unlink()
        if rig.has_ended():
            rig.start()
        assert rig.wait_for("a", "done", "failed")["state"] == "done"


def test_many_clips_and_a_disk_that_fills_up_again_and_again(tmp_path: Path, disk: Path) -> None:
    names = [f"clip-{number}" for number in range(6)]
    with DaemonRig(tmp_path, output=disk / "output") as rig:
        rig.start()
        for name in names:
            rig.drop(name)
        for _ in range(3):
            time.sleep(0.3)
            fill(disk / "ballast")
            time.sleep(0.3)
            (disk / "ballast").unlink()
        for name in names:
            assert rig.wait_for(name, "done", "failed")["state"] == "done"
        assert len({tuple(rig.pictures(name).items()) for name in names}) == 1
