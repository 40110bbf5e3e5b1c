"""The daemon's control: HTTP and JSON over a unix socket; everyone may look, few may change.

::

    curl --unix-socket control.sock http://frescod/v1/status
"""

import asyncio
import errno
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, Self

from aiohttp import web

from daemon.control_door import Door
from daemon.control_socket import BACKLOG, Peer, listening, who_may_change
from daemon.job_settings import PRIORITIES
from daemon.jobs import JobRecord, JobState
from daemon.logs import Action, log
from daemon.metrics import CONTENT_TYPE
from daemon.output_folder import BusyError
from daemon.printable import printable
from fresco_core.errors import ConfigError, FrescodError

MAX_BODY = 64 * 1024
BODY_SECONDS = 10.0
MAX_JOBS = 1000  # in one answer
MAX_SECONDS = 86400 * 7
_DIGITS = 18  # of numbers; more do not go into the store
_SHUTDOWN_SECONDS = 1.0
_LISTS = 2  # made at a time: each takes one of the threads, and the store

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Backend(Protocol):
    """What is controlled. What is not async must be quick."""

    inbox: Path
    ready: bool

    async def refresh(self) -> None:
        """Have what follows be as things are now, as far as that takes no time."""

    def status(self) -> dict[str, Any]:
        """All there is to see, as JSON."""

    def metrics(self) -> str:
        """Figures in Prometheus' text format."""

    def problems(self) -> Sequence[str]:
        """What is not well; empty when all is."""

    async def jobs(
        self, state: JobState | None, limit: int, before: int | None, clip: str | None
    ) -> Sequence[JobRecord]:
        """The newest first; those before a number, those of clips that may be meant by a name."""

    async def job(self, id: int) -> JobRecord:
        """One job; KeyError where there is none."""

    async def submit(self, name: str, priority: int | None) -> JobRecord:
        """Take a complete clip, a path below the inbox; FrescodError where it cannot be taken."""

    async def retry(self, id: int) -> JobRecord:
        """Queue it again; KeyError, or FrescodError where its state does not allow it."""

    async def cancel(self, id: int) -> JobRecord:
        """End it; KeyError, or FrescodError where its state does not allow it."""

    def pause(self) -> None:
        """Take no more jobs."""

    def resume(self) -> None:
        """Take jobs again; FrescodError where it is about to end."""

    def drain(self, timeout: float | None) -> None:
        """End when what runs is finished, or, so many seconds from now, at its last checkpoint."""


