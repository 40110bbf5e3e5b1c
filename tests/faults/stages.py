"""Stages for tests: a worker calls the functions that it is sent as tasks.

A task is a `functools.partial`, called with the blocks and the report function at the end.
"""

import logging
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fresco_core.errors import ClipError
from io_pipeline.blocks import Block
from io_pipeline.worker import FatalError, OutOfDeviceMemory, Report

Blocks = tuple[Block, ...]
Task = Callable[[Blocks, Report], Any]


class Caller:
    memory: int | None = None

    def __init__(self) -> None:
        self.facts = {"pid": os.getpid()}

    def __call__(self, task: Task, blocks: Blocks, report: Report) -> Any:
        return task(blocks, report)


@dataclass(frozen=True)
class Calls:
    """Does ``first`` when it is loaded."""

    first: Task | None = None

    def load(self, report: Report) -> Caller:
        if self.first is not None:
            self.first((), report)
        return Caller()


class DetailedError(ClipError):
    """An error whose arguments are not those of its constructor."""

    def __init__(self, name: str, *, line: int) -> None:
        super().__init__(f"{name}, line {line}: what is wrong, what to do")
        self.line = line


def echo(value: Any, blocks: Blocks, report: Report) -> Any:
    return value


def environment(names: tuple[str, ...], blocks: Blocks, report: Report) -> list[str | None]:
    return [os.environ.get(name) for name in names]


def modules(blocks: Blocks, report: Report) -> set[str]:
    return set(sys.modules)


def resources(blocks: Blocks, report: Report) -> tuple[int, int]:
    """Open descriptors and mappings of blocks."""
    maps = Path("/proc/self/maps").read_text()
    return len(os.listdir("/proc/self/fd")), maps.count("memfd:frescod")


def fill(value: int, blocks: Blocks, report: Report) -> None:
    for block in blocks:
        block["a"][:] = value


def fill_first(value: int, blocks: Blocks, report: Report) -> None:
    """As the first to touch them: allocates."""
    for block in blocks:
        block.allocate()
    fill(value, blocks, report)


def steps(count: int, seconds: float, blocks: Blocks, report: Report) -> str:
    for i in range(count):
        time.sleep(seconds)
        report("step", i + 1, count)
    return "done"


def sleep(seconds: float, blocks: Blocks, report: Report) -> None:
    time.sleep(seconds)


def touch_and_sleep(path: Path, seconds: float, blocks: Blocks, report: Report) -> None:
    path.touch()
    time.sleep(seconds)


def keep_the_lock(blocks: Blocks, report: Report) -> None:
    """Busy for minutes in a call that never lets another thread run."""
    sum(range(10**11))


def hang_after(count: int, blocks: Blocks, report: Report) -> None:
    for i in range(count):
        time.sleep(0.05)
        report("step", i, count)
    time.sleep(600)


def hang_once(mark: Path, value: Any, blocks: Blocks, report: Report) -> Any:
    if not mark.exists():
        mark.touch()
        time.sleep(600)
    return value


def ignore_sigterm(blocks: Blocks, report: Report) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(60)


def die(number: int, blocks: Blocks, report: Report) -> None:
    os.kill(os.getpid(), number)
    time.sleep(60)


def leave(code: int, words: str, blocks: Blocks, report: Report) -> None:
    print(words, file=sys.stderr)
    os._exit(code)


def print_lines(count: int, blocks: Blocks, report: Report) -> None:
    for i in range(count):
        print(f"line {i} " + "x" * 90)


def die_once(mark: Path, value: Any, blocks: Blocks, report: Report) -> Any:
    """The first time, the process is killed."""
    if not mark.exists():
        mark.touch()
        die(signal.SIGKILL, blocks, report)
    return value


def wrong(blocks: Blocks, report: Report) -> None:
    raise ZeroDivisionError("first line\nsecond line")


def user_error(blocks: Blocks, report: Report) -> None:
    raise DetailedError("a.mp4", line=7)


def unsendable_error(blocks: Blocks, report: Report) -> None:
    error = ClipError("a.mp4: bad")
    error.handle = sys.stderr  # type: ignore[attr-defined]
    raise error


def out_of_memory(blocks: Blocks, report: Report) -> None:
    raise OutOfDeviceMemory("no memory on the device for a batch of 8")


def fatal(blocks: Blocks, report: Report) -> None:
    raise FatalError("the device is lost")


def unsendable_result(blocks: Blocks, report: Report) -> Any:
    return sys.stderr


def log(text: str, blocks: Blocks, report: Report) -> None:
    logging.getLogger("library").info("%s", text)
    report("step", 1, 1)
    warnings.warn("slow", UserWarning, stacklevel=2)
    logging.getLogger("library").debug("not told")


def chatter(seconds: float, blocks: Blocks, report: Report) -> None:
    """A thread that has much to say; the task makes no progress."""

    def talk() -> None:
        while True:
            logging.getLogger("library").info("still here")
            time.sleep(0.001)

    threading.Thread(target=talk, daemon=True, name="talker").start()
    time.sleep(seconds)


def take_device_memory(nbytes: int, blocks: Blocks, report: Report) -> None:
    Caller.memory = nbytes


def task(function: Callable[..., Any], *arguments: Any) -> Task:
    return partial(function, *arguments)
