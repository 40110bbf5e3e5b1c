"""Messages and file descriptors between two processes, over one stream socket.

A message is a header (its length, how many descriptors belong to it) and a pickle; the descriptors
travel beside the header's first byte. Both ends trust each other: they are one program.
"""

import array
import errno
import os
import pickle
import socket
import struct
import threading
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

HEADER = struct.Struct("<QH")
CHUNK = 1 << 16  # bytes read at once
MAX_DESCRIPTORS = 253  # the kernel's limit for one message
_ANCILLARY = socket.CMSG_SPACE(MAX_DESCRIPTORS * array.array("i").itemsize)


class ChannelClosed(Exception):
    """The other end is gone: nothing more can be sent, or will come."""


class End:
    """One end's socket, and what of a message has come through it so far.

    `bytes_sent` and `bytes_received` count what went through the socket.
    """

    def __init__(self, end: socket.socket) -> None:
        self.socket = end
        self._buffer = bytearray()
        self._descriptors: deque[int] = deque()
        self.bytes_sent = 0
        self.bytes_received = 0

    def send_some(
        self, data: memoryview, descriptors: Sequence[int] = (), flags: int = 0
    ) -> memoryview:
        """Send what the socket takes now, the descriptors with the first byte; what is left."""
        rights = array.array("i", descriptors)
        beside = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if descriptors else []
        try:
            sent = self.socket.sendmsg([data], beside, flags)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise ChannelClosed from error
        self.bytes_sent += sent
        return data[sent:]

    def receive_some(self) -> bool:
        """Take what has come; False when the other end is gone."""
        try:
            data, beside, flags, _ = self.socket.recvmsg(CHUNK, _ANCILLARY, socket.MSG_CMSG_CLOEXEC)
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

    def complete(self) -> "Envelope | None":
        """The next message, if all of it has come."""
        if len(self._buffer) < HEADER.size:
            return None
        length, count = HEADER.unpack_from(self._buffer)
        end = HEADER.size + length
        if len(self._buffer) < end:
            return None
        content = bytes(memoryview(self._buffer)[HEADER.size : end])
        del self._buffer[:end]
        return Envelope(content, [self._descriptors.popleft() for _ in range(count)])

    def close(self) -> None:
        """Close the socket, and the descriptors that came with no whole message."""
        self.socket.close()
        while self._descriptors:
            os.close(self._descriptors.popleft())


class Envelope:
    """A message that has come but is not read yet."""

    def __init__(self, content: bytes, descriptors: list[int]) -> None:
        self._content = content
        self._descriptors = descriptors

    def opened(self) -> tuple[Any, list[int]]:
        """The message and its descriptors; raises what unpickling raises."""
        try:
            return pickle.loads(self._content), self._descriptors
        except BaseException:
            self.discard()
            raise

    def discard(self) -> None:
        """Close the descriptors that came with it."""
        for descriptor in self._descriptors:
            os.close(descriptor)


def written(message: Any, descriptors: Sequence[int]) -> memoryview:
    """The bytes of a message."""
    if len(descriptors) > MAX_DESCRIPTORS:
        raise ValueError(f"{len(descriptors)} descriptors with one message, {MAX_DESCRIPTORS} go")
    content = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    return memoryview(HEADER.pack(len(content), len(descriptors)) + content)


class Channel(End):
    """The end of a process that has nothing else to do: every call waits, except `offer`.

    Threads may share it.
    """

    def __init__(self, end: socket.socket) -> None:
        super().__init__(end)
        self._sending = threading.Lock()
        self._offers: deque[memoryview] = deque()

    def send(self, message: Any, descriptors: Sequence[int] = ()) -> None:
        """Send a message; the descriptors stay the caller's.

        Raises:
            ChannelClosed: the other end is gone.
            Exception: whatever pickle raises for the message; nothing is sent then.
        """
        data = written(message, descriptors)
        with self._sending:
            self._send_offers()  # they came first
            self._finish(self.send_some(data, descriptors))
        self._settle()

    def offer(self, message: Any) -> None:
        """Send a message where there is room for it; else, or when nobody is there, drop it.

        May be called anywhere, even where a `send` of the same thread is interrupted.
        """
        self._offers.append(written(message, ()))
        with suppress(ChannelClosed):
            self._settle()

    def _settle(self) -> None:
        # Who finds the lock taken leaves what it offers to whoever has it.
        while self._offers and self._sending.acquire(blocking=False):
            try:
                self._send_offers()
            finally:
                self._sending.release()

    def _send_offers(self) -> None:
        while self._offers:
            data = self._offers.popleft()
            with suppress(BlockingIOError):
                self._finish(self.send_some(data, flags=socket.MSG_DONTWAIT))

    def _finish(self, left: memoryview) -> None:
        while left:
            left = self.send_some(left)

    def receive(self) -> tuple[Any, list[int]]:
        """Wait for a message; its descriptors are the caller's to close.

        Raises:
            ChannelClosed: the other end is gone, perhaps in mid-message.
            Exception: whatever unpickling raises; the next message can be received all the same.
        """
        while (envelope := self.complete()) is None:
            if not self.receive_some():
                raise ChannelClosed
        return envelope.opened()
