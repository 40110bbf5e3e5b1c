"""Messages and file descriptors between two processes, over one stream socket.

A message is a header (its length, how many descriptors belong to it) and a pickle; the descriptors
travel beside the header's first byte. Both ends trust each other: they are one program.
"""

import array
import asyncio
import errno
import os
import pickle
import socket
import struct
from collections import deque
from collections.abc import Sequence
from typing import Any

HEADER = struct.Struct("<QH")
CHUNK = 1 << 16  # bytes read at once
MAX_DESCRIPTORS = 253  # the kernel's limit for one message
_ANCILLARY = socket.CMSG_SPACE(MAX_DESCRIPTORS * array.array("i").itemsize)


class ChannelClosed(Exception):
    """The other end is gone: nothing more can be sent, or will come."""


class _End:
    """One end's socket, and what of a message has come through it so far."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._buffer = bytearray()
        self._descriptors: deque[int] = deque()
        self.bytes_sent = 0
        self.bytes_received = 0

    def _send_some(self, data: memoryview, descriptors: Sequence[int] = ()) -> memoryview:
        """Send what the socket takes now, the descriptors with the first byte; what is left."""
        rights = array.array("i", descriptors)
        beside = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if descriptors else []
        try:
            sent = self._socket.sendmsg([data], beside)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise ChannelClosed from error
        self.bytes_sent += sent
        return data[sent:]

    def _receive_some(self) -> bool:
        """Take what has come; False when the other end is gone."""
        try:
            data, beside, flags, _ = self._socket.recvmsg(
                CHUNK, _ANCILLARY, socket.MSG_CMSG_CLOEXEC
            )
        except ConnectionResetError:
            return False
        for level, kind, content in beside:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                rights = array.array("i")
                rights.frombytes(content[: len(content) - len(content) % rights.itemsize])
                self._descriptors.extend(rights)
        if flags & socket.MSG_CTRUNC:  # the kernel has dropped what found no room in our table
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        self._buffer += data
        self.bytes_received += len(data)
        return bool(data)

    def _complete(self) -> "_Envelope | None":
        """The next message, if all of it has come."""
        if len(self._buffer) < HEADER.size:
            return None
        length, count = HEADER.unpack_from(self._buffer)
        end = HEADER.size + length
        if len(self._buffer) < end:
            return None
        content = bytes(memoryview(self._buffer)[HEADER.size : end])
        del self._buffer[:end]
        return _Envelope(content, [self._descriptors.popleft() for _ in range(count)])

    def _close(self) -> None:
        self._socket.close()
        while self._descriptors:
            os.close(self._descriptors.popleft())


class _Envelope:
    """A message that has come but is not read yet."""

    def __init__(self, content: bytes, descriptors: list[int]) -> None:
        self._content = content
        self._descriptors = descriptors

    def opened(self) -> tuple[Any, list[int]]:
        try:
            return pickle.loads(self._content), self._descriptors
        except BaseException:
            self.discard()
            raise

    def discard(self) -> None:
        for descriptor in self._descriptors:
            os.close(descriptor)


def _written(message: Any, descriptors: Sequence[int]) -> memoryview:
    if len(descriptors) > MAX_DESCRIPTORS:
        raise ValueError(f"{len(descriptors)} descriptors with one message, {MAX_DESCRIPTORS} go")
    content = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    return memoryview(HEADER.pack(len(content), len(descriptors)) + content)


class Channel(_End):
    """The end of a process that has nothing else to do: every call waits.

    `bytes_sent` and `bytes_received` count what went through the socket.
    """

    def send(self, message: Any, descriptors: Sequence[int] = ()) -> None:
        """Send a message; the descriptors stay the caller's.

        Raises:
            ChannelClosed: the other end is gone.
            Exception: whatever pickle raises for the message; nothing is sent then.
        """
        left = self._send_some(_written(message, descriptors), descriptors)
        while left:
            left = self._send_some(left)

    def receive(self) -> tuple[Any, list[int]]:
        """Wait for a message; its descriptors are the caller's to close.

        Raises:
            ChannelClosed: the other end is gone, perhaps in mid-message.
            Exception: whatever unpickling raises; the next message can be received all the same.
        """
        while (envelope := self._complete()) is None:
            if not self._receive_some():
                raise ChannelClosed
        return envelope.opened()

    def close(self) -> None:
        self._close()


class AsyncChannel(_End):
    """The end of an asyncio process, with its loop's readers and writers, without threads.

    `bytes_sent` and `bytes_received` count what went through the socket.
    """

    def __init__(self, end: socket.socket) -> None:
        super().__init__(end)
        end.setblocking(False)
        self._loop = asyncio.get_running_loop()
        self._messages: deque[_Envelope] = deque()
        self._arrival: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self._ended = False
        self._loop.add_reader(end, self._readable)

    @property
    def waiting(self) -> bool:
        """Whether a message has come that nobody has received."""
        return bool(self._messages)

    async def send(self, message: Any, descriptors: Sequence[int] = ()) -> None:
        """Send a message; the descriptors stay the caller's, and are sent before the first wait.

        Raises:
            ChannelClosed: the other end is gone.
            Exception: whatever pickle raises for the message; nothing is sent then.
        """
        data = _written(message, descriptors)
        if self._ended:
            raise ChannelClosed
        left = data
        try:
            left = self._send_some(data, descriptors)
        except BlockingIOError:
            if descriptors:  # only for one who sends before the last message was taken
                await self._writable()
                left = self._send_some(data, descriptors)
        while left:
            await self._writable()
            left = self._send_some(left)

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
        self._close()

    def close(self) -> None:
        """Let go of the socket; what has not been received is dropped."""
        self._end()
        while self._messages:
            self._messages.popleft().discard()
        self._close()

    def _readable(self) -> None:
        # a wake-up without data is possible, and is no error
        try:
            self._take()
        except BlockingIOError:
            return

    def _take(self) -> None:
        if not self._receive_some():
            self._end()
            return
        while (envelope := self._complete()) is not None:
            self._messages.append(envelope)
        if self._messages:
            _wake(self._arrival)

    def _end(self) -> None:
        if not self._ended:
            self._ended = True
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            _wake(self._arrival)
            _wake(self._room)

    async def _writable(self) -> None:
        if self._ended:
            raise ChannelClosed
        self._room = self._loop.create_future()
        self._loop.add_writer(self._socket, _wake, self._room)
        try:
            await self._room
        finally:
            if not self._ended:
                self._loop.remove_writer(self._socket)
        if self._ended:
            raise ChannelClosed


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)
