"""The child's side of a worker process: ``python -m io_pipeline.worker DESCRIPTOR NAME``.

The descriptor is one end of a socket pair. The first message through it is a `Stage`, which is
loaded; then come tasks, one at a time, each answered by any number of `Progress` messages and one
`Done` or `Failed`. A `Record` of what it logs may come at any time. Nothing heavy is imported here:
a worker has only what its stage needs.
"""

import ctypes
import faulthandler
import os
import pickle
import select
import signal
import socket
import struct
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from fresco_core.errors import FrescodError
from io_pipeline.channel import Channel, ChannelClosed
from io_pipeline.records import capture

if TYPE_CHECKING:
    from io_pipeline.blocks import Block, Layout

Report = Callable[[str, int, int], None]
"""Tell how far a task is: phase, done, count. Restarts the phase's deadline. Main thread only."""

_PR_SET_PDEATHSIG = 1


class Handler(Protocol):
    """A stage that is loaded: does tasks one after the other, in the process's main thread.

    One that works on a device may have a ``memory``: bytes of the device's that the process has
    held at most.
    """

    facts: Any  # what the supervisor is told with the ready message

    def __call__(self, task: Any, blocks: "tuple[Block, ...]", report: Report) -> Any:
        """Do a task; blocks are closed when it returns.

        What it returns or raises travels to the supervisor, which imports no torch: a
        FrescodError as it is, any other error as a `TaskError`.
        """


class Stage(Protocol):
    """What a worker does: a small picklable description of it."""

    def load(self, report: Report) -> Handler:
        """Called once in the worker: loads models, sets numbers of threads."""


class FatalError(FrescodError):
    """The process that raised this cannot do another task, and ends once it has said so."""


class OutOfDeviceMemory(FatalError):
    """A device has no memory for the task; a smaller one may do, in a fresh process."""


class NoMemoryToPropagate(FrescodError):
    """A device has no memory for segments; the process goes on, and translates as before."""


class TaskError(Exception):
    """An error in a worker that is nobody's but the program's.

    Attributes:
        type_name: name of the error's class.
        message: its first line.
        trace: the worker's traceback.
    """

    def __init__(self, type_name: str, message: str, trace: str) -> None:
        super().__init__(type_name, message, trace)
        self.type_name = type_name
        self.message = message
        self.trace = trace

    @classmethod
    def of(cls, error: Exception) -> "TaskError":
        trace = "".join(traceback.format_exception(error))
        return cls(type(error).__name__, str(error).partition("\n")[0], trace)

    def __str__(self) -> str:
        return f"{self.type_name}: {self.message}"


@dataclass(frozen=True)
class Task:
    """A task, and the layouts of the blocks whose descriptors come with it."""

    task: Any
    layouts: "tuple[Layout, ...]"


@dataclass(frozen=True)
class Ready:
    """The stage is loaded; ``memory`` of the handler."""

    facts: Any
    memory: int | None = None


@dataclass(frozen=True)
class Progress:
    """How far a task is, or the loading of a stage."""

    phase: str
    done: int
    count: int


@dataclass(frozen=True)
class Done:
    """A task's result; ``memory`` of the handler."""

    result: Any
    memory: int | None = None


@dataclass(frozen=True)
class Failed:
    """A task's error, or that of loading."""

    error: FrescodError | TaskError

    def __reduce__(self) -> tuple[Any, ...]:
        # not through the error's __init__, whose arguments need not be those of the error
        error = self.error
        return _failed, (type(error), error.args, vars(error))


def _failed(
    kind: type[FrescodError | TaskError], args: tuple[Any, ...], state: dict[str, Any]
) -> Failed:
    error = kind.__new__(kind, *args)
    vars(error).update(state)
    return Failed(error)


def serve(channel: Channel) -> None:
    """Load the stage that comes through the channel, then do tasks until it is closed.

    Raises:
        ChannelClosed: the supervisor wants no more.
    """

    def report(phase: str, done: int, count: int) -> None:
        channel.send(Progress(phase, done, count))

    try:
        stage, _ = channel.receive()
        report("load", 0, 1)
        handler = stage.load(report)
        channel.send(Ready(getattr(handler, "facts", None), _memory(handler)))
    except ChannelClosed:
        raise
    except Exception as error:
        _send_failure(channel, error)
        return
    del stage
    while True:
        try:
            result = _result(handler, channel, report)
            channel.send(Done(result, _memory(handler)))
            del result
        except ChannelClosed:
            raise
        except Exception as error:
            _send_failure(channel, error)
            if isinstance(error, FatalError):
                return


def _result(handler: Handler, channel: Channel, report: Report) -> Any:
    """The result of the next task."""
    task, descriptors = channel.receive()
    if not descriptors:
        return handler(task.task, (), report)
    from io_pipeline.blocks import Block

    with ExitStack() as held:
        pairs = zip(descriptors, task.layouts, strict=True)
        blocks = tuple(held.enter_context(Block.attach(*pair)) for pair in pairs)
        return handler(task.task, blocks, report)


def _memory(handler: Handler) -> int | None:
    return getattr(handler, "memory", None)


def _send_failure(channel: Channel, error: Exception) -> None:
    if isinstance(error, FrescodError):
        with suppress(TypeError, AttributeError, pickle.PicklingError):
            channel.send(Failed(error))
            return
    channel.send(Failed(TaskError.of(error)))


def end_with_the_supervisor(end: socket.socket) -> None:
    """See to it that this process does not outlive the one at the socket's other end."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    credentials = end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    creator, _, _ = struct.unpack("3i", credentials)
    if os.getppid() != creator:  # it died before the call above
        os._exit(1)
    threading.Thread(target=_end_on_hang_up, args=(end.fileno(),), daemon=True).start()


def _end_on_hang_up(descriptor: int) -> NoReturn:
    # also while the main thread is busy; one that keeps the interpreter's lock gets a signal
    poll = select.poll()
    poll.register(descriptor, select.POLLRDHUP)
    poll.poll()
    os._exit(0)


def main(descriptor: int) -> NoReturn:
    """Be a worker. Never returns: libraries may hang when the interpreter is taken down."""
    # Ctrl-C goes to the whole process group; what comes of it is the supervisor's to say. It has
    # blocked the signal until here.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1)
    os.set_inheritable(descriptor, False)
    end = socket.socket(fileno=descriptor)
    end_with_the_supervisor(end)
    code = 0
    try:
        channel = Channel(end)
        capture(channel.offer)
        serve(channel)
    except ChannelClosed:
        pass
    except BaseException:
        traceback.print_exc()
        code = 1
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


if __name__ == "__main__":
    # under its own name, so that stages find the same classes when they import it
    from io_pipeline import worker

    worker.main(int(sys.argv[1]))
