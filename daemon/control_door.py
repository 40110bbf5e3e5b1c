"""Who is let in at the control's listening sockets, how many at a time, and for how long."""

import asyncio
import socket
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from daemon.control_socket import Peer

MAX_STRANGERS = 100
MAX_OF_ONE = 20  # connections of one user who may only look
MAX_TRUSTED = 200
IDLE_SECONDS = 10.0


@dataclass
class _Guest:
    """A connection; ``idle_since`` is None while a request is in work."""

    transport: asyncio.Transport
    peer: Peer | None
    idle_since: float | None


class Door:
    """Makes the protocols of connections, as `asyncio.loop.create_server` asks for them.

    Nobody can use up the descriptors that windows travel by, or keep others out: connections that
    are too many are cut, and those without a request after ``IDLE_SECONDS``. Those who may change
    things count for themselves.
    """

    def __init__(self, server: web.Server) -> None:
        self._server = server
        self._guests: dict[Any, _Guest] = {}  # by aiohttp's protocol

    def __call__(self) -> asyncio.Protocol:
        return _Entrance(self)

    def enter(self, transport: asyncio.BaseTransport) -> None:
        """A connection has come: hand it to the server, or cut it."""
        assert isinstance(transport, asyncio.Transport)
        connection = transport.get_extra_info("socket")
        peer = Peer.of(connection) if connection.family == socket.AF_UNIX else None
        if not self._has_room(peer):
            return transport.abort()
        handler = self._server()
        self._guests[handler] = _Guest(transport, peer, asyncio.get_running_loop().time())
        transport.set_protocol(handler)
        handler.connection_made(transport)

    def busy(self, request: web.BaseRequest, is_busy: bool) -> None:
        """A request has come whole, or was answered."""
        if (guest := self._guests.get(request.protocol)) is not None:
            guest.idle_since = None if is_busy else asyncio.get_running_loop().time()

    async def watch(self) -> None:
        """Cut connections that ask for nothing, until cancelled."""
        while True:
            await asyncio.sleep(IDLE_SECONDS / 4)
            self._forget()
            until = asyncio.get_running_loop().time() - IDLE_SECONDS
            for guest in self._guests.values():
                if guest.idle_since is not None and guest.idle_since < until:
                    guest.transport.abort()  # also where an answer is not fetched

    def _has_room(self, peer: Peer | None) -> bool:
        self._forget()
        inside = [guest.peer for guest in self._guests.values()]
        if peer is None:
            return len(inside) < MAX_STRANGERS
        if peer.is_trusted:
            return sum(each is not None and each.is_trusted for each in inside) < MAX_TRUSTED
        strangers = [each.uid for each in inside if each is not None and not each.is_trusted]
        return len(strangers) < MAX_STRANGERS and strangers.count(peer.uid) < MAX_OF_ONE

    def _forget(self) -> None:
        """Those that have gone."""
        there = set(self._server.connections)
        for handler in self._guests.keys() - there:
            del self._guests[handler]


class _Entrance(asyncio.Protocol):
    """Until it is known who has come."""

    def __init__(self, door: Door) -> None:
        self._door = door

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._door.enter(transport)
