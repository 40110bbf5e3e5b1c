"""Readers: a process for every open clip, because decoders hang and abort on some files."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from daemon.workers import OnRecord, Worker, WorkerDied, WorkerTimeout
from fresco_core.errors import ClipError, FrescodError
from io_pipeline.blocks import Block
from io_pipeline.control_source import ControlFile
from io_pipeline.options import KeyFrameOptions
from io_pipeline.plan import ClipPlan
from io_pipeline.tasks import ClipSize, MeasureClip, OpenClip, PlanClip, ReadWindow
from io_pipeline.window import Window
from io_pipeline.worker import Stage, TaskError

MEASURE = 10.0  # seconds for a header
_PAUSES = (0.5, 2.0, 8.0)  # seconds after a start that failed
# How a reader's task is run: with a core, and in the timeline.
Run = Callable[[Worker, Any, tuple[Block, ...]], Awaitable[Any]]


class Readers:
    """Reader processes, started when needed and used again: `workers` are all of them."""

    def __init__(
        self,
        stage: Stage,
        decoder: str,
        *,
        deadlines: Mapping[str, float],
        on_record: OnRecord | None = None,
    ) -> None:
        self._stage = stage
        self._decoder = decoder
        self._deadlines = deadlines
        self._on_record = on_record
        self._idle: list[Worker] = []
        self.workers: list[Worker] = []

    @asynccontextmanager
    async def open(
        self, clip: Path, run: Run, on_warning: Callable[[str], None] = lambda text: None
    ) -> AsyncIterator["Reader"]:
        """A reader for one clip."""
        # One whose clip has failed may still be busy with it: what it does cannot be taken back.
        free = [worker for worker in self._idle if not worker.busy]
        if free:
            worker = free[-1]
            self._idle.remove(worker)
        else:
            name = f"reader {len(self.workers) + 1}"
            worker = Worker(name, self._stage, deadlines=self._deadlines, on_record=self._on_record)
            self.workers.append(worker)
        try:
            yield Reader(worker, clip, self._decoder, run, on_warning)
        finally:
            self._idle.append(worker)

    async def close(self) -> None:
        """Stop all."""
        await asyncio.gather(*(worker.stop() for worker in self.workers))


class Reader:
    """Reads one clip; where a decoder takes its process with it, with the other decoder."""

    def __init__(
        self,
        worker: Worker,
        clip: Path,
        decoder: str,
        run: Run,
        on_warning: Callable[[str], None],
    ) -> None:
        self._worker = worker
        self._clip = clip
        self._decoder = decoder
        self._run = run
        self._warn = on_warning
        self._next: int | None = None  # the window that the open clip delivers next

    async def measure(self) -> ClipSize:
        """Frames and pixels by the header; zeros where nothing can be said."""
        try:
            async with asyncio.timeout(MEASURE):  # then it is killed
                size: ClipSize = await self._do(MeasureClip(self._clip))
        except (WorkerDied, FrescodError, TaskError, TimeoutError):
            return ClipSize(0, 0)
        return size

    async def plan(
        self,
        options: KeyFrameOptions,
        controls: tuple[ControlFile, ...] = (),
        kinds: tuple[str, ...] = (),
    ) -> ClipPlan:
        """One pass over the clip, which finds its key frames; arguments as of `PlanClip`.

        Raises:
            ClipError: it cannot be read.
        """
        first = self._decoder
        second = "pyav" if first == "decord" else "decord-only"
        plan: ClipPlan = await self._either(
            lambda decoder: [PlanClip(self._clip, decoder, options, controls, kinds)],
            (first, second),
            (),
        )
        self._next = 0
        return plan

    async def read(self, plan: ClipPlan, window: Window, block: Block) -> None:
        """Fill the window's frames. Windows come in order; some may be left out.

        Raises:
            ClipError: it cannot be read.
            BlockError: there is no memory for the block.
        """
        engine = plan.info.engine
        engines = (engine, "pyav" if engine == "decord" else "decord")

        def tasks(engine: str) -> list[Any]:
            read = ReadWindow(window)
            if self._next == window.index:
                return [read]
            again = plan if engine == plan.info.engine else plan.read_with(engine)
            return [OpenClip(again, window.index), read]

        await self._either(tasks, engines, (block,))
        self._next = window.index + 1

    async def _either(
        self, tasks: Callable[[str], list[Any]], decoders: tuple[str, str], blocks: Any
    ) -> Any:
        """Try one decoder, again after a death that may have had another cause, then the other."""
        first, second = decoders
        tries = [first, first, second]
        deaths: list[str] = []
        while tries:
            decoder = tries.pop(0)
            try:
                for task in tasks(decoder):
                    result = await self._do(task, blocks if isinstance(task, ReadWindow) else ())
            except WorkerDied as death:
                self._next = None
                deaths.append(death.reason)
                self._warn(f"{self._worker.name}: {death.reason}; read again")
                if isinstance(death, WorkerTimeout):
                    tries = [other for other in tries if other != decoder]
                continue
            if decoder == second:
                self._warn("read with another decoder")
            return result
        raise ClipError(
            f"{self._clip}: no decoder can read it ({deaths[-1]}); copy it again or re-encode it"
        )

    async def _do(self, task: Any, blocks: tuple[Block, ...] = ()) -> Any:
        if not self._worker.alive:
            await self._start()
        return await self._run(self._worker, task, blocks)

    async def _start(self) -> None:
        """Start the process; that it cannot be started is not the clip's fault.

        Raises:
            FrescodError: not in several tries.
        """
        for pause in _PAUSES:
            try:
                await self._worker.start()
                return
            except WorkerDied as death:
                reason = death.reason
            await asyncio.sleep(pause)
        raise FrescodError(f"no process to read {self._clip} can be had: {reason}")
