import asyncio
import http.client
import json
import os
import select
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from daemon.control import MAX_BODY, MAX_JOBS, ControlServer
from daemon.control_door import MAX_OF_ONE, MAX_TRUSTED
from daemon.control_socket import BACKLOG
from daemon.jobs import JobRecord
from daemon.output_folder import BusyError
from fresco_core.errors import ConfigError, FrescodError
from tests.daemon.control_rig import FakeBackend, served, short_folder

AS_ANOTHER = """
import os, socket, sys
os.setgroups([]); os.setgid(65534); os.setuid(65534)
s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])
s.sendall(sys.argv[2].encode() + b" HTTP/1.0\\r\\n\\r\\n")
sys.stdout.write(b"".join(iter(lambda: s.recv(65536), b"")).decode())
"""

# Tells how many of its connections are left.
MANY_OF_ANOTHER = f"""
import os, select, socket, sys, time
os.setgroups([]); os.setgid(65534); os.setuid(int(sys.argv[2]))
poll = select.poll()
inside = {{}}
for _ in range({MAX_OF_ONE} + 15):
    s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])
    inside[s.fileno()] = s
    poll.register(s, select.POLLHUP)
end = time.monotonic() + 10
while len(inside) > {MAX_OF_ONE} and time.monotonic() < end:
    for number, _ in poll.poll(100):
        poll.unregister(number)
        del inside[number]
time.sleep(0.1)
print(len(inside) - len(poll.poll(0)), flush=True)
input()
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder


@pytest.fixture
def backend(folder: Path) -> Iterator[FakeBackend]:
    backend = FakeBackend(inbox=folder)
    with served(folder / "s", backend):
        yield backend


def ask(
    backend: FakeBackend, method: str, target: str, body: Any = None
) -> tuple[int, dict[str, Any]]:
    """Status and answer; a body that is no bytes goes as JSON."""
    status, _, content = raw(backend, method, target, body)
    answer = json.loads(content)
    assert isinstance(answer, dict)
    if status >= 400:
        assert "\n" not in answer["error"]
    return status, answer


def raw(
    backend: FakeBackend, method: str, target: str, body: Any = None
) -> tuple[int, http.client.HTTPMessage, bytes]:
    client = http.client.HTTPConnection("frescod")
    client.sock = socket.socket(socket.AF_UNIX)
    client.sock.settimeout(10)
    client.sock.connect(str(backend.inbox / "s"))
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    try:
        client.request(method, target, data)
        response = client.getresponse()
        return response.status, response.headers, response.read()
    finally:
        client.close()


class TestLooking:
    def test_status(self, backend: FakeBackend) -> None:
        assert ask(backend, "GET", "/v1/status") == (200, backend.status())

    def test_jobs(self, backend: FakeBackend) -> None:
        code, answer = ask(backend, "GET", "/v1/jobs")
        assert code == 200
        assert [job["id"] for job in answer["jobs"]] == [3, 2, 1]
        assert answer["jobs"][2] == backend.records[1].to_json()

    @pytest.mark.parametrize(
        ("query", "numbers"),
        [
            ("state=failed", [2]),
            ("state=skipped", []),
            ("limit=1", [3]),
            ("clip=a.mp4", [1]),
            ("clip=a", [1]),
            ("clip=a&state=failed", []),
            ("before=3", [2, 1]),
            ("before=3&limit=1", [2]),
            (f"limit={MAX_JOBS}", [3, 2, 1]),
        ],
    )
    def test_some_jobs(self, backend: FakeBackend, query: str, numbers: list[int]) -> None:
        answer = ask(backend, "GET", f"/v1/jobs?{query}")[1]
        assert [job["id"] for job in answer["jobs"]] == numbers

    @pytest.mark.parametrize(
        "query",
        [
            "state=Failed",
            "limit=0",
            "limit=x",
            "limit=1e9",
            "limit=٣",
            f"limit={MAX_JOBS + 1}",
            "limit=0000000019999999999999999999",
            "limit=" + "0" * 5000,
            "before=x",
            "before=" + "9" * 19,
            "states=failed",
        ],
    )
    def test_a_query_that_is_wrong(self, backend: FakeBackend, query: str) -> None:
        target = f"/v1/jobs?{query.replace('٣', '%D9%A3')}"
        assert ask(backend, "GET", target)[0] == 400

    def test_a_long_list_holds_nobody_up(
        self, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def wait(job: JobRecord) -> dict[str, Any]:
            making.set()
            assert answered.wait(10)
            return {}

        making, answered = threading.Event(), threading.Event()
        monkeypatch.setattr(JobRecord, "to_json", wait)
        with ThreadPoolExecutor(4) as pool:
            lists = [pool.submit(ask, backend, "GET", "/v1/jobs?limit=1") for _ in range(4)]
            assert making.wait(10)
            assert ask(backend, "GET", "/v1/status")[0] == 200
            answered.set()
            assert [each.result()[0] for each in lists] == [200] * 4

    def test_one_job(self, backend: FakeBackend) -> None:
        assert ask(backend, "GET", "/v1/jobs/2") == (200, backend.records[2].to_json())

    def test_a_job_that_there_is_not(self, backend: FakeBackend) -> None:
        for method, target in (
            ("GET", "/v1/jobs/99"),
            ("POST", "/v1/jobs/99/retry"),
            ("POST", "/v1/jobs/99/cancel"),
        ):
            assert ask(backend, method, target) == (404, {"error": "there is no job 99"})

    def test_metrics(self, backend: FakeBackend) -> None:
        code, headers, body = raw(backend, "GET", "/metrics")
        assert (code, body) == (200, b"frescod_jobs 3\n")
        assert headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"

    def test_health(self, backend: FakeBackend) -> None:
        assert ask(backend, "GET", "/healthz") == (200, {"problems": []})
        backend.ill = ["the watcher of the inbox has ended"]
        code, answer = ask(backend, "GET", "/healthz")
        assert code == 503
        assert answer["problems"] == backend.ill

    def test_readiness(self, backend: FakeBackend) -> None:
        assert ask(backend, "GET", "/readyz") == (200, {"ready": True})
        backend.ready = False
        assert ask(backend, "GET", "/readyz")[0] == 503

    @pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
    def test_with_curl(self, backend: FakeBackend) -> None:
        socket_ = ["curl", "-sS", "--unix-socket", str(backend.inbox / "s")]
        answer = subprocess.run(
            [*socket_, "http://frescod/v1/jobs/1"], capture_output=True, check=True, timeout=20
        )
        assert json.loads(answer.stdout)["id"] == 1
        subprocess.run(
            [*socket_, "-d", '{"timeout": 5}', "http://frescod/v1/drain"],
            capture_output=True,
            check=True,
            timeout=20,
        )
        assert backend.told == [("drain", 5)]


class TestChanging:
    def test_submit(self, backend: FakeBackend) -> None:
        (backend.inbox / "d.mp4").touch()
        code, answer = ask(backend, "POST", "/v1/jobs", {"clip": "d.mp4", "priority": 5})
        assert (code, answer["id"], answer["priority"]) == (200, 4, 5)
        assert ask(backend, "POST", "/v1/jobs", {"clip": "d.mp4"})[0] == 200
        assert backend.told == [("submit", "d.mp4", 5), ("submit", "d.mp4", None)]

    def test_submit_what_cannot_be_taken(self, backend: FakeBackend) -> None:
        code, answer = ask(backend, "POST", "/v1/jobs", {"clip": "absent.mp4"})
        assert (code, answer["error"]) == (400, "absent.mp4: is not in the inbox")

    @pytest.mark.parametrize("name", ["/etc/a.mp4", "../a.mp4", "x/../../a.mp4", "a\0.mp4", "", 5])
    def test_submit_from_elsewhere(self, backend: FakeBackend, name: object) -> None:
        assert ask(backend, "POST", "/v1/jobs", {"clip": name})[0] == 400
        assert backend.told == []

    @pytest.mark.parametrize("priority", ["5", 1.5, True, 10**9])
    def test_submit_with_no_priority(self, backend: FakeBackend, priority: object) -> None:
        (backend.inbox / "d.mp4").touch()
        body = {"clip": "d.mp4", "priority": priority}
        assert ask(backend, "POST", "/v1/jobs", body)[0] == 400

    def test_retry_and_cancel(self, backend: FakeBackend) -> None:
        assert ask(backend, "POST", "/v1/jobs/2/retry")[1]["state"] == "queued"
        assert ask(backend, "POST", "/v1/jobs/2/cancel", {})[1]["state"] == "cancelled"
        code, answer = ask(backend, "POST", "/v1/jobs/2/cancel")
        assert (code, answer["error"]) == (409, "job 2 is cancelled: nothing to cancel")

    def test_pause_and_resume(self, backend: FakeBackend) -> None:
        assert ask(backend, "POST", "/v1/pause") == (200, {"state": "paused"})
        assert ask(backend, "POST", "/v1/resume") == (200, {"state": "serving"})

    def test_what_the_backend_will_not_do(
        self, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse() -> None:
            raise FrescodError("the daemon is about to end")

        monkeypatch.setattr(backend, "resume", refuse)
        answer = ask(backend, "POST", "/v1/resume")
        assert answer == (409, {"error": "the daemon is about to end"})

    def test_drain(self, backend: FakeBackend) -> None:
        for body, seconds in ((None, None), ({"timeout": None}, None), ({"timeout": 0}, 0)):
            assert ask(backend, "POST", "/v1/drain", body) == (200, {"state": "draining"})
            assert backend.told.pop() == ("drain", seconds)

    @pytest.mark.parametrize(
        "body",
        ["NaN", "1e999", "-1", '"5"', "true", "1" + "0" * 400],
    )
    def test_drain_by_no_time(self, backend: FakeBackend, body: str) -> None:
        assert ask(backend, "POST", "/v1/drain", f'{{"timeout": {body}}}'.encode())[0] == 400
        assert backend.told == []

    @pytest.mark.parametrize(
        "body", [b"{", b"[]", b"5", b"\xff", b'{"time": 5}', b"[" * 60_000, b"1" * 5000]
    )
    def test_a_body_that_is_wrong(self, backend: FakeBackend, body: bytes) -> None:
        assert ask(backend, "POST", "/v1/drain", body)[0] == 400
        assert ask(backend, "POST", "/v1/jobs/2/retry", body)[0] == 400
        assert backend.told == []

    def test_a_body_that_does_not_come(
        self, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("daemon.control.BODY_SECONDS", 0.05)
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(10)
            client.connect(str(backend.inbox / "s"))
            client.sendall(b"POST /v1/drain HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{")
            assert client.recv(65536).startswith(b"HTTP/1.1 408 ")
        assert backend.told == []

    def test_a_body_too_large(self, backend: FakeBackend) -> None:
        assert ask(backend, "POST", "/v1/drain", b" " * (MAX_BODY - 1))[0] == 200
        assert ask(backend, "POST", "/v1/drain", b" " * (MAX_BODY + 1))[0] == 413


class TestErrors:
    def test_unknown_paths_and_wrong_methods(self, backend: FakeBackend) -> None:
        for target in ("/", "/v2/status", "/v1/jobs/x", "/v1/jobs/-1", "/v1/jobs/" + "9" * 30):
            assert ask(backend, "GET", target)[0] == 404
        code, headers, _ = raw(backend, "POST", "/v1/status")
        assert (code, headers["Allow"]) == (405, "GET, HEAD")
        assert ask(backend, "GET", "/v1/drain")[0] == 405

    def test_a_fault_of_its_own(
        self, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(backend, "metrics", lambda: 1 / 0)
        code, answer = ask(backend, "GET", "/metrics")
        assert code == 500
        assert "ZeroDivisionError" in answer["error"]
        assert ask(backend, "GET", "/v1/status")[0] == 200


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_a_stranger_may_look_and_change_nothing(backend: FakeBackend) -> None:
    def as_stranger(request: str) -> str:
        command = [sys.executable, "-c", AS_ANOTHER, str(backend.inbox / "s"), request]
        return subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=20
        ).stdout

    assert " 200 " in as_stranger("GET /v1/status").splitlines()[0]
    for target in ("drain", "pause", "resume", "jobs", "jobs/2/retry", "jobs/1/cancel"):
        answer = as_stranger(f"POST /v1/{target}")
        assert " 403 " in answer.splitlines()[0]
        assert "65534 may look, but not change anything: that takes root, user " in answer
    assert backend.told == []
    assert backend.state == "serving"


class TestConnections:
    def test_slow_and_silent_clients_do_not_hold_up_the_end(self, folder: Path) -> None:
        clients = [socket.socket(socket.AF_UNIX) for _ in range(3)]
        begin = time.monotonic()
        with served(folder / "s", FakeBackend()):
            for client, said in zip(
                clients,
                [
                    b"",
                    b"GET /v1/sta",
                    b"POST /v1/drain HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{",
                ],
                strict=True,
            ):
                client.connect(str(folder / "s"))
                client.sendall(said)
            time.sleep(0.1)
        assert time.monotonic() - begin < 5
        for client in clients:
            client.close()

    @pytest.mark.parametrize(
        "said", [b"", b"GET /v1/sta", b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n"]
    )
    def test_whoever_asks_for_nothing_is_cut(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, said: bytes
    ) -> None:
        monkeypatch.setattr("daemon.control_door.IDLE_SECONDS", 0.1)
        with (
            served(folder / "s", FakeBackend()),
            socket.socket(socket.AF_UNIX) as client,
            suppress(ConnectionResetError),
        ):
            client.settimeout(10)
            client.connect(str(folder / "s"))
            client.sendall(said)
            while client.recv(65536):
                pass

    def test_whoever_waits_for_an_answer_is_not(
        self, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def cancel(id: int) -> JobRecord:
            await asyncio.sleep(0.5)
            return backend.records[id]

        monkeypatch.setattr("daemon.control_door.IDLE_SECONDS", 0.1)
        monkeypatch.setattr(backend, "cancel", cancel)
        assert ask(backend, "POST", "/v1/jobs/1/cancel")[0] == 200

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
    def test_a_stranger_locks_nobody_out(self, backend: FakeBackend) -> None:
        with ExitStack() as stack:
            for uid in (65534, 65533):
                command = [
                    sys.executable,
                    "-c",
                    MANY_OF_ANOTHER,
                    str(backend.inbox / "s"),
                    str(uid),
                ]
                process = stack.enter_context(
                    subprocess.Popen(
                        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
                    )
                )
                assert process.stdout is not None
                assert int(process.stdout.readline()) == MAX_OF_ONE
                assert ask(backend, "GET", "/v1/status")[0] == 200
                assert ask(backend, "POST", "/v1/pause")[0] == 200

    def test_nobody_can_use_up_all_descriptors(self, backend: FakeBackend) -> None:
        with ExitStack() as stack:
            clients = [
                stack.enter_context(socket.socket(socket.AF_UNIX))
                for _ in range(MAX_TRUSTED + 4 * BACKLOG)
            ]
            for client in clients:
                client.connect(str(backend.inbox / "s"))
            cut = select.poll()
            for client in clients:
                cut.register(client, select.POLLHUP)
            # Not to the one: they are counted when they have been accepted.
            eventually(lambda: len(cut.poll(0)) >= 2 * BACKLOG)
        eventually(lambda: served_again(backend))


def eventually(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def served_again(backend: FakeBackend) -> bool:
    with suppress(ConnectionError, http.client.HTTPException):
        return ask(backend, "GET", "/v1/status")[0] == 200
    return False


class TestMetricsListen:
    def get(self, address: tuple[str, int], target: str, method: str = "GET") -> int:
        client = http.client.HTTPConnection(*address, timeout=10)
        try:
            client.request(method, target)
            return client.getresponse().status
        finally:
            client.close()

    @pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
    def test_figures_and_health_only(self, folder: Path, host: str) -> None:
        async def main() -> None:
            async with ControlServer(folder / "s", FakeBackend(), f"{host}:0") as server:
                assert server.listens_at is not None
                for target, method, code in (
                    ("/metrics", "GET", 200),
                    ("/healthz", "GET", 200),
                    ("/readyz", "GET", 200),
                    ("/v1/status", "GET", 404),
                    ("/v1/jobs", "GET", 404),
                    ("/v1/drain", "POST", 404),
                ):
                    answer = asyncio.to_thread(self.get, server.listens_at, target, method)
                    assert await answer == code

        asyncio.run(main())

    async def enter(self, folder: Path, listen: str) -> None:
        async with ControlServer(folder / "s", FakeBackend(), listen):
            pass

    def test_an_address_in_use(self, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as other:
            listen = f"127.0.0.1:{other.getsockname()[1]}"
            with pytest.raises(BusyError, match=rf"metrics\.listen = {listen}"):
                asyncio.run(self.enter(folder, listen))
        assert not (folder / "s").exists()

    @pytest.mark.parametrize("listen", ["127.0.0.1:99999", "192.0.2.1:9464", "256.1.1.1:80"])
    def test_an_address_that_is_none(self, folder: Path, listen: str) -> None:
        with pytest.raises(ConfigError, match=r"metrics\.listen"):
            asyncio.run(self.enter(folder, listen))
