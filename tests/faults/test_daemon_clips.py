"""What comes into the inbox of a running daemon, and what becomes of it there meanwhile."""

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from daemon.failure_note import note_path
from io_pipeline.video import scan_clip
from tests.faults.daemon_rig import DaemonRig, a_clip
from tests.io_pipeline.media import make_clip

QUIET = 0.1


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonRig]:
    with DaemonRig(tmp_path_factory.mktemp("clips"), inbox__quiet_seconds=QUIET) as rig:
        rig.start()
        yield rig
        rig.stop()


@pytest.fixture
def rig(served: DaemonRig) -> Iterator[DaemonRig]:
    """The same daemon for all, in one piece after each."""
    yield served
    served.client.resume()
    assert served.process.poll() is None, served.tail()
    served.wait_until(lambda: served.status()["queue"]["length"] == 0, "empty queue")
    assert not served.logged("control failed")


def frames(rig: DaemonRig, name: str) -> int:
    return scan_clip(rig.output / name / "blend.mp4").frame_count


def note(rig: DaemonRig, name: str) -> str:
    path = note_path(rig.output / name)
    return path.read_text() if path.exists() else ""


class TestLatency:
    @pytest.mark.parametrize("how", ["copied", "moved"])
    def test_from_complete_to_claimed(self, rig: DaemonRig, how: str) -> None:
        """Less than inbox.quiet_seconds and a second: the best of some, others want cores too."""
        seconds = []
        for number in range(5):
            name = f"{how}-{number}"
            (rig.inbox / f"{name}.txt").write_text("a car")
            if how == "copied":
                (rig.inbox / f"{name}.mp4").write_bytes(a_clip(10))
            else:
                rig.drop(name, prompt=None)
            complete = time.time()
            seconds.append(rig.wait_for(name, "done")["claimed"] - complete)
            if seconds[-1] < QUIET + 1:
                break
        print(f"{how}: claimed after {min(seconds):.3f} s")
        assert min(seconds) < QUIET + 1


