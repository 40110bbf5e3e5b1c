"""The commands as a user types them, against a backend at a real socket."""

import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import structlog

from daemon.cli import run_command
from daemon.job_store import JobStore
from daemon.jobs import Arrival, JobState
from tests.conftest import ROOT
from tests.daemon.control_rig import FakeBackend, served, short_folder

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working folder, with settings, an inbox and the daemon's socket."""
    with short_folder() as folder:
        (folder / "inbox").mkdir()
        (folder / "config.toml").write_text("[service]\nsocket = 's'\nstate = 'state'\n")
        monkeypatch.chdir(folder)
        yield folder


@pytest.fixture(autouse=True)
def no_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon's own, which is not to be mixed up with what a command says."""
    monkeypatch.setattr("daemon.control.log", structlog.wrap_logger(structlog.ReturnLogger()))


@pytest.fixture
def backend(folder: Path) -> Iterator[FakeBackend]:
    backend = FakeBackend(inbox=folder / "inbox")
    with served(folder / "s", backend):
        yield backend


@pytest.fixture
def left(folder: Path) -> None:
    """What a daemon that does not run has left: a.mp4 failed, b.mp4 queued."""
    (folder / "state").mkdir()
    with closing(JobStore(folder / "state/jobs.sqlite")) as store:
        for name in ("a.mp4", "b.mp4"):
            clip = folder / "inbox" / name
            store.arrive([Arrival(clip, clip.with_suffix(".txt"), None, seen="1")])
        failed = store.claim()
        assert failed is not None
        store.end(failed.id, JobState.FAILED, "a.mp4: no video stream")


