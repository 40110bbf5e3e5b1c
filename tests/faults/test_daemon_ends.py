"""How a daemon begins and ends: signals, locks, the service manager, clocks, and who asks it."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.control_client import ControlClient
from tests.conftest import ROOT
from tests.faults.daemon_rig import DaemonRig, Manager, processes


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[DaemonRig]:
    with DaemonRig(tmp_path) as rig:
        yield rig


def frescod(rig: DaemonRig, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "daemon", *arguments],
        cwd=rig.folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )


def busy(rig: DaemonRig, event: str = "step 1 of translate a 1") -> None:
    """The daemon works at a job, which gets no further."""
    rig.hooks.arm(event, "hold")
    rig.drop("a", frames=14)
    rig.wait_for_event(event)
    rig.wait_for_event("after checkpoint")


class TestSigterm:
    def test_once_it_finishes_what_runs(self, rig: DaemonRig) -> None:
        rig.start()
        busy(rig)
        rig.process.terminate()
        rig.wait_until(lambda: rig.status().get("state") == "draining", "draining")
        rig.drop("b")
        rig.hooks.disarm("step 1 of translate a 1")
        rig.ended(0)
        assert rig.manifest("a") is not None
        assert rig.results() == {"a"}
        rig.start()
        assert rig.wait_for("b", "done")["attempts"] == 1
        rig.stop()

    @pytest.mark.parametrize("how", ["again", "late"])
    def test_it_stops_at_the_last_checkpoint(self, rig: DaemonRig, how: str) -> None:
        """At the second signal, or when the time that is given to it has passed."""
        if how == "late":
            rig.configure(service__drain_seconds=0.3)
        rig.start()
        busy(rig)
        began = time.monotonic()
        rig.process.terminate()
        if how == "again":
            rig.wait_until(lambda: rig.status().get("state") == "draining", "draining")
            rig.process.terminate()
        rig.ended(0)
        print(f"ended after {time.monotonic() - began:.1f} s")
        assert rig.results() == set()
        rig.hooks.disarm("step 1 of translate a 1")
        rig.forget_events()
        rig.start()
        assert rig.wait_for("a", "done")["attempts"] == 1
        assert not rig.events("step 0 of translate a 0")
        rig.stop()

    def test_while_loading(self, rig: DaemonRig) -> None:
        rig.hooks.arm("load cpu", "hold")
        rig.drop("a")
        rig.start(ready=False)
        rig.wait_for_event("load cpu")
        rig.wait_for("a", "queued")
        assert rig.status()["state"] == "loading"
        began = time.monotonic()
        rig.stop()
        assert time.monotonic() - began < 20
        rig.hooks.disarm("load cpu")
        rig.start()
        assert rig.wait_for("a", "done")["attempts"] == 1
        rig.stop()


class TestServiceManager:
    def test_all_that_is_said(self, rig: DaemonRig, tmp_path: Path) -> None:
        manager = Manager(tmp_path / "notify", watchdog=0.3)
        rig.environment = manager.environment
        rig.hooks.arm("load cpu", "hold")
        rig.start(ready=False)
        rig.wait_for_event("load cpu")
        rig.wait_until(lambda: any("EXTEND_TIMEOUT_USEC" in word for word in manager.heard()))
        assert "READY=1" not in manager.heard()
        rig.hooks.disarm("load cpu")
        rig.wait_until(lambda: "READY=1" in manager.heard(), "READY")
        busy(rig)
        rig.wait_until(
            lambda: any(word.startswith("STATUS=serving: 1 running") for word in manager.heard())
        )
        before = len(manager.heard())
        rig.process.terminate()
        rig.wait_until(lambda: "STOPPING=1" in manager.heard()[before:])
        rig.wait_until(
            lambda: sum("EXTEND_TIMEOUT_USEC" in word for word in manager.heard()[before:]) > 2
        )
        rig.hooks.disarm("step 1 of translate a 1")
        rig.ended(0)
        said = manager.heard()
        assert said.count("WATCHDOG=1") >= 3
        assert said.count("READY=1") == 1
        manager.close()

    def test_a_loop_that_is_blocked_pings_no_more(self, rig: DaemonRig, tmp_path: Path) -> None:
        manager = Manager(tmp_path / "notify", watchdog=0.6)
        rig.environment = manager.environment
        rig.start()
        rig.wait_until(lambda: manager.heard().count("WATCHDOG=1") >= 2, "pings")
        rig.hooks.arm("status", "sleep 2")
        asking = ControlClient(rig.client.path, seconds=0.2)
        with pytest.raises(Exception, match="has not answered"):
            asking.status()
        manager.heard()
        time.sleep(0.1)
        pings = manager.heard().count("WATCHDOG=1")
        time.sleep(1.2)
        assert manager.heard().count("WATCHDOG=1") == pings
        rig.wait_until(lambda: manager.heard().count("WATCHDOG=1") > pings, "pings again")
        rig.stop()
        manager.close()


def test_two_on_one_state_folder(rig: DaemonRig, tmp_path: Path) -> None:
    rig.start()
    with DaemonRig(tmp_path / "second", service__state=str(rig.state)) as second:
        second.start(ready=False)
        second.ended(78)
        assert f"the frescod of process {rig.process.pid} uses it" in second.tail()
        assert "Traceback" not in second.tail()
    assert rig.status()["pid"] == rig.process.pid
    rig.stop()


@pytest.mark.parametrize("days", [-1, 1])
def test_a_clock_that_is_set_by_a_day(rig: DaemonRig, days: int) -> None:
    """While a job runs, and before the next comes: nothing times out, nothing is lost."""
    rig.start()
    busy(rig)
    (rig.folder / "clock").write_text(str(days * 86400))
    rig.drop("b")
    rig.wait_for("b", "queued", "preparing", "translating")
    rig.hooks.disarm("step 1 of translate a 1")
    for name in "ab":
        assert rig.wait_for(name, "done", "failed")["attempts"] == 1
    assert abs(rig.job("b")["claimed"] - time.time() - days * 86400) < 3600
    assert 0 <= rig.status()["uptime"] < 3600
    assert len(rig.events("load cpu")) == 1
    rig.kill()
    rig.start()
    assert rig.status()["jobs"]["done"] == 2
    rig.stop()


class TestCommands:
    def test_of_one_that_is_gone(self, rig: DaemonRig) -> None:
        rig.start()
        rig.drop("a")
        rig.wait_for("a", "done")
        rig.kill()
        for command in ("drain", "pause"):
            answer = frescod(rig, command)
            assert answer.returncode == 75
            assert answer.stderr.count("\n") == 1
            assert "frescod is not running" in answer.stderr
        answer = frescod(rig, "status")
        assert answer.returncode == 0
        assert "not running" in answer.stdout or "down" in answer.stdout

    @pytest.mark.skipif(os.geteuid() != 0, reason="another user is needed")
    def test_of_one_that_belongs_to_someone_else(self, rig: DaemonRig) -> None:
        rig.start()
        for folder in (rig.folder, *rig.folder.parents):
            if str(folder).startswith("/tmp/") and folder.stat().st_uid == os.geteuid():
                folder.chmod(folder.stat().st_mode | 0o755)
        script = (
            "import os, sys; from daemon.control_client import ControlClient;"
            "from pathlib import Path; import encodings.idna;"
            "os.setgroups([]); os.setgid(65534); os.setuid(65534);"
            "client = ControlClient(Path(sys.argv[1])); print(client.status()['state']);"
            "client.drain(None)"
        )
        answer = subprocess.run(
            [sys.executable, "-c", script, rig.client.path],
            cwd="/",
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        assert answer.stdout == "serving\n", answer.stderr
        last = answer.stderr.splitlines()[-1]
        assert "user 65534 may look, but not change anything" in last
        assert rig.status()["state"] == "serving"
        rig.stop()


def test_ten_thousand_clips(rig: DaemonRig, tmp_path: Path) -> None:
    """A start is as quick, and as small, as without; so is what it says of itself."""
    rig.start()
    empty = memory(rig.process.pid)
    rig.stop()
    for number in range(10_000):
        (rig.inbox / f"clip-{number}.mp4").write_bytes(b"no clip")
    for which in ("first", "next"):
        began = time.monotonic()
        rig.start()
        wall, core = time.monotonic() - began, core_seconds(rig.process.pid)
        answers = []
        for _ in range(2000):
            asked = time.monotonic()
            found = rig.status()["jobs"]["waiting_prompt"]
            answers.append(time.monotonic() - asked)
            if found == 10_000 and len(answers) > 20:
                break
            time.sleep(0.02)
        assert found == 10_000
        answers.sort()
        grown = (memory(rig.process.pid) - empty) / 2**20
        print(
            f"{which} start: ready after {wall:.2f} s ({core:.2f} s of a core), all known after "
            f"{time.monotonic() - began:.2f} s; status in {answers[len(answers) // 2] * 1000:.0f} "
            f"ms, at most {answers[-1] * 1000:.0f} ms; {grown:.0f} MiB more than with none"
        )
        assert core < 5  # others want cores too
        assert answers[len(answers) // 4] < 0.1  # the rest is others' work on the same cores
        assert grown < 50
        rig.stop()


def core_seconds(pid: int) -> float:
    """What a process has had of all cores."""
    values = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(values[11]) + int(values[12])) / os.sysconf("SC_CLK_TCK")


def memory(pid: int) -> int:
    """Bytes that a process has resident."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_nothing_heavy_is_imported(rig: DaemonRig) -> None:
    """The supervisor needs no torch, nor does any worker of the simulated stages."""
    rig.start()
    rig.drop("a")
    rig.wait_for("a", "done")
    for pid in processes(rig.process.pid):
        assert "torch" not in Path(f"/proc/{pid}/maps").read_text()
    rig.stop()