class TestBadClips:
    def test_corrupt(self, rig: DaemonRig) -> None:
        """It fails with the decoder's reason, and the next is done."""
        rig.drop("corrupt", content=bytes(5000))
        rig.drop("next")
        job = rig.wait_for("corrupt", "failed")
        assert "corrupt.mp4" in job["reason"]
        assert note(rig, "corrupt").startswith("failed: ")
        assert rig.wait_for("next", "done", "failed")["state"] == "done"
        assert "corrupt" not in rig.results()

    def test_truncated(self, rig: DaemonRig) -> None:
        whole = make_clip(rig.folder / "whole.mkv", frames=40, width=96, height=64)
        data = whole.read_bytes()
        for name, choice in (("short-warn", "warn"), ("short-fail", "fail")):
            (rig.inbox / f"{name}.txt").write_text("a car")
            (rig.inbox / f"{name}.toml").write_text(f'[clips]\non_truncated = "{choice}"\n')
            (rig.inbox / f"{name}.mkv").write_bytes(data[: len(data) * 2 // 3])

        def ended(name: str) -> dict[str, object]:
            found = rig.client.called(f"{name}.mkv")
            return found[0] if found and found[0]["state"] in ("done", "failed") else {}

        assert rig.wait_until(lambda: ended("short-warn"))["state"] == "done"
        assert any("truncated" in text or "short" in text for text in warnings(rig, "short-warn"))
        job = rig.wait_until(lambda: ended("short-fail"))
        assert job["state"] == "failed"
        assert note(rig, "short-fail")

    @pytest.mark.parametrize("prompt", ["", " \n", "a\0b"])
    def test_prompts_that_are_none(self, rig: DaemonRig, prompt: str) -> None:
        name = f"prompt-{len(prompt)}"
        rig.drop(name, prompt=prompt)
        job = rig.wait_for(name, "failed", "done")
        assert job["state"] == "failed"
        assert f"{name}.txt" in job["reason"]


def held(rig: DaemonRig) -> list[str]:
    """Files of the inbox that the daemon has open."""
    folder = f"/proc/{rig.process.pid}/fd"
    found = []
    for descriptor in os.listdir(folder):
        with suppress(FileNotFoundError):  # closed meanwhile
            found.append(os.readlink(f"{folder}/{descriptor}"))
    return [path for path in found if path.startswith(f"{rig.inbox}/")]


def warnings(rig: DaemonRig, name: str) -> list[str]:
    manifest = rig.manifest(name)
    assert manifest is not None
    return list(manifest["warnings"])


class TestWhileQueued:
    def test_deleted(self, rig: DaemonRig) -> None:
        rig.client.pause()
        clip = rig.drop("deleted")
        rig.wait_for("deleted", "queued")
        clip.unlink()
        assert rig.wait_for("deleted", "cancelled")["reason"] == "the clip is gone"

    def test_renamed(self, rig: DaemonRig) -> None:
        rig.client.pause()
        clip = rig.drop("old")
        rig.wait_for("old", "queued")
        (rig.inbox / "new.txt").write_text("a car")
        clip.rename(rig.inbox / "new.mp4")
        rig.wait_for("old", "cancelled")
        rig.client.resume()
        assert rig.wait_for("new", "done", "failed")["state"] == "done"

    def test_changed(self, rig: DaemonRig) -> None:
        rig.client.pause()
        rig.drop("changed", frames=10)
        number = rig.wait_for("changed", "queued")["id"]
        rig.drop("changed", frames=14)
        time.sleep(3 * QUIET)
        rig.client.resume()
        assert rig.wait_for("changed", "done", "failed")["id"] == number
        assert frames(rig, "changed") == 14

    def test_exchanged_for_a_link_out_of_the_inbox(self, rig: DaemonRig) -> None:
        rig.client.pause()
        clip = rig.drop("link")
        rig.wait_for("link", "queued")
        outside = rig.folder / "secret.mp4"
        outside.write_bytes(a_clip(14))
        link = rig.inbox / ".link"
        link.symlink_to(outside)
        link.rename(clip)
        rig.client.resume()
        rig.wait_until(lambda: rig.job("link")["state"] in ("skipped", "failed"), "refusal")
        time.sleep(3 * QUIET)
        assert rig.job("link")["state"] in ("skipped", "failed")
        assert "link" not in rig.results()
        assert not rig.events("step 0 of translate link", "step 0 of translate secret")

    def test_the_prompt_comes_later(self, rig: DaemonRig) -> None:
        rig.drop("late", prompt=None)
        rig.wait_for("late", "waiting_prompt")
        (rig.inbox / "late.txt").write_text("a car")
        assert rig.wait_for("late", "done", "failed")["state"] == "done"

    def test_priorities(self, rig: DaemonRig) -> None:
        rig.client.pause()
        for name in ("plain-1", "plain-2", "urgent", "told"):
            rig.drop(name)
        (rig.inbox / "urgent.toml").write_text("priority = 5\n")
        for name in ("plain-1", "plain-2", "urgent", "told"):
            rig.wait_for(name, "queued")
        rig.client.submit("told.mp4", 9)
        rig.wait_until(lambda: rig.job("urgent")["priority"] == 5, "priority")
        rig.client.resume()
        names = ("plain-1", "plain-2", "urgent", "told")
        claimed = {name: rig.wait_for(name, "done")["claimed"] for name in names}
        assert sorted(claimed, key=claimed.__getitem__) == ["told", "urgent", "plain-1", "plain-2"]

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("[translation]\nsteps = 10000\n", "translation.steps"),
            ("[key_frames]\nbatchsize = 4\n", "batchsize"),
            ("[models]\nbase = '/etc/passwd'\n", "models"),
            ("[output]\nfolder = '/tmp'\n", "output.folder"),
            ("not toml", "sidecar-8.toml"),
        ],
    )
    def test_a_settings_file_that_may_not_be(self, rig: DaemonRig, text: str, told: str) -> None:
        name = f"sidecar-{len(text)}"
        (rig.inbox / f"{name}.toml").write_text(text)
        rig.drop(name)
        job = rig.wait_for(name, "failed", "skipped", "done")
        assert job["state"] in ("failed", "skipped")
        assert told in job["reason"]
        assert note(rig, name) or job["state"] == "skipped"


