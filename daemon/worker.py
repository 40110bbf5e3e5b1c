"""A worker process as its supervisor sees it."""

import asyncio
import math
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from daemon.worker_process import WorkerProcess
from io_pipeline.blocks import Block
from io_pipeline.channel import ChannelClosed
from io_pipeline.records import Record
from io_pipeline.worker import Failed, FatalError, Progress, Stage, Task

OnProgress = Callable[[str, int, int], None]
"""Called with (phase, done, count)."""

OnRecord = Callable[["Worker", Record], None]
"""Called with a worker and what it logs; in the loop, where nothing may wait."""

LINGER = 1.0  # seconds that a process may live on without its socket
# A phase's time is watched in parts. One that ends so many seconds late was none in which this
# process could run: it, and its workers with it, or the whole machine had been stopped.
PARTS, TOO_LATE = 4, 1.0
# What a worker that is over its time gets, and for how many seconds it may go on after each.
ESCALATION = ((signal.SIGUSR1, 1.0), (signal.SIGTERM, 5.0), (signal.SIGKILL, math.inf))


class WorkerDied(Exception):
    """A worker's process ended before its task did.

    Attributes:
        reason: one line: how it ended, and the last it said.
        output: the last 64 KiB that it wrote to standard output and error.
    """

    def __init__(self, reason: str, output: str = "") -> None:
        super().__init__(reason, output)
        self.reason = reason
        self.output = output

    def __str__(self) -> str:
        return self.reason


class WorkerTimeout(WorkerDied):
    """A phase took longer than its deadline: the process was killed; `output` has its stacks."""


