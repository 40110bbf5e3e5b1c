"""A worker's process as the supervisor's loop watches it."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack

from daemon.async_channel import AsyncChannel

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMBA_NUM_THREADS",
)
OUTPUT_KEPT = 1 << 16  # bytes of what a worker wrote last


class WorkerProcess:
    """A child process: its socket, what it writes, and its end, all watched by the loop.

    To be made in the main thread: the child is killed when the thread that made it ends.

    Raises:
        OSError: no descriptor, process or memory is left; nothing of it is.

    Attributes:
        pid: of the process.
        channel: to it; what came before its end can be received after it.
        ended: done when it has ended, and is no zombie any more.
    """

    def __init__(self, name: str, threads: int, environment: Mapping[str, str]) -> None:
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = self._loop.create_future()
        self._written = bytearray()
        with ExitStack() as undo:
            ours, theirs = socket.socketpair()
            undo.callback(ours.close)
            with theirs:
                self._output, output = os.pipe()
                undo.callback(os.close, self._output)
                try:
                    self._process = self._spawn(name, theirs.fileno(), output, threads, environment)
                finally:
                    os.close(output)
            undo.callback(self._process.wait)
            undo.callback(self._process.kill)
            self._descriptor = os.pidfd_open(self._process.pid)
            undo.pop_all()
        self.pid = self._process.pid
        self.channel = AsyncChannel(ours)
        os.set_blocking(self._output, False)
        self._loop.add_reader(self._output, self._read_output)
        self._loop.add_reader(self._descriptor, self._end)

    @staticmethod
    def _spawn(
        name: str, end: int, output: int, threads: int, environment: Mapping[str, str]
    ) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-P", "-u", "-m", "io_pipeline.worker"]
        # Blocked until the child ignores it: a Ctrl-C at this moment is for the supervisor only.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            return subprocess.Popen(
                [*command, str(end), name],
                pass_fds=[end],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=os.environ
                | {"PYTHONPATH": _module_path()}
                | dict.fromkeys(THREAD_VARIABLES, str(threads))
                | dict(environment),
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    @property
    def output(self) -> str:
        """The last it wrote."""
        return self._written.decode(errors="replace")

    def send_signal(self, number: signal.Signals) -> None:
        """Nothing happens when it has ended."""
        if not self.ended.done():
            self._process.send_signal(number)

    def how_it_ended(self) -> str:
        """One line: exit code or signal, and what it said at the end where that may be why."""
        code = self._process.returncode
        if code >= 0:
            how = f"exit code {code}"
        else:
            try:
                how = f"killed by {signal.Signals(-code).name}"
            except ValueError:
                how = f"killed by signal {-code}"
        by_another = -code in (signal.SIGKILL, signal.SIGTERM)  # of which it knew nothing
        said = "" if by_another else _last_words(self.output)
        return f"{how}: {said}" if said else how

    def _read_output(self) -> bool:
        """Keep what it has written; False when there is no more."""
        try:
            data = os.read(self._output, OUTPUT_KEPT)
        except BlockingIOError:
            return False
        self._written += data
        del self._written[:-OUTPUT_KEPT]
        if not data:
            self._loop.remove_reader(self._output)
        return bool(data)

    def _end(self) -> None:
        self._process.wait()
        while self._read_output():
            pass
        self._loop.remove_reader(self._output)
        self._loop.remove_reader(self._descriptor)
        os.close(self._output)
        os.close(self._descriptor)
        self.channel.finish()
        self.ended.set_result(None)


def _module_path() -> str:
    """Where this process finds modules, for a child to find the same."""
    return os.pathsep.join(folder or os.getcwd() for folder in sys.path)


def _last_words(output: str) -> str:
    """The line of a process's output that says best why it ended."""
    lines = [line.strip() for line in output.splitlines() if line[:1].strip()]
    fatal = [line for line in lines if line.startswith("Fatal Python error: ")]
    return (fatal or lines or [""])[-1]