def frescod(*arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | options.pop("env", {})
    # Whoever has started the tests in the background has Ctrl-C ignored, and so would the command.
    code = "from signal import *; signal(SIGINT, default_int_handler); import daemon.__main__"
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.Popen(command, env=environment, **options)


def one_line(capsys: Capture) -> str:
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


class TestStatus:
    def test_of_a_daemon(self, backend: FakeBackend, capsys: Capture) -> None:
        assert run_command(["status"]) == 0
        out = capsys.readouterr().out
        assert out.startswith("frescod serving")
        assert "\x1b" not in out
        assert run_command(["status", "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == backend.status()

    @pytest.mark.usefixtures("left")
    def test_down(self, capsys: Capture) -> None:
        assert run_command(["status"]) == 0
        out = capsys.readouterr().out
        assert out.startswith("frescod is not running; this is what it left")
        assert "jobs: 1 queued, 1 failed" in out
        assert "1 a.mp4: no video stream" in out
        assert run_command(["status", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["state"] == "down"

    @pytest.mark.usefixtures("folder")
    @pytest.mark.parametrize("command", ["status", "jobs", "show 1"])
    def test_nothing_left(self, command: str, capsys: Capture) -> None:
        assert run_command(command.split()) == 75
        assert "no job store at" in one_line(capsys)

    def test_the_socket_named_beats_the_settings(
        self, backend: FakeBackend, folder: Path, tmp_path: Path, capsys: Capture
    ) -> None:
        other = tmp_path / "other.toml"
        other.write_text("[service]\nsocket = '/nowhere/s'\n")
        assert run_command(["status", "--config", str(other), "--socket", str(folder / "s")]) == 0
        assert run_command(["status", "--config", str(other)]) == 75

    def test_settings_that_are_wrong(self, folder: Path, capsys: Capture) -> None:
        (folder / "config.toml").write_text("[service]\nsocke = 's'\n")
        assert run_command(["status"]) == 78
        assert "did you mean service.socket?" in one_line(capsys)


class TestWatch:
    """On a terminal, and while the daemon comes and goes."""

    def test_until_interrupted(self, folder: Path) -> None:
        terminal, inner = pty.openpty()
        fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 80, 0, 0))
        shown = b""

        def wait_for(text: bytes) -> None:
            nonlocal shown
            deadline = time.monotonic() + 30
            while text not in shown:
                assert time.monotonic() < deadline, shown
                shown += os.read(terminal, 65536)

        with frescod(
            *("status", "--watch"), stdout=inner, cwd=folder, env={"TERM": "xterm", "COLUMNS": ""}
        ) as process:
            os.close(inner)
            wait_for(b"not running, waiting")
            with served(folder / "s", FakeBackend()):
                wait_for(b"crossing.mp4")
            shown = b""
            wait_for(b"not running, waiting")
            process.send_signal(signal.SIGINT)
            wait_for(b"\x1b[?1049l")  # the terminal is as it was
            assert process.wait(20) == 0
        os.close(terminal)

    def test_json_lines(self, backend: FakeBackend, folder: Path) -> None:
        command = ("status", "--watch", "--json")
        with frescod(*command, stdout=subprocess.PIPE, cwd=folder) as process:
            assert process.stdout is not None
            for _ in range(2):
                assert json.loads(process.stdout.readline()) == backend.status()
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 0


class TestJobs:
    def test_listed(self, backend: FakeBackend, capsys: Capture) -> None:
        assert run_command(["jobs"]) == 0
        assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [
            "job", "3", "2", "1",
        ]  # fmt: skip
        assert run_command(["jobs", "--json", "--limit", "1"]) == 0
        assert json.loads(capsys.readouterr().out) == {"jobs": [backend.records[3].to_json()]}
        assert run_command(["jobs", "--state", "failed", "--json"]) == 0
        assert [job["id"] for job in json.loads(capsys.readouterr().out)["jobs"]] == [2]

    @pytest.mark.usefixtures("backend")
    def test_none(self, capsys: Capture) -> None:
        assert run_command(["jobs", "--state", "waiting_prompt"]) == 0
        assert capsys.readouterr().out == ""

    @pytest.mark.parametrize("options", ["--state Failed", "--limit 0", "--limit x"])
    def test_wrong_usage(self, options: str) -> None:
        assert run_command(["jobs", *options.split()]) == 2

    @pytest.mark.usefixtures("left")
    def test_of_a_daemon_that_is_down(self, capsys: Capture) -> None:
        assert run_command(["jobs", "--state", "queued", "--json"]) == 0
        assert [job["id"] for job in json.loads(capsys.readouterr().out)["jobs"]] == [2]
        assert run_command(["show", "b", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["id"] == 2

    @pytest.mark.usefixtures("backend")
    def test_one(self, capsys: Capture) -> None:
        assert run_command(["show", "b.mp4"]) == 0
        assert "b.mp4: no video stream" in capsys.readouterr().out
        assert run_command(["show", "nonsense"]) == 1
        assert "no such job" in one_line(capsys)


class TestChanges:
    def test_retry(self, backend: FakeBackend, capsys: Capture) -> None:
        assert run_command(["retry", "b"]) == 0
        assert capsys.readouterr().out == "job 2: b.mp4 queued\n"
        assert backend.records[2].state is JobState.QUEUED

    def test_those_that_cannot_be_are_named_and_the_others_done(
        self, backend: FakeBackend, capsys: Capture
    ) -> None:
        assert run_command(["retry", "1", "nonsense", "2"]) == 1
        out, error = capsys.readouterr()
        assert out == "job 2: b.mp4 queued\n"
        assert [line.split(":")[1] for line in error.splitlines()] == [
            " job 1 is queued",
            " nonsense",
        ]

    def test_all_that_failed(self, backend: FakeBackend, capsys: Capture) -> None:
        assert run_command(["retry", "--failed"]) == 0
        assert capsys.readouterr().out == "job 2: b.mp4 queued\n"
        assert run_command(["retry", "--failed"]) == 0
        assert capsys.readouterr() == ("", "no jobs have failed\n")

    @pytest.mark.parametrize("command", ["retry", "retry 2 --failed", "cancel"])
    def test_wrong_usage(self, command: str) -> None:
        assert run_command(command.split()) == 2

    def test_cancel(self, backend: FakeBackend, capsys: Capture) -> None:
        assert run_command(["cancel", "a", "3"]) == 0
        assert capsys.readouterr().out == "job 1: a.mp4 cancelled\njob 3: c.mp4 cancelled\n"

    def test_pause_and_resume(self, backend: FakeBackend) -> None:
        assert run_command(["pause"]) == 0
        assert backend.state == "paused"
        assert run_command(["resume"]) == 0
        assert backend.state == "serving"

    @pytest.mark.usefixtures("folder")
    @pytest.mark.parametrize("command", ["retry 1", "cancel a", "pause", "resume", "drain"])
    def test_of_nobody(self, command: str, capsys: Capture) -> None:
        assert run_command(command.split()) == 75
        assert "frescod is not running" in one_line(capsys)


class TestDrain:
    def test_at_once(self, backend: FakeBackend) -> None:
        assert run_command(["drain"]) == 0
        assert run_command(["drain", "--timeout", "0"]) == 0
        assert backend.told == [("drain", None), ("drain", 0.0)]
        assert run_command(["drain", "--timeout", "-1"]) == 2

    def test_wait_returns_when_the_process_has_ended(self, folder: Path) -> None:
        code = (
            "import sys, time; from pathlib import Path; from tests.daemon.control_rig import *\n"
            "backend = FakeBackend()\n"
            "with served(Path('s'), backend): print(flush=True); backend.drained.wait()\n"
            "time.sleep(0.7); Path('ended').touch()"
        )
        with subprocess.Popen(
            [sys.executable, "-c", code],
            stdout=subprocess.PIPE,
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        ) as daemon:
            assert daemon.stdout is not None
            daemon.stdout.readline()
            assert run_command(["drain", "--wait"]) == 0
            assert (folder / "ended").exists()

    @pytest.mark.parametrize("state", ["loading", "serving", "paused"])
    def test_wait_does_not_wait_for_one_that_was_started_again(
        self, backend: FakeBackend, capsys: Capture, monkeypatch: pytest.MonkeyPatch, state: str
    ) -> None:
        monkeypatch.setattr("daemon.drain._LOOK_SECONDS", 0.01)
        monkeypatch.setattr(backend, "drain", lambda timeout: setattr(backend, "state", state))
        assert run_command(["drain", "--wait"]) == 1
        assert "has ended and was started again" in one_line(capsys)


class TestSubmit:
    @pytest.fixture
    def clip(self, folder: Path) -> Path:
        (folder / "d.mp4").write_bytes(b"frames")
        return folder / "d.mp4"

    def test_a_clip(self, backend: FakeBackend, clip: Path, capsys: Capture) -> None:
        options = ("--prompt", "a car", "--set", "translation.seed=5", "--priority", "3")
        assert run_command(["submit", str(clip), *options]) == 0
        assert capsys.readouterr().out == "job 4: d.mp4 queued\n"
        assert backend.told == [("submit", "d.mp4", 3)]
        assert sorted(os.listdir(backend.inbox)) == ["d.mp4", "d.toml", "d.txt"]
        assert (backend.inbox / "d.toml").read_text() == "priority = 3\ntranslation.seed = 5\n"

    def test_twice(self, backend: FakeBackend, clip: Path, capsys: Capture) -> None:
        assert run_command(["submit", str(clip), "--prompt", "a car"]) == 0
        assert run_command(["submit", str(clip), "--prompt", "a car"]) == 1
        assert "--name" in one_line(capsys)
        assert run_command(["submit", str(clip), "--prompt", "a car", "--name", "e.mp4"]) == 0
        assert [told[1] for told in backend.told] == ["d.mp4", "e.mp4"]

    def test_a_prompt_file(self, backend: FakeBackend, clip: Path, folder: Path) -> None:
        (folder / "p").write_text("a car\nNegative prompt: x\n")
        assert run_command(["submit", str(clip), "--prompt-file", str(folder / "p")]) == 0
        assert (backend.inbox / "d.txt").read_text() == "a car\nNegative prompt: x\n"

    def test_in_place(self, backend: FakeBackend, capsys: Capture) -> None:
        clip = backend.inbox / "e.mp4"
        clip.touch()
        assert run_command(["submit", str(clip)]) == 2  # no prompt
        clip.with_suffix(".txt").write_text("a car")
        assert run_command(["submit", str(clip)]) == 0
        assert backend.told == [("submit", "e.mp4", None)]
        assert run_command(["submit", str(clip), "--name", "f.mp4"]) == 2

    def test_down(self, folder: Path, clip: Path, capsys: Capture) -> None:
        assert run_command(["submit", str(clip), "--prompt", "a car"]) == 0
        assert sorted(os.listdir(folder / "inbox")) == ["d.mp4", "d.txt"]
        assert "frescod is not running: the job is taken at its next start" in (
            capsys.readouterr().out
        )

    @pytest.mark.parametrize(
        ("options", "code"),
        [
            ((), 2),
            (("--prompt", "x", "--prompt-file", "config.toml"), 2),
            (("--prompt", "x", "--set", "seed"), 2),
            (("--prompt", "x", "--priority", "5000"), 2),
            (("--prompt", ""), 1),
            (("--prompt", "x", "--name", "../../d.mp4"), 1),
            (("--prompt", "x", "--set", "models.base=x"), 78),
            (("--prompt", "x", "--set", "preset=stylize"), 2),
            (("--prompt", "x", "--set", "translation.sed=5"), 78),
        ],
    )
    def test_refused(
        self, backend: FakeBackend, clip: Path, options: tuple[str, ...], code: int
    ) -> None:
        assert run_command(["submit", str(clip), *options]) == code
        assert os.listdir(backend.inbox) == []
        assert backend.told == []

    def test_an_inbox_that_is_not_there(self, folder: Path, clip: Path, capsys: Capture) -> None:
        (folder / "inbox").rmdir()
        assert run_command(["submit", str(clip), "--prompt", "a car"]) == 1
        assert "no such folder" in one_line(capsys)


class TestCompletion:
    def complete(self, *words: str) -> list[str]:
        environment = {
            "_FRESCOD_COMPLETE": "bash_complete",
            "COMP_WORDS": " ".join(["frescod", *words]),
            "COMP_CWORD": str(len(words)),
        }
        with frescod(stdout=subprocess.PIPE, env=environment) as process:
            out, _ = process.communicate(timeout=30)
        return [line.partition(",")[2] for line in out.decode().splitlines()]

    def test_commands_and_states(self) -> None:
        assert self.complete("jo") == ["jobs"]
        assert self.complete("jobs", "--state", "p") == ["preparing", "propagating", "publishing"]
        assert self.complete("drain", "--w") == ["--wait"]

    @pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
    def test_script(self, shell: str, capsys: Capture) -> None:
        assert run_command(["completion", shell]) == 0
        assert f"_FRESCOD_COMPLETE={shell}_complete" in capsys.readouterr().out

    def test_in_a_bash(self, tmp_path: Path) -> None:
        program = tmp_path / "frescod"
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -m daemon "$@"\n')
        program.chmod(0o755)
        script = (
            'eval "$(frescod completion bash)"; COMP_WORDS=(frescod jo); COMP_CWORD=1; '
            '_frescod_completion frescod; echo "${COMPREPLY[@]}"'
        )
        result = subprocess.run(
            ["bash", "--norc", "-c", script],
            env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert result.stdout == "jobs\n", result.stderr


class TestServe:
    def test_settings_come_from_the_options(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        called = []

        def serve(settings: Any, **options: Any) -> int:
            called.append((settings.translation.seed, settings.service.state, options))
            return 5

        monkeypatch.setattr("daemon.serving.serve", serve)
        assert run_command(["serve", "--seed", "7", "--debug"]) == 5
        assert called == [(7, "state", {"warnings": (), "debug": True})]


def test_to_look_nobody_waits_for_large_libraries(folder: Path) -> None:
    code = (
        "import sys; from daemon.cli import run_command; run_command(['status', '--json']);"
        "heavy = {'torch', 'cv2', 'aiohttp', 'watchdog', 'numpy', 'av'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    with served(folder / "s", FakeBackend()):
        subprocess.run(
            [sys.executable, "-c", code],
            check=True,
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.DEVNULL,
        )
