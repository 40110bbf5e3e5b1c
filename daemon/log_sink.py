"""Standard error, to which a log is written without ever waiting long for whoever reads it."""

import os
import select
import sys
import threading
from contextlib import suppress
from typing import TextIO

# Bytes that a pipe takes at once or not at all, when there is room.
_PIECE = select.PIPE_BUF
# Milliseconds that a reader may be behind, once: what comes after that is lost until it reads on.
PATIENCE = 50


class LogSink:
    """Takes lines for standard error; those that it cannot take are counted.

    Nobody may ever read what is written to a pipe or a terminal; whoever reads may be gone. Neither
    holds the daemon up or ends it. Thread-safe.

    Attributes:
        lost: lines that were not written since the last that was.
    """

    def __init__(self) -> None:
        self.lost = 0
        self._rest = b""  # of a line that was begun
        self._lock = threading.Lock()

    def write(self, line: str) -> None:
        """Write a line, its end included, as UTF-8; or count it."""
        with self._lock, suppress(OSError, ValueError):
            self.lost += 1
            if self._write(line.encode("utf-8", "backslashreplace")):
                self.lost = 0

    def flush(self) -> None:
        """Nothing is held back."""

    def _write(self, line: bytes) -> bool:
        stream: TextIO | None = sys.stderr
        if stream is None:  # the process was started without
            return False
        ours = stream is sys.__stderr__
        if not ours:  # moving lines of a terminal, or a test
            stream.write(line.decode())
            stream.flush()
            return True
        descriptor = stream.fileno()
        patience = PATIENCE if self.lost == 1 else 0
        try:
            self._rest = _send(descriptor, self._rest, patience)
            if self._rest:
                return False
            rest = _send(descriptor, line, patience)
        except OSError:
            self._rest = b""
            raise
        self._rest = rest if len(rest) < len(line) else b""
        return len(rest) < len(line)


def _send(descriptor: int, data: bytes, patience: int) -> bytes:
    """Write as much as can be written without waiting longer than that; what is left."""
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    while data and poll.poll(patience):
        try:
            data = data[os.write(descriptor, data[:_PIECE]) :]
        except BlockingIOError:
            break
    return data
