"""The supervisor's end of an `io_pipeline.channel`: the loop's readers and writers, no threads.

A module of its own, because workers have no need of asyncio.
"""

import asyncio
import socket
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from io_pipeline.channel import ChannelClosed, End, Envelope, written


class AsyncChannel(End):
    """The end of an asyncio process: no call keeps the loop."""

    def __init__(self, end: socket.socket) -> None:
        super().__init__(end)
        end.setblocking(False)
        self._loop = asyncio.get_running_loop()
        self._messages: deque[Envelope] = deque()
        self._arrival: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self._ended = False
        self._loop.add_reader(end, self._readable)

    @property
    def waiting(self) -> bool:
        """Whether a message has come that nobody has received."""
        return bool(self._messages)

    async def send(self, message: Any, descriptors: Sequence[int] = ()) -> None:
        """Send a message; the descriptors stay the caller's.

        They are gone before the first wait, when the other end has taken all earlier messages.

        Raises:
            ChannelClosed: the other end is gone.
            Exception: whatever pickle raises for the message; nothing is sent then.
        """
        left, beside = written(message, descriptors), descriptors
        if self._ended:
            raise ChannelClosed
        while left:
            try:
                left, beside = self.send_some(left, beside), ()
            except BlockingIOError:
                await self._writable()

    async def receive(self) -> tuple[Any, list[int]]:
        """Wait for a message; its descriptors are the caller's to close.

        Raises:
            ChannelClosed: the other end is gone and all that it sent has been received.
            Exception: whatever unpickling raises; the next message can be received all the same.
        """
        while not self._messages:
            if self._ended:
                raise ChannelClosed
            self._arrival = self._loop.create_future()
            await self._arrival
        return self._messages.popleft().opened()

    def finish(self) -> None:
        """Close, but keep what has come so far to be received: the process behind it is dead."""
        while not self._ended:
            try:
                self._take()
            except BlockingIOError:
                self._end()
        super().close()

    def close(self) -> None:
        """Let go of the socket; what has not been received is dropped."""
        self._end()
        while self._messages:
            self._messages.popleft().discard()
        super().close()

    def _readable(self) -> None:
        with suppress(BlockingIOError):  # woken without data: possible, and no error
            self._take()

    def _take(self) -> None:
        if not self.receive_some():
            self._end()
            return
        while (envelope := self.complete()) is not None:
            self._messages.append(envelope)
        if self._messages:
            _wake(self._arrival)

    def _end(self) -> None:
        if not self._ended:
            self._ended = True
            self._loop.remove_reader(self.socket)
            self._loop.remove_writer(self.socket)
            _wake(self._arrival)
            _wake(self._room)

    async def _writable(self) -> None:
        if self._ended:
            raise ChannelClosed
        self._room = self._loop.create_future()
        self._loop.add_writer(self.socket, _wake, self._room)
        try:
            await self._room
        finally:
            if not self._ended:
                self._loop.remove_writer(self.socket)
        if self._ended:
            raise ChannelClosed


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)