class Worker:
    """A process that loads a stage once and then does tasks, one at a time.

    Args:
        name: for messages and the process list.
        stage: what it does; see `io_pipeline.worker.Stage`.
        deadlines: seconds that a phase may last without progress. Phases are ``start`` (until the
            process is up), ``load``, ``task`` and those that the stage reports; a phase that has
            none gets that of ``task``.
        threads: of torch, OpenMP, BLAS and Numba in the process.
        environment: variables beside the supervisor's own.
        on_record: hears what the process logs while it loads its stage or does a task.

    A worker that has died can be started again.

    Attributes:
        facts: what the stage said of itself when it was ready.
        loaded: whether the process, which may have ended since, got as far as that.
        deaths: how often its process ended though nobody stopped it; ``on_death`` is called then.
        memory: bytes of a device's memory that the process has held at most; None: it uses none.
    """

    def __init__(
        self,
        name: str,
        stage: Stage,
        *,
        deadlines: Mapping[str, float],
        threads: int = 1,
        environment: Mapping[str, str] | None = None,
        on_record: OnRecord | None = None,
    ) -> None:
        self.name = name
        self.facts: Any = None
        self.memory: int | None = None
        self.loaded = False
        self.deaths = 0
        self.on_death: Callable[[], None] = lambda: None
        self._stage = stage
        self._deadlines = {"start": deadlines["task"], "load": deadlines["task"], **deadlines}
        self._threads = threads
        self._environment = environment or {}
        self._on_record = on_record
        self._process: WorkerProcess | None = None
        self._busy = False
        self._stopped = False
        self._late = ""  # what took too long
        self._timer: asyncio.Handle | None = None

    @property
    def pid(self) -> int | None:
        """The process, None before the first start."""
        return self._process.pid if self._process else None

    @property
    def alive(self) -> bool:
        """Whether its process runs."""
        return self._process is not None and not self._process.ended.done()

    @property
    def ready(self) -> bool:
        """Whether its process runs and has loaded the stage."""
        return self.alive and self.loaded

    @property
    def busy(self) -> bool:
        """Whether it loads its stage or does a task."""
        return self._busy

    @property
    def late(self) -> bool:
        """Whether it was killed because a phase made no progress."""
        return bool(self._late)

    @property
    def output(self) -> str:
        """The last 64 KiB that it wrote to standard output and error."""
        return self._process.output if self._process else ""

    @property
    def traffic(self) -> int:
        """Bytes that went through its socket, both ways, since it was last started."""
        if self._process is None:
            return 0
        return self._process.channel.bytes_sent + self._process.channel.bytes_received

    async def start(self) -> Any:
        """Start the process and load the stage; what the stage says of itself.

        Raises:
            WorkerDied: the process ended before it was ready, or the system has none to give.
            FrescodError, TaskError: what loading raised; the process has ended.
        """
        if self.alive:
            raise RuntimeError(f"{self.name} runs already")
        self._late, self._stopped, self.loaded, self.memory = "", False, False, None
        try:
            self._process = WorkerProcess(self.name, self._threads, self._environment)
        except OSError as error:
            raise WorkerDied(f"cannot be started: {error.strerror}") from error
        self._process.ended.add_done_callback(self._count_end)
        answer = await self._exchange(self._stage, (), "start", None)
        if isinstance(answer, Failed):
            await self._end_of_process()
            raise answer.error
        self.loaded = True
        self.facts, self.memory = answer.facts, answer.memory
        return self.facts

    async def run(
        self, task: Any, blocks: Sequence[Block] = (), on_progress: OnProgress | None = None
    ) -> Any:
        """Have a task done; its result. Cancelled, it kills the process.

        Raises:
            WorkerDied: the process ended before the task did.
            FrescodError, TaskError: what the task raised; after a FatalError the process has ended.
        """
        if self._busy:
            raise RuntimeError(f"{self.name} has a task already")
        if not self.alive:
            raise self._death()
        message = Task(task, tuple(block.layout for block in blocks))
        descriptors = [block.descriptor for block in blocks]
        answer = await self._exchange(message, descriptors, "task", on_progress)
        if isinstance(answer, Failed):
            if isinstance(answer.error, FatalError):
                await self._end_of_process()
            raise answer.error
        self.memory = answer.memory
        return answer.result

    async def stop(self, grace: float = 5.0) -> None:
        """End the process: ask, then SIGTERM, then SIGKILL, with ``grace`` seconds between."""
        if self._process is None:
            return
        self._stopped = True
        self._process.channel.close()
        for number in (None, signal.SIGTERM, signal.SIGKILL):
            if number is not None:
                self._process.send_signal(number)
            with suppress(TimeoutError):
                async with asyncio.timeout(grace):
                    await asyncio.shield(self._process.ended)
                    return

    def _count_end(self, ended: "asyncio.Future[None]") -> None:
        if not self._stopped:
            self.deaths += 1
            self.on_death()

    def kill(self) -> None:
        """End the process at once; `stop` waits until it is gone."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)

    async def _exchange(
        self,
        message: Any,
        descriptors: Sequence[int],
        phase: str,
        on_progress: OnProgress | None,
    ) -> Any:
        """Send a message and wait for its answer: `Ready`, `Done` or `Failed`."""
        assert self._process is not None
        channel = self._process.channel
        self._busy = True
        answered = False
        self._enter(phase)
        try:
            await channel.send(message, descriptors)
            while True:
                answer, _ = await channel.receive()
                if isinstance(answer, Record):
                    if self._on_record is not None:
                        self._on_record(self, answer)
                    continue
                if self._late:  # it is being killed
                    continue
                if isinstance(answer, Progress):
                    self._enter(answer.phase)
                    if on_progress is not None:
                        on_progress(answer.phase, answer.done, answer.count)
                else:
                    answered = True
                    return answer
        except ChannelClosed:
            await self._end_of_process()
            raise self._death() from None
        finally:
            self._busy = False
            if not answered:
                self.kill()
            self._leave()

    async def _end_of_process(self) -> None:
        """Wait for the end of a process that is about to end by itself."""
        assert self._process is not None
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER if not self._late else None):
                await asyncio.shield(self._process.ended)
        self.kill()
        await asyncio.shield(self._process.ended)

    def _death(self) -> WorkerDied:
        if self._process is None:
            return WorkerDied(f"{self.name} was never started")
        if self._stopped:
            return WorkerDied("stopped", self._process.output)
        if self._late:
            return WorkerTimeout(self._late, self._process.output)
        return WorkerDied(self._process.how_it_ended(), self._process.output)

    def _enter(self, phase: str, part: int = 1) -> None:
        """A phase begins, or goes on: its time starts anew, or its next part does."""
        self._leave()
        seconds = self._deadlines.get(phase, self._deadlines["task"])
        loop = asyncio.get_running_loop()
        due = loop.time() + seconds / PARTS
        self._timer = loop.call_at(due, self._pass, phase, part, due)

    def _leave(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _pass(self, phase: str, part: int, due: float, heard: bool = False) -> None:
        """A part of a phase's time is over; ``heard``: what had come until then was received."""
        assert self._process is not None
        loop = asyncio.get_running_loop()
        if loop.time() - due > TOO_LATE:  # it was we who had no time
            self._enter(phase)
        elif self._process.channel.waiting and not heard:  # perhaps progress, perhaps a record
            self._timer = loop.call_soon(self._pass, phase, part, due, True)
        elif part < PARTS:
            self._enter(phase, part + 1)
        else:
            seconds = self._deadlines.get(phase, self._deadlines["task"])
            self._late = f"{phase} made no progress in {seconds:g} s"
            self._escalate(0)

    def _escalate(self, step: int) -> None:
        assert self._process is not None
        number, seconds = ESCALATION[step]
        self._process.send_signal(number)
        if step + 1 < len(ESCALATION) and self.alive:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(seconds, self._escalate, step + 1)
