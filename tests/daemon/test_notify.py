"""The conversation with systemd, held with a PID 1 that is none: a bound datagram socket."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from daemon.notify import Notifier


class Manager:
    """What PID 1 has heard."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)

    def heard(self) -> list[str]:
        messages = []
        try:
            while True:
                messages.append(self._socket.recv(65536).decode())
        except BlockingIOError:
            return messages

    def close(self) -> None:
        self._socket.close()


@contextmanager
def managed(monkeypatch: pytest.MonkeyPatch, address: str) -> Iterator[Manager]:
    manager = Manager(address)
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    try:
        yield manager
    finally:
        manager.close()


@pytest.fixture(params=["path", "abstract"])
def manager(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Manager]:
    address = str(tmp_path / "notify")
    if request.param == "abstract":
        address = f"@frescod-test-{os.getpid()}-{time.monotonic_ns()}"
    with managed(monkeypatch, address) as manager:
        yield manager


def test_everything_that_is_said(manager: Manager) -> None:
    notifier = Notifier()
    notifier.extend(30)
    notifier.status("loading models")
    notifier.ready()
    notifier.watchdog()
    notifier.stopping()
    assert manager.heard() == [
        "EXTEND_TIMEOUT_USEC=30000000",
        "STATUS=loading models",
        "READY=1",
        "WATCHDOG=1",
        "STOPPING=1",
    ]


def test_a_status_is_one_line_whatever_is_in_it(manager: Manager) -> None:
    Notifier().status("crossing\nREADY=1\r\n\udcff.mp4")
    assert manager.heard() == ["STATUS=crossing READY=1 \\udcff.mp4"]


def test_silent_without_a_manager(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    monkeypatch.setenv("WATCHDOG_USEC", "1000000")
    notifier = Notifier()
    notifier.ready()
    assert notifier.watchdog_interval is None  # nobody would hear it
    for address in (str(tmp_path / "nobody"), "vsock:2:1234", "relative", "/" + "x" * 200, ""):
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        notifier = Notifier()
        notifier.ready()
        notifier.status("nobody listens")


def test_a_manager_that_does_not_read_holds_nothing_up(manager: Manager) -> None:
    notifier = Notifier()
    start = time.monotonic()
    for _ in range(2000):  # more than any socket's buffer holds
        notifier.watchdog()
    assert time.monotonic() - start < 5
    assert 0 < len(manager.heard()) < 2000


@pytest.mark.parametrize(
    ("microseconds", "process", "interval"),
    [
        ("60000000", None, 60.0),
        ("60000000", "own", 60.0),
        ("60000000", "1", None),  # meant for another process
        ("500000", None, 0.5),
        ("", None, None),
        ("0", None, None),
        ("soon", None, None),
    ],
)
def test_the_watchdogs_interval(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    microseconds: str,
    process: str | None,
    interval: float | None,
) -> None:
    with managed(monkeypatch, str(tmp_path / "notify")):
        monkeypatch.setenv("WATCHDOG_USEC", microseconds)
        monkeypatch.delenv("WATCHDOG_PID", raising=False)
        if process is not None:
            monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()) if process == "own" else process)
        assert Notifier().watchdog_interval == interval


def test_worker_processes_know_nothing_of_it(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "1000000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    notifier = Notifier()
    code = 'import os; print([n for n in os.environ if n.startswith(("NOTIFY", "WATCHDOG"))])'
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout == "[]\n"
    notifier.ready()
    assert manager.heard() == ["READY=1"]
