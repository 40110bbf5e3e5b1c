"""A daemon on simulated stages as a test handles it: started, fed, looked at, killed, ended."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from daemon.config import Layer, merge, to_toml
from daemon.control_client import ControlClient, NotRunningError
from daemon.demo_clip import render_clip
from daemon.output_folder import BusyError
from io_pipeline.staging import read_manifest
from tests.conftest import ROOT
from tests.faults.hooks import Hooks

SETTINGS: dict[str, Any] = {
    "devices": "cpu",
    "key_frames.min_interval": 4,
    "key_frames.max_interval": 4,
    "key_frames.batch_size": 3,
    "key_frames.resolution": 64,
    "control.type": "canny",
    "cpu.cores": 2,
    "prefetch.memory": "64MiB",
    "limits.max_pixels": 100_000,
    "output.contact_sheet": False,
    "output.comparison": False,
    "inbox.quiet_seconds": 0.1,
    "inbox.rescan_seconds": 2.0,
    "log.format": "json",
}
PATIENCE = 60.0  # seconds that anything may take on a machine that is busy with something else
GONE_SECONDS = 10.0  # in which no process is left of a daemon that was killed


@cache
def _shared_memory() -> frozenset[str]:
    return frozenset(os.listdir("/dev/shm"))


class DaemonRig:
    """A folder with an inbox, an output folder and a daemon; ``with`` ends the daemon.

    ``settings``: ``section__key=value``. ``output``: elsewhere than in the folder.
    """

    def __init__(self, folder: Path, *, output: Path | None = None, **settings: Any) -> None:
        _shared_memory()
        self.folder = folder
        self.inbox, self.output = folder / "inbox", output or folder / "output"
        self.state = folder / "state"
        self.config = folder / "config.toml"
        self.log = folder / "log.txt"
        self.process: subprocess.Popen[bytes]
        self.sessions: list[int] = []
        self.environment: dict[str, str] = {}
        folder.mkdir(exist_ok=True)
        self.inbox.mkdir(exist_ok=True)
        self.configure(**settings)
        # Elsewhere: the path of a socket is a short one.
        self.client = ControlClient(self.state / "control.sock", seconds=PATIENCE)
        self.hooks = Hooks(folder, 0)

    def __enter__(self) -> "DaemonRig":
        return self

    def __exit__(self, *error: object) -> None:
        for session in self.sessions:
            for pid in processes(session):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        if self.sessions:
            self.process.wait()

    def configure(self, **settings: Any) -> None:
        """Write the settings; what was changed before stays changed."""
        changed = {key.replace("__", "."): value for key, value in settings.items()}
        self._changed = {**getattr(self, "_changed", {}), **changed}
        places = {
            "inbox.folder": str(self.inbox),
            "output.folder": str(self.output),
            "service.state": str(self.state),
        }
        settings_ = merge(Layer("test", {**SETTINGS, **places}), Layer("test", self._changed))
        self.config.write_text(to_toml(settings_))

    # --- its life --------------------------------------------------------------------------------

    def start(self, *, ready: bool = True) -> None:
        """Start the daemon; answers when it is ready for clips."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.daemon_process", self.config, self.folder],
                cwd=ROOT,
                env={**os.environ, "CUDA_VISIBLE_DEVICES": "", **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.sessions.append(self.process.pid)
        if ready:
            self.wait_until(self.is_ready, "ready")

    def is_ready(self) -> bool:
        """Whether it takes clips."""
        return self.status().get("state") in ("serving", "paused")

    def has_ended(self) -> bool:
        """Whether its process is gone."""
        return self.process.poll() is not None

    def status(self) -> dict[str, Any]:
        """What it says of itself; nothing while it does not answer."""
        try:
            return self.client.status()
        except (NotRunningError, BusyError):
            return {}

    def crashed(self) -> None:
        """Wait for a death that was armed."""
        assert self.process.wait(PATIENCE) == -signal.SIGKILL, self.tail()
        self.assert_nothing_runs()

    def kill(self) -> None:
        """``kill -9``."""
        self.process.kill()
        self.crashed()

    def stop(self) -> None:
        """SIGTERM; it ends well."""
        self.process.terminate()
        self.ended(0)

    def ended(self, code: int) -> None:
        """Wait for its end."""
        assert self.process.wait(PATIENCE) == code, self.tail()
        self.assert_nothing_runs()

    def assert_nothing_runs(self) -> None:
        """No process of the daemon's is left soon, and no memory of theirs."""
        until = time.monotonic() + GONE_SECONDS
        while left := processes(self.process.pid):
            assert time.monotonic() < until, f"{len(left)} processes live on"
            time.sleep(0.01)
        assert set(os.listdir("/dev/shm")) <= _shared_memory()

    def workers(self) -> list[int]:
        """Its worker processes."""
        return [pid for pid in processes(self.process.pid) if pid != self.process.pid]

    # --- its work --------------------------------------------------------------------------------

    def drop(
        self,
        name: str = "a",
        frames: int = 10,
        prompt: str | None = "a car",
        *,
        content: bytes | None = None,
    ) -> Path:
        """Move a clip into the inbox, and its prompt before it."""
        if prompt is not None:
            (self.inbox / f"{name}.txt").write_text(prompt)
        clip = self.inbox / f"{name}.mp4"
        hidden = self.inbox / ".coming"
        hidden.write_bytes(a_clip(frames) if content is None else content)
        hidden.rename(clip)
        return clip

    def job(self, name: str = "a") -> dict[str, Any]:
        """The newest job of a clip; nothing where there is none yet."""
        found = self.client.called(f"{name}.mp4")
        return found[0] if found else {}

    def wait_for(self, name: str, *states: str) -> dict[str, Any]:
        """Wait until a clip's job is in one of the states; the job."""
        self.wait_until(
            lambda: self.job(name).get("state") in states, f"{name} to be {' or '.join(states)}"
        )
        return self.job(name)

    def wait_until(
        self, condition: Callable[[], Any], what: str = "", seconds: float = PATIENCE
    ) -> Any:
        """Wait until something is so, while the daemon lives; what the condition says."""
        until = time.monotonic() + seconds
        while True:
            alive = self.process.poll() is None
            with suppress(NotRunningError, BusyError):
                if value := condition():
                    return value
            assert alive, f"ended with {self.process.returncode}: {self.tail()}"
            assert time.monotonic() < until, f"no {what} in {seconds:g} s: {self.tail()}"
            time.sleep(0.02)

    def wait_for_event(self, event: str, count: int = 1) -> None:
        """Wait until something has happened so many times."""
        self.wait_until(lambda: self.events().count(event) >= count, event)

    @contextmanager
    def holding(self, event: str) -> Iterator[None]:
        """Whoever comes to an event waits there meanwhile."""
        self.hooks.arm(event, "hold")
        try:
            yield
        finally:
            self.hooks.disarm(event)

    # --- what it leaves --------------------------------------------------------------------------

    def events(self, *starts: str) -> list[str]:
        """What happened, in order, of what begins like that."""
        file = self.folder / "events.txt"
        text = file.read_text(errors="surrogateescape") if file.exists() else ""
        return [line for line in text.split("\n")[:-1] if line.startswith(starts or "")]

    def forget_events(self) -> None:
        """From now on only what happens then is told."""
        (self.folder / "events.txt").write_bytes(b"")

    def pictures(self, name: str = "a") -> Mapping[str, bytes]:
        """Every file of a result but the manifest."""
        return pictures(self.output / name)

    def manifest(self, name: str = "a") -> dict[str, Any] | None:
        """Of a complete result; None where there is none."""
        return read_manifest(self.output / name)

    def results(self) -> set[str]:
        """Names of what is in the output folder, hidden ones left out."""
        names = os.listdir(self.output) if self.output.exists() else []
        return {name for name in names if not name.startswith(".")}

    def logged(self, action: str) -> list[dict[str, Any]]:
        """What was logged of a kind."""
        lines = self.log.read_text(errors="replace").splitlines()
        records = [json.loads(line) for line in lines if line.startswith("{")]
        return [record for record in records if record.get("action") == action]

    def tail(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-4000:]


def pictures(folder: Path) -> Mapping[str, bytes]:
    """Every file of a result but the manifest, which tells how long everything took."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "manifest.json"
    }


def processes(session: int) -> list[int]:
    """Living processes of a session, whoever their parents are by now."""
    return [int(pid) for pid in os.listdir("/proc") if pid.isdigit() and _lives_in(pid, session)]


def _lives_in(pid: str, session: int) -> bool:
    try:
        stat = Path("/proc", pid, "stat").read_bytes()
    except OSError:
        return False
    state, _, _, its_session = stat.rpartition(b")")[2].split()[:4]
    return int(its_session) == session and state not in (b"Z", b"X")


@cache
def a_clip(frames: int) -> bytes:
    """A clip of so many frames."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        render_clip(path, width=96, height=64, frames=frames)
        return path.read_bytes()


@contextmanager
def tmpfs(folder: Path, mebibytes: int) -> Iterator[Path]:
    """A small file system. Raises OSError where that cannot be mounted."""
    folder.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m,mode=755", "frescod", folder]
    answer = subprocess.run(command, capture_output=True, text=True)
    if answer.returncode:
        raise OSError(answer.stderr.strip())
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def fill(file: Path, spare: int = 0) -> None:
    """Take all space of a file system but so many bytes."""
    with suppress(OSError), file.open("wb", buffering=0) as content:
        while content.write(bytes(1 << 16)):
            pass
    if spare:
        os.truncate(file, max(0, file.stat().st_size - spare))


class Manager:
    """PID 1 as the daemon sees it: hears what it is told."""

    def __init__(self, path: Path, watchdog: float) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind(str(path))
        self.environment = {
            "NOTIFY_SOCKET": str(path),
            "WATCHDOG_USEC": str(int(watchdog * 1e6)),
        }
        self.said: list[str] = []

    def heard(self) -> list[str]:
        """All that was said until now."""
        with suppress(BlockingIOError):
            while True:
                self.said += self._socket.recv(65536).decode().splitlines()
        return self.said

    def close(self) -> None:
        """Hear nothing any more."""
        self._socket.close()
