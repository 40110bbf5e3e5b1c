"""``kill -9`` of the whole daemon at every point at which it changes the disk or the store.

After the next start the job is done, its result is that of an undisturbed run, and nothing that
was kept is done again.
"""

import signal
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.faults.daemon_rig import DaemonRig

# Every event at which the supervisor or a worker has just changed something, or is about to.
POINTS = (
    "after arrive",
    "after claim",
    "after set_prints",
    "before open",
    "after open",
    "block acquired",
    "after state translating",
    "before checkpoint",
    "after checkpoint",
    "after key",
    "before window",
    "after window",
    "after window_done",
    "after state publishing",
    "after blend",
    "before rename",
    "after rename",
    "before done",
    "after done",
)


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonRig]:
    """One daemon after the other on one folder: what a crash leaves, all later ones find."""
    with DaemonRig(tmp_path_factory.mktemp("crashes"), service__attempts=100) as rig:
        rig.start()
        yield rig


@pytest.fixture(scope="module")
def undisturbed(rig: DaemonRig) -> tuple[Mapping[str, bytes], Counter[str]]:
    """The files of a result when nothing happens, and how often each point is come to."""
    rig.forget_events()
    rig.drop("undisturbed")
    rig.wait_for("undisturbed", "done")
    return rig.pictures("undisturbed"), Counter(rig.events())


@pytest.mark.parametrize("point", POINTS)
def test_a_daemon_that_crashes(
    rig: DaemonRig, undisturbed: tuple[Mapping[str, bytes], Counter[str]], point: str
) -> None:
    files, calls = undisturbed
    assert calls[point], "nothing is called that"
    for number in range(1, calls[point] + 1):
        name = f"{point}-{number}".replace(" ", "-")
        rig.forget_events()
        rig.hooks.arm(point, "crash", number)
        rig.drop(name)
        rig.crashed()
        rig.hooks.disarm(point)
        shown = rig.manifest(name) is not None
        assert rig.results() >= {name} if shown else name not in rig.results()
        before = Counter(rig.events())
        rig.forget_events()
        rig.start()
        job = rig.wait_for(name, "done", "failed")
        assert (job["state"], job["reason"]) == ("done", "")
        assert rig.pictures(name) == files
        assert_kept(before, Counter(rig.events()), name)
        if shown:
            assert not rig.events("plan", "read", "translate", "save", "publish", "join")
        assert not list((rig.output / ".staging").glob("*"))
    assert rig.status()["jobs"]["failed"] == 0


def assert_kept(before: Counter[str], after: Counter[str], name: str) -> None:
    """What is on the disk is not made again."""
    for window in range(2):
        if before[f"save {name} {window} done"]:
            assert not after[f"step 0 of translate {name} {window}"], window
        if before[f"publish {name} {window} done"]:
            assert not after[f"publish {name} {window}"], window


def test_the_whole_process_group_is_killed(
    rig: DaemonRig, undisturbed: tuple[Mapping[str, bytes], Counter[str]]
) -> None:
    rig.forget_events()
    rig.hooks.arm("step 1 of translate group 1", "crash group")
    rig.drop("group")
    assert rig.process.wait(60) == -signal.SIGKILL
    rig.assert_nothing_runs()
    before = Counter(rig.events())
    rig.forget_events()
    rig.start()
    assert rig.wait_for("group", "done", "failed")["state"] == "done"
    assert rig.pictures("group") == undisturbed[0]
    assert_kept(before, Counter(rig.events()), "group")


def test_dead_between_rename_and_done(rig: DaemonRig) -> None:
    """The manifest tells: nothing is computed again."""
    rig.hooks.arm("after rename", "crash")
    rig.drop("shown")
    rig.crashed()
    manifest = rig.output / "shown" / "manifest.json"
    written = manifest.stat().st_mtime_ns
    rig.forget_events()
    rig.start()
    assert rig.job("shown")["state"] == "done"
    (told,) = [each for each in rig.logged("store.recovered") if each["clip"] == "shown.mp4"]
    assert told["event"] == "found interrupted: done"
    assert manifest.stat().st_mtime_ns == written
    assert [event for event in rig.events() if "shown" in event or "claim" in event] == []


def test_what_crashes_the_daemon_again_and_again_fails(tmp_path: Path) -> None:
    with DaemonRig(tmp_path, service__attempts=2) as rig:
        rig.start()
        for _ in range(2):
            rig.hooks.arm("step 1 of translate bad 0", "crash")
            if rig.process.returncode is None:
                rig.drop("bad")
            rig.crashed()
            rig.start(ready=False)
            rig.hooks.disarm("step 1 of translate bad 0")
        job = rig.wait_for("bad", "failed")
        assert "frescod died 2 times while it was in work" in job["reason"]