class TestWhileRunning:
    def test_exchanged_for_a_link_once_it_is_admitted(self, rig: DaemonRig) -> None:
        """What was admitted is read, and nothing of it stays open."""
        rig.hooks.arm("before set_prints", "hold")
        before = rig.events().count("before set_prints")
        clip = rig.drop("swapped", frames=10)
        rig.wait_for_event("before set_prints", before + 1)
        (rig.folder / "foreign.mp4").write_bytes(a_clip(14))
        (rig.folder / "foreign.txt").write_text("a secret")
        for file in (clip, clip.with_suffix(".txt")):
            link = rig.inbox / ".link"
            link.symlink_to(rig.folder / f"foreign{file.suffix}")
            link.rename(file)
        rig.hooks.disarm("before set_prints")
        rig.wait_until(lambda: "swapped" in rig.results(), "a result")
        assert frames(rig, "swapped") == 10
        manifest = rig.manifest("swapped")
        assert manifest is not None
        assert manifest["prompt"]["positive"] == "a car"
        assert manifest["clip"]["file"] == "swapped.mp4"
        rig.wait_until(lambda: not held(rig), "files to be closed")

    def test_changed(self, rig: DaemonRig) -> None:
        """The job ends as it may; then there is one for what the clip is now."""
        rig.hooks.arm("step 1 of translate other 0", "hold")
        rig.drop("other", frames=10)
        rig.wait_for_event("step 1 of translate other 0")
        first = rig.job("other")["id"]
        arrivals = rig.events().count("after arrive")
        rig.drop("other", frames=14, prompt="a bus")
        rig.wait_for_event("after arrive", arrivals + 1)
        rig.hooks.disarm("step 1 of translate other 0")
        rig.wait_until(lambda: rig.job("other")["id"] != first, "another job")
        assert rig.wait_for("other", "done", "failed")["state"] == "done"
        assert frames(rig, "other") == 14
        assert rig.client.job(first)["state"] in ("done", "failed")

    def test_deleted(self, rig: DaemonRig) -> None:
        rig.hooks.arm("step 1 of translate removed 0", "hold")
        clip = rig.drop("removed")
        rig.wait_for_event("step 1 of translate removed 0")
        clip.unlink()
        clip.with_suffix(".txt").unlink()
        rig.hooks.disarm("step 1 of translate removed 0")
        assert rig.wait_for("removed", "done", "failed")["state"] == "done"
        rig.wait_until(lambda: not held(rig), "files to be closed")

    def test_a_settings_file_that_comes_too_late(self, rig: DaemonRig) -> None:
        """The job is done without, and then with it."""
        with rig.holding("step 1 of translate moment 0"):
            rig.drop("moment")
            rig.wait_for_event("step 1 of translate moment 0")
            arrivals = rig.events().count("after arrive")
            (rig.inbox / "moment.toml").write_text("[key_frames]\nresolution = 128\n")
            rig.wait_for_event("after arrive", arrivals + 1)
        rig.wait_for("moment", "done")

        def is_new() -> bool:
            manifest = rig.manifest("moment")
            return manifest is not None and manifest["settings"]["key_frames"]["resolution"] == 128

        rig.wait_until(is_new, "result with the new settings", 10)

    def test_cancelled_and_done_again(self, rig: DaemonRig) -> None:
        rig.hooks.arm("step 1 of translate stopped 1", "sleep 0.3")
        rig.drop("stopped")
        rig.wait_for_event("step 1 of translate stopped 1")
        number = rig.job("stopped")["id"]
        assert rig.client.cancel(number)["state"] == "cancelled"
        assert "stopped" not in rig.results()
        assert not (rig.output / ".staging/stopped").exists()
        rig.hooks.disarm("step 1 of translate stopped 1")
        assert rig.client.retry(number)["state"] == "queued"
        assert rig.wait_for("stopped", "done", "failed")["state"] == "done"

    def test_three_attempts_and_a_note(self, rig: DaemonRig) -> None:
        rig.hooks.arm("step 0 of translate deadly 0", "die", times=3)
        rig.drop("deadly")
        job = rig.wait_for("deadly", "failed")
        assert "3 times the process that translated it ended: killed by SIGKILL" in job["reason"]
        assert note(rig, "deadly") == f"failed: {job['reason']}\n"
        assert len(rig.events("step 0 of translate deadly 0")) == 3
        rig.hooks.disarm("step 0 of translate deadly 0")
        rig.client.retry(job["id"])
        assert rig.wait_for("deadly", "done", "failed")["state"] == "done"
        assert note(rig, "deadly") == ""


def test_the_same_clip_again_is_one_job(rig: DaemonRig) -> None:
    rig.drop("same")
    number = rig.wait_for("same", "done")["id"]
    arrivals = rig.events().count("after arrive")
    rig.drop("same")
    rig.wait_for_event("after arrive", arrivals + 1)
    rig.wait_until(lambda: rig.job("same")["id"] == number, "one job")
    assert rig.job("same")["state"] == "done"
    assert len(rig.events("step 0 of translate same 0")) == 1


def test_odd_names(rig: DaemonRig) -> None:
    names = [
        "Straße 雪", "--output", "$(touch x); rm -rf *", "two\nlines", "quote'\"s", "bytes\udcff",
        "x" * 251,
    ]  # fmt: skip
    for name in names:
        plain = rig.inbox / ".coming"
        plain.write_bytes(a_clip(10))
        (rig.inbox / ".prompt").write_text("a car")
        (rig.inbox / ".prompt").rename(rig.inbox / f"{name}.txt")
        plain.rename(rig.inbox / f"{name}.mp4")
    before = set(os.listdir(rig.folder))
    rig.wait_until(lambda: rig.results() >= set(names), "results")
    for name in names:
        assert rig.manifest(name) is not None
    assert set(os.listdir(rig.folder)) == before
    assert not Path("x").exists()
