import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from daemon.control_client import ControlClient, ControlError, DaemonProcess, NotRunningError
from daemon.jobs import JobState
from daemon.output_folder import BusyError
from fresco_core.errors import ConfigError, FrescodError
from tests.conftest import ROOT
from tests.daemon.control_rig import FakeBackend, record, served, short_folder


@pytest.fixture
def folder() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder


@pytest.fixture
def backend(folder: Path) -> Iterator[FakeBackend]:
    backend = FakeBackend(inbox=folder)
    with served(folder / "s", backend):
        yield backend


@pytest.fixture
def client(backend: FakeBackend) -> ControlClient:
    return ControlClient(backend.inbox / "s")


@contextmanager
def answering(path: Path, answer: bytes) -> Iterator[None]:
    """Something else at the socket, which says one thing to everyone."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()

        def answer_one() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        thread = threading.Thread(target=answer_one)
        thread.start()
        yield
        thread.join()


class TestAsks:
    def test_looks(self, backend: FakeBackend, client: ControlClient) -> None:
        assert client.status() == backend.status()
        assert [job["id"] for job in client.jobs()] == [3, 2, 1]
        assert [job["id"] for job in client.jobs(JobState.FAILED)] == [2]
        assert [job["id"] for job in client.jobs(limit=1)] == [3]
        assert client.job(1) == backend.records[1].to_json()
        assert [job["id"] for job in client.called("a")] == [1]

    def test_page_by_page(
        self, backend: FakeBackend, client: ControlClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("daemon.control_client._PAGE", 2)
        assert [job["id"] for job in client.jobs()] == [3, 2, 1]
        assert [job["id"] for job in client.jobs(limit=3)] == [3, 2, 1]
        assert [job["id"] for job in client.jobs(limit=2)] == [3, 2]
        backend.records = {number: record(number) for number in range(1, 5)}
        assert [job["id"] for job in client.jobs(JobState.QUEUED)] == [4, 3, 2, 1]

    def test_changes(self, backend: FakeBackend, client: ControlClient) -> None:
        client.pause()
        assert backend.state == "paused"
        client.resume()
        assert backend.state == "serving"
        client.drain(0.5)
        assert backend.told == [("drain", 0.5)]
        assert client.retry(2)["state"] == "queued"
        assert client.cancel(2)["state"] == "cancelled"

    def test_a_name_of_any_bytes(self, backend: FakeBackend, client: ControlClient) -> None:
        name = os.fsdecode(b"a\xff \n'&?.mp4")
        (backend.inbox / name).touch()
        number = client.submit(name, None)["id"]
        assert backend.told == [("submit", name, None)]
        assert [job["id"] for job in client.called(name)] == [number]

    def test_refused(self, client: ControlClient) -> None:
        with pytest.raises(ControlError, match="job 1 is queued") as refused:
            client.retry(1)
        assert (refused.value.status, refused.value.exit_code) == (409, 1)


class TestNobody:
    """One clear line each."""

    def failed(self, path: Path, seconds: float = 5.0) -> FrescodError:
        with pytest.raises(FrescodError) as failed:
            ControlClient(path, seconds).status()
        assert str(path) in str(failed.value)
        assert "\n" not in str(failed.value)
        return failed.value

    def test_not_there(self, folder: Path) -> None:
        assert isinstance(self.failed(folder / "s"), NotRunningError)
        assert isinstance(self.failed(folder / "x/s"), NotRunningError)

    def test_a_file_that_a_dead_one_left(self, folder: Path) -> None:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(folder / "s"))
        error = self.failed(folder / "s")
        assert isinstance(error, NotRunningError)
        assert error.exit_code == 75

    def test_no_socket(self, folder: Path) -> None:
        (folder / "s").write_text("")
        error = self.failed(folder / "s")
        assert "is no socket" in str(error)
        assert error.exit_code == 78
        (folder / "d").mkdir()
        assert isinstance(self.failed(folder / "d"), ConfigError)

    def test_a_path_too_long(self, folder: Path) -> None:
        assert isinstance(self.failed(folder / ("x" * 108)), ConfigError)

    def test_no_answer(self, folder: Path) -> None:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(folder / "s"))
            server.listen()
            error = self.failed(folder / "s", 0.1)
        assert isinstance(error, BusyError)
        assert "has not answered for 0.1 s" in str(error)

    def test_no_room_at_its_door(self, folder: Path) -> None:
        with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as first:
            server.bind(str(folder / "s"))
            server.listen(0)
            first.connect(str(folder / "s"))
            assert isinstance(self.failed(folder / "s", 0.1), BusyError)

    def test_hung_up(self, folder: Path) -> None:
        with answering(folder / "s", b""):
            assert isinstance(self.failed(folder / "s"), BusyError)

    @pytest.mark.parametrize(
        "answer", [b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 200 OK\r\n\r\nhello", b"\0" * 100]
    )
    def test_something_else(self, folder: Path, answer: bytes) -> None:
        with answering(folder / "s", answer):
            error = self.failed(folder / "s")
        assert "what answers there is not frescod" in str(error)
        assert error.exit_code == 78

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
    def test_permission_denied(self, backend: FakeBackend) -> None:
        backend.inbox.chmod(0o700)
        code = (
            "import os, sys; from daemon.control_client import *; from pathlib import Path\n"
            "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
            "try: ControlClient(Path(sys.argv[1])).status()\n"
            "except ControlError as error: print(error)"
        )
        result = subprocess.run(
            [sys.executable, "-c", code, str(backend.inbox / "s")],
            capture_output=True,
            text=True,
            cwd=ROOT,
            timeout=30,
        )
        assert "permission denied: ask user root, who owns it" in result.stdout, result.stderr


class TestDaemonProcess:
    def test_its_end(self) -> None:
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        with child, closing(DaemonProcess(child.pid)) as process:
            assert process.visible
            assert not process.ended(0)
            child.communicate(b"\n")
            assert process.ended(10)

    @pytest.mark.parametrize("pid", [0, 2**22 + 1])
    def test_one_that_cannot_be_seen(self, pid: int) -> None:
        with closing(DaemonProcess(pid)) as process:
            assert not process.visible

    def test_of_whoever_listens(self, client: ControlClient) -> None:
        with closing(client.process()) as process:
            assert process.visible
            assert not process.ended(0)
