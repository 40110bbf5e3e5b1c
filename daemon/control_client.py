"""The other end of the control socket: asks the daemon.

With the standard library's HTTP, which a command that only looks need not wait for.
"""

import errno
import http.client
import json
import math
import os
import pwd
import select
import socket
import stat
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from daemon.control_socket import MAX_PATH, Peer
from daemon.jobs import JobState
from daemon.output_folder import BusyError
from daemon.printable import printable
from fresco_core.errors import ConfigError, FrescodError

ANSWER_SECONDS = 5.0
_PAGE = 1000  # jobs that the daemon tells in one answer


class ControlError(FrescodError):
    """The daemon has refused, or may not be asked; ``status`` is HTTP's, 0 where it has none."""

    def __init__(self, text: str, status: int = 0) -> None:
        super().__init__(text)
        self.status = status


class NotRunningError(FrescodError):
    """Nobody answers at the control socket."""

    exit_code = 75


class ControlClient:
    """Asks the daemon whose control socket is at ``path``.

    Raises (from every method):
        NotRunningError: nobody answers.
        BusyError: no answer in time.
        ConfigError: the path is no control socket.
        ControlError: not allowed, or refused.
    """

    def __init__(self, path: Path, seconds: float = ANSWER_SECONDS) -> None:
        self.path = path
        self._seconds = seconds

    def status(self) -> dict[str, Any]:
        """All there is to see."""
        return self._ask("GET", "/v1/status")

    def jobs(self, state: JobState | None = None, limit: int = 100) -> list[dict[str, Any]]:
        """The newest jobs, or the newest in a state, the newest first."""
        query = {} if state is None else {"state": str(state)}
        found: list[dict[str, Any]] = []
        while (wanted := min(limit - len(found), _PAGE)) > 0:
            page = self._ask("GET", f"/v1/jobs?{urlencode(query | {'limit': str(wanted)})}")["jobs"]
            found += page
            if len(page) < wanted:
                break
            query["before"] = str(page[-1]["id"])
        return found

    def called(self, name: str) -> list[dict[str, Any]]:
        """The jobs that a clip's name may mean, the newest first."""
        query = urlencode({"clip": printable(name)})
        return list(self._ask("GET", f"/v1/jobs?{query}")["jobs"])

    def job(self, number: int) -> dict[str, Any]:
        """One job."""
        return self._ask("GET", f"/v1/jobs/{number}")

    def submit(self, name: str, priority: int | None) -> dict[str, Any]:
        """Have a clip taken that is complete: a path below the inbox. Answers its job."""
        return self._ask("POST", "/v1/jobs", {"clip": name, "priority": priority})

    def retry(self, number: int) -> dict[str, Any]:
        """Queue a job again; answers it."""
        return self._ask("POST", f"/v1/jobs/{number}/retry")

    def cancel(self, number: int) -> dict[str, Any]:
        """End a job; answers it."""
        return self._ask("POST", f"/v1/jobs/{number}/cancel")

    def pause(self) -> None:
        """Have no more jobs taken."""
        self._ask("POST", "/v1/pause")

    def resume(self) -> None:
        """Have jobs taken again."""
        self._ask("POST", "/v1/resume")

    def drain(self, timeout: float | None) -> None:
        """Have the daemon end: when what runs is finished, or after so many seconds."""
        self._ask("POST", "/v1/drain", {"timeout": timeout})

    def process(self) -> "DaemonProcess":
        """The daemon as a process, to wait for its end."""
        with self._connected() as connection:
            return DaemonProcess(Peer.of(connection).pid)

    def _ask(
        self, method: str, target: str, values: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        http_ = http.client.HTTPConnection("frescod", timeout=self._seconds)
        body = None if values is None else json.dumps(values)
        with self._connected() as http_.sock:
            try:
                http_.request(method, target, body, {"Connection": "close"})
                response = http_.getresponse()
                content = response.read()
            except TimeoutError:
                raise self._busy() from None
            except (http.client.HTTPException, OSError) as error:
                if isinstance(error, ConnectionError):  # it ends just now, or too many ask it
                    raise BusyError(
                        f"{printable(self.path)}: frescod has hung up: try again"
                    ) from error
                raise self._no_daemon() from error
        try:
            answer = json.loads(content)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise self._no_daemon()
        if response.status >= 400:
            raise ControlError(str(answer.get("error", response.reason)), response.status)
        return answer

    def _connected(self) -> socket.socket:
        address = os.fsencode(self.path)
        if len(address) > MAX_PATH:
            raise ConfigError(
                f"{printable(self.path)}: is longer than the {MAX_PATH} bytes that the path of a "
                "socket may have: set service.socket to a shorter one"
            )
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(self._seconds)
        deadline = time.monotonic() + self._seconds
        while True:
            try:
                connection.connect(address)
                return connection
            except OSError as error:
                if error.errno == errno.EAGAIN and time.monotonic() < deadline:
                    time.sleep(0.02)  # too many at its door, which does not make one wait
                    continue
                connection.close()
                raise self._unreachable(error) from error

    def _unreachable(self, error: OSError) -> FrescodError:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return NotRunningError(f"frescod is not running: {printable(self.path)} does not exist")
        if error.errno == errno.ECONNREFUSED:
            # Files that are no sockets refuse as well.
            with suppress(OSError):
                if not stat.S_ISSOCK(self.path.stat().st_mode):
                    return ConfigError(
                        f"{printable(self.path)}: is no socket: correct service.socket or --socket"
                    )
            return NotRunningError(
                f"frescod is not running: nobody answers at {printable(self.path)}"
            )
        if isinstance(error, PermissionError):
            return ControlError(
                f"{printable(self.path)}: permission denied: ask {self._owner()}, "
                "or have the folder of the socket opened to you"
            )
        if isinstance(error, TimeoutError) or error.errno == errno.EAGAIN:
            return self._busy()
        return ConfigError(
            f"{printable(self.path)}: cannot be connected to ({error.strerror}): correct "
            "service.socket or --socket"
        )

    def _owner(self) -> str:
        for path in (self.path, *self.path.parents):
            with suppress(OSError, KeyError):
                return f"user {pwd.getpwuid(path.stat().st_uid).pw_name}, who owns it"
        return "its owner"

    def _busy(self) -> BusyError:
        return BusyError(
            f"{printable(self.path)}: frescod has not answered for {self._seconds:g} s: "
            "try again, or look in its log"
        )

    def _no_daemon(self) -> ConfigError:
        return ConfigError(
            f"{printable(self.path)}: what answers there is not frescod: "
            "correct service.socket or --socket"
        )


class DaemonProcess:
    """The daemon's process: it has ended when the kernel says so."""

    def __init__(self, pid: int) -> None:
        self._descriptor: int | None = None
        # Not visible from another namespace of processes, or gone already.
        with suppress(OSError):
            self._descriptor = os.pidfd_open(pid) if pid else None
        self.visible = self._descriptor is not None

    def ended(self, seconds: float) -> bool:
        """Wait so long for its end; False where it still runs."""
        assert self._descriptor is not None
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        return bool(poll.poll(math.ceil(seconds * 1000)))

    def close(self) -> None:
        """Let go of it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