class ControlServer:
    """Serves a `Backend` for as long as the ``async with`` lasts.

    Args:
        path: of the unix socket.
        listen: ``host:port`` for figures and health only, or empty.

    Raises:
        ConfigError: (on entry) the socket cannot be made, or the address not be listened at.
        BusyError: another process has one of them.
    """

    def __init__(self, path: Path, backend: Backend, listen: str = "") -> None:
        self._path = path
        self._backend = backend
        self._listen = listen
        self._stack = AsyncExitStack()
        self._lists = asyncio.Semaphore(_LISTS)
        self.listens_at: tuple[str, int] | None = None  # with the port that was chosen for port 0

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        async with AsyncExitStack() as stack:
            public = await self._site(stack, self._public())
            socket_ = stack.enter_context(listening(self._path))
            accept = await self._site(stack, [*self._public(), *self._private()])
            server = await loop.create_unix_server(accept, sock=socket_, backlog=BACKLOG)
            stack.push_async_callback(_let_in)
            stack.callback(server.close)
            stack.push_async_callback(_let_in)  # asyncio forgets those that it has only accepted
            if self._listen:
                tcp = await self._listen_tcp(public)
                stack.callback(tcp.close)
                self.listens_at = tcp.sockets[0].getsockname()[:2]
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._stack.aclose()
        await asyncio.sleep(0)  # closed connections are let go of in the loop's next round

    async def _site(self, stack: AsyncExitStack, routes: Sequence[web.RouteDef]) -> Door:
        """Makes the protocols of connections."""

        @web.middleware
        async def keep(request: web.Request, handler: Handler) -> web.StreamResponse:
            door.busy(request, True)
            try:
                return await handler(request)
            finally:
                door.busy(request, False)

        app = web.Application(middlewares=[keep, self._speak_json], client_max_size=MAX_BODY)
        app.add_routes(routes)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=_SHUTDOWN_SECONDS)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        assert runner.server is not None
        door = Door(runner.server)
        watch = asyncio.create_task(door.watch())
        stack.callback(watch.cancel)
        return door

    async def _listen_tcp(self, accept: Door) -> asyncio.Server:
        host, _, port = self._listen.rpartition(":")
        try:
            return await asyncio.get_running_loop().create_server(
                accept, host.strip("[]"), int(port), backlog=BACKLOG
            )
        except (OSError, OverflowError, ValueError) as error:
            if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
                raise BusyError(
                    f"metrics.listen = {self._listen}: another process listens there: "
                    "stop it, or choose another port"
                ) from error
            reason = getattr(error, "strerror", None) or error
            raise ConfigError(
                f"metrics.listen = {self._listen}: cannot be listened at ({reason}): "
                "give an address of this machine and a port up to 65535"
            ) from error

    def _public(self) -> list[web.RouteDef]:
        return [
            web.get("/metrics", self._metrics),
            web.get("/healthz", self._health),
            web.get("/readyz", self._ready),
        ]

    def _private(self) -> list[web.RouteDef]:
        one = f"/v1/jobs/{{id:[0-9]{{1,{_DIGITS}}}}}"
        return [
            web.get("/v1/status", self._status),
            web.get("/v1/jobs", self._jobs),
            web.post("/v1/jobs", self._submit),
            web.get(one, self._job),
            web.post(one + "/retry", self._retry),
            web.post(one + "/cancel", self._cancel),
            web.post("/v1/pause", self._pause),
            web.post("/v1/resume", self._resume),
            web.post("/v1/drain", self._drain),
        ]

    # --- looking ---------------------------------------------------------------------------------

    async def _metrics(self, request: web.Request) -> web.Response:
        await self._backend.refresh()
        text = self._backend.metrics()
        return web.Response(body=text.encode(), headers={"Content-Type": CONTENT_TYPE})

    async def _health(self, request: web.Request) -> web.Response:
        problems = list(self._backend.problems())
        if problems:
            return web.json_response({"error": problems[0], "problems": problems}, status=503)
        return web.json_response({"problems": []})

    async def _ready(self, request: web.Request) -> web.Response:
        if self._backend.ready:
            return web.json_response({"ready": True})
        return web.json_response({"error": "not ready: loading models", "ready": False}, status=503)

    async def _status(self, request: web.Request) -> web.Response:
        await self._backend.refresh()
        return web.json_response(self._backend.status())

    async def _jobs(self, request: web.Request) -> web.Response:
        query = _only(request.query, "state", "limit", "before", "clip")
        state, before = query.get("state"), query.get("before")
        if state is not None and state not in list(JobState):
            raise _Refused(400, f"state: {state!r} is none: give one of {', '.join(JobState)}")
        limit = _whole("limit", query.get("limit", "100"), MAX_JOBS)
        async with self._lists:
            records = await self._backend.jobs(
                None if state is None else JobState(state),
                limit,
                None if before is None else _whole("before", before, 10**_DIGITS),
                query.get("clip"),
            )
            text = await asyncio.to_thread(
                lambda: json.dumps({"jobs": [record.to_json() for record in records]})
            )
        return web.json_response(text=text)

    async def _job(self, request: web.Request) -> web.Response:
        return await self._answer(request, self._backend.job)

    # --- changing --------------------------------------------------------------------------------

    async def _submit(self, request: web.Request) -> web.Response:
        body = await self._change(request, "clip", "priority")
        name, priority = body.get("clip"), body.get("priority")
        if not isinstance(name, str) or not name:
            raise _Refused(400, "clip: give the name of a file in the inbox")
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\0" in name:
            raise _Refused(400, f"clip: {name!r} is not in the inbox: copy it there first")
        if priority is not None and not (_is_number(priority) and priority in PRIORITIES):
            limits = f"{PRIORITIES[0]} to {PRIORITIES[-1]}"
            raise _Refused(400, f"priority: give a whole number, {limits}, or null")
        try:
            record = await self._backend.submit(name, None if priority is None else int(priority))
        except FrescodError as error:
            raise _Refused(400, str(error)) from error
        return web.json_response(record.to_json())

    async def _retry(self, request: web.Request) -> web.Response:
        await self._change(request)
        return await self._answer(request, self._backend.retry)

    async def _cancel(self, request: web.Request) -> web.Response:
        await self._change(request)
        return await self._answer(request, self._backend.cancel)

    async def _pause(self, request: web.Request) -> web.Response:
        await self._change(request)
        self._backend.pause()
        return self._state()

    async def _resume(self, request: web.Request) -> web.Response:
        await self._change(request)
        self._backend.resume()
        return self._state()

    async def _drain(self, request: web.Request) -> web.Response:
        seconds = (await self._change(request, "timeout")).get("timeout")
        # What is no number at all is not between the two either.
        if seconds is not None and not (_is_number(seconds) and 0 <= seconds <= MAX_SECONDS):
            raise _Refused(400, f"timeout: give seconds, 0 to {MAX_SECONDS}, or null")
        self._backend.drain(seconds)
        return self._state()

    def _state(self) -> web.Response:
        return web.json_response({"state": self._backend.status()["state"]})

    # --- both ------------------------------------------------------------------------------------

    async def _answer(
        self, request: web.Request, act: Callable[[int], Awaitable[JobRecord]]
    ) -> web.Response:
        number = int(request.match_info["id"])
        try:
            record = await act(number)
        except KeyError:
            raise _Refused(404, f"there is no job {number}") from None
        return web.json_response(record.to_json())

    async def _change(self, request: web.Request, *known: str) -> dict[str, Any]:
        """The body of a request that changes something, of someone who may."""
        assert request.transport is not None
        peer = Peer.of(request.transport.get_extra_info("socket"))
        if not await asyncio.to_thread(peer.may_change):
            log.warning(
                f"{request.method} {request.path}", action=Action.CONTROL_REFUSED, user=peer.uid
            )
            raise _Refused(
                403,
                f"user {peer.uid} may look, but not change anything: that takes {who_may_change()}",
            )
        try:
            async with asyncio.timeout(BODY_SECONDS):
                body = await request.read()
        except TimeoutError:
            raise _Refused(408, f"the body has not come within {BODY_SECONDS:g} s") from None
        try:
            values = json.loads(body) if body.strip() else {}
        except (ValueError, RecursionError) as error:
            raise _Refused(400, f"the body is not JSON: {error}") from None
        if not isinstance(values, dict):
            raise _Refused(400, "the body is not a JSON object")
        log.info(f"{request.method} {request.path}", action=Action.CONTROL_REQUEST, user=peer.uid)
        return dict(_only(values, *known))

    @property
    def _speak_json(self) -> Any:
        @web.middleware
        async def speak_json(request: web.Request, handler: Handler) -> web.StreamResponse:
            try:
                return await handler(request)
            except _Refused as error:
                return _error(error.status, str(error))
            except FrescodError as error:  # not now, or not in this state
                return _error(409, str(error))
            except web.HTTPRequestEntityTooLarge:
                return _error(413, f"the body is larger than {MAX_BODY} bytes")
            except web.HTTPMethodNotAllowed as error:
                allowed = ", ".join(sorted(error.allowed_methods))
                text = f"{request.method} {request.path}: use {allowed}"
                return _error(405, text, {"Allow": allowed})
            except web.HTTPNotFound:
                return _error(404, f"{request.path}: there is nothing here; try /v1/status")
            except web.HTTPException as error:
                return _error(error.status, error.reason)
            except Exception as error:
                log.exception(f"{request.method} {request.path}", action=Action.CONTROL_REQUEST)
                return _error(500, f"internal error, see the log: {error!r}")

        return speak_json


async def _let_in() -> None:
    """Have connections that are just being accepted counted, so that they are closed as well."""
    for _ in range(5):
        await asyncio.sleep(0)


class _Refused(Exception):
    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def _error(status: int, text: str, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.json_response({"error": printable(text)}, status=status, headers=headers)


def _only(values: Mapping[str, Any], *known: str) -> Mapping[str, Any]:
    for key in values:
        if key not in known:
            hint = f"; known: {', '.join(known)}" if known else ""
            raise _Refused(400, f"{key!r} is not known here{hint}")
    return values


def _whole(key: str, text: str, most: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= _DIGITS and 1 <= int(text) <= most):
        raise _Refused(400, f"{key}: {text!r}: give a whole number, 1 to {most}")
    return int(text)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
