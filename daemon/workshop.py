"""What clips are made with: readers, CPU pool, devices, cores and memory; who used it when.

Every method is one step of a window: it waits for what the step needs, has a worker do it, and
gives everything back.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, TypeVar

from daemon.actions import Action
from daemon.ahead import Ahead, fitting
from daemon.assignments import Assignments, OnProgress
from daemon.budget import Budget
from daemon.devices import Device, Devices
from daemon.memory import Account, Memory
from daemon.printable import printable
from daemon.propagation import Propagation
from daemon.readers import Reader, Readers
from daemon.runner import PUBLISH, READ, Runner
from daemon.segments import Left
from daemon.setbacks import Setbacks
from daemon.stages import map_options, translation_options
from daemon.timeline import Timeline
from daemon.work import ClipWork, WindowWork
from daemon.workers import Worker, WorkerPool
from daemon.workshop_options import WorkshopOptions
from fresco_core.errors import FrescodError
from io_pipeline import checkpoint
from io_pipeline.blocks import Block, BlockError
from io_pipeline.tasks import (
    FindFlows,
    LoadCheckpoint,
    PublishClip,
    PublishWindow,
    SaveCheckpoint,
    Translated,
    TranslateWindow,
)
from io_pipeline.window import BY_CPU, Window
from io_pipeline.writing import DiskFullError

# Seconds between two tries for memory or disk space: the first ones, and the most there may be.
# Whole windows are encoded in vain where the disk is full.
_AGAIN, _SELDOM = 2.0, 60.0

T = TypeVar("T")
OnWarning = Callable[[str, Action], None]


class Workshop:
    """Readers, CPU pool and devices behind one method for each step.

    ``on_warning(text)`` hears what the user should know, ``on_details(text)`` where a process stood
    that made no progress.
    """

    def __init__(
        self,
        readers: Readers,
        pool: WorkerPool,
        devices: Devices,
        cores: Budget,
        memory: Memory,
        timeline: Timeline,
        options: WorkshopOptions,
        on_warning: OnWarning,
        on_start: Callable[[], None] = lambda: None,
        on_details: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.readers = readers
        self.pool = pool
        self.devices = devices
        self.cores = cores
        self.memory = memory
        self.timeline = timeline
        self.options = options
        self._on_warning = on_warning
        self._on_start = on_start
        self._starting: asyncio.Future[None] | None = None
        self._windows: dict[WindowWork, Account] = {}
        self._runner = Runner(cores, timeline)
        self.assignments = Assignments(
            devices,
            memory,
            self._runner,
            threads=options.device_threads,
            attempts=options.attempts,
            on_warning=self.warn,
            on_details=on_details,
        )
        self.ahead = Ahead(self._cpu)
        self.propagation = Propagation(
            devices,
            self._runner,
            cores=cores.total,
            limit=options.segments,
            side=options.propagation_device,
            memory=options.propagation_memory,
            setbacks=Setbacks(options.attempts, self.assignments.charge, self.warn),
            on_cpu=self._cpu,
            on_warning=self.warn,
        )
        self.assignments.turn = self.propagation.turn
        self.assignments.on_translated = self.propagation.translated
        devices.loading = lambda name: timeline.wait(self._runner.track(name, "device"), "loading")
        for device in devices.all:
            self._runner.track(device.name, "device")
        for worker in pool.workers:
            self._runner.track(worker.name, "cpu")

    # --- prepare ---------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start the devices, once there is a clip for them.

        Raises:
            FrescodError: it cannot be; this is the devices' `failure` from then on.
        """
        if self._starting is None:
            self._starting = asyncio.ensure_future(self._start())
        await asyncio.shield(self._starting)

    async def _start(self) -> None:
        try:
            await asyncio.to_thread(self._on_start)
        except FrescodError as error:
            self.devices.failure = error
            raise
        self.devices.start()

    def reader(
        self, clip: ClipWork, on_progress: OnProgress
    ) -> AbstractAsyncContextManager[Reader]:
        """A reader for the clip."""

        async def run(worker: Worker, task: Any, blocks: tuple[Block, ...]) -> Any:
            priority = (READ, clip.number)

            async def read(begin: Callable[[Worker], None]) -> Any:
                begin(worker)
                return await worker.run(task, blocks, on_progress)

            return await self._runner.use(clip, "prepare", priority, 1, read)

        source = clip.source or clip.job.clip
        return self.readers.open(source, run, lambda text: self.warn(clip, text))

    async def read(self, clip: ClipWork, reader: Reader, window: Window) -> WindowWork:
        """A window's frames in a new block, and what the CPU pool does for it ahead begun."""
        translated = window.index in clip.translated
        window = fitting(window, self.memory.total // 2, matched=not translated)
        layout = window.layout()
        self.memory.check(layout.nbytes, clip.job.clip)
        clip.blocked = "memory"

        def on_wait() -> None:  # what it waits for may be held by clips that wait for a device
            self.devices.forget(clip.number)
            self.propagation.look()

        with self._runner.wait("memory", clip):
            await self.memory.acquire(clip.account, layout.nbytes, on_wait)
        try:
            work = WindowWork(window, Block.create(layout))
        except BlockError:
            self.memory.release(clip.account, layout.nbytes)
            raise
        clip.windows.add(work)
        self._windows[work] = clip.account
        clip.blocked = "frames"
        while True:
            hope = self._memory_comes(clip, work)
            try:
                await reader.read(clip.plan, window, work.block)
                break
            except BlockError:  # the machine has less than was granted
                if not hope and not self._memory_comes(clip, work):
                    raise
                self.warn(clip, "the machine has less memory than prefetch.memory: waiting for it")
                clip.blocked = "memory"
                on_wait()
                await asyncio.sleep(_AGAIN)
        if translated:
            self.devices.forget(clip.number)
        drawn_later = translated or self.options.control_device == "gpu"
        self.ahead.begin(clip, work, draws=not drawn_later)
        clip.blocked = "control maps"
        return work

    def _memory_comes(self, clip: ClipWork, window: WindowWork) -> bool:
        """Whether memory comes back while this clip waits for some for a window.

        It does when others have taken theirs, not only been granted it. Clips without a device may
        have to wait for the one that this clip keeps.
        """
        return any(
            work is not window and work.has_memory and (clip.account.ahead or not account.ahead)
            for work, account in self._windows.items()
        )

    async def next_window(
        self, clip: ClipWork, prepared: asyncio.Queue[WindowWork | None]
    ) -> WindowWork | None:
        """The clip's next window; None after its last. Notes what a device had to wait for."""
        if clip.device is None or not prepared.empty():
            return await prepared.get()
        track = self._runner.track(clip.device.name, "device")
        with self.timeline.wait(track, clip.blocked, clip.name), self.propagation.starved(clip):
            return await prepared.get()

    async def drop(self, clip: ClipWork, work: WindowWork) -> None:
        """Let go of a window's block, once nobody draws into it any more."""
        await work.settle()
        clip.windows.discard(work)

        work.closing = True

        async def free() -> None:
            # The kernel takes a quarter of a second for a GiB, in which no device would be served.
            await asyncio.to_thread(work.block.close)
            self._windows.pop(work)
            self.memory.release(clip.account, work.block.nbytes)

        await asyncio.shield(free())

    async def clear(self, clip: ClipWork) -> None:
        """Take everything back from a clip that has failed, once no worker uses it any more."""
        for work in clip.windows:
            work.abandon()
        await clip.settle()
        self.assignments.end(clip)
        for work in list(clip.windows):
            await self.drop(clip, work)

    # --- translate -------------------------------------------------------------------------------

    async def translate(
        self,
        clip: ClipWork,
        work: WindowWork,
        saved: Awaitable[Any] | None,
        on_progress: OnProgress,
    ) -> Translated:
        """Translate a window on the clip's device; on another one where that dies.

        ``saved`` is the checkpoint of the window before being written: another device needs it.

        Raises:
            ClipError: the smallest batch needs too much memory.
            FrescodError: its device died too often, or no device is left.
        """
        window = work.window
        before = checkpoint.path(clip.staging, window.index - 1) if window.index else None
        options = translation_options(clip.settings)

        async def task(device: Device, batch_size: int) -> TranslateWindow:
            maps = await self._ahead(clip, work, device)
            return TranslateWindow(
                clip.name,
                clip.prints.clip,
                window,
                clip.prompt,
                maps,
                batch_size,
                before,
                options,
                map_options(clip.settings),
            )

        translated: Translated = await self.assignments.run(clip, work, task, saved, on_progress)
        clip.batches[window.index] = translated.batches
        for warning in translated.warnings:
            self.warn(clip, warning)
        return translated

    async def _ahead(self, clip: ClipWork, work: WindowWork, device: Device) -> tuple[int, ...]:
        """Wait for what the CPU pool does ahead of the device; who draws control maps."""
        side = self.options.control_device
        draws = side == "gpu" or (side == "auto" and device.is_gpu)
        track = self._runner.track(device.name, "device")
        with self.timeline.wait(track, "control maps", clip.name):
            maps = await work.maps_for(draws)
        with self.timeline.wait(track, "flows", clip.name):
            await asyncio.gather(*work.matches)
        return maps

    # --- propagate and publish -------------------------------------------------------------------

    async def save(self, clip: ClipWork, work: WindowWork, translated: Translated) -> None:
        """The window's checkpoint on disk."""
        task = SaveCheckpoint(clip.staging, work.window, translated, work.drawn)
        await self._disk(clip, task, work)

    async def load(self, clip: ClipWork, work: WindowWork) -> None:
        """What an earlier run has translated."""
        task = LoadCheckpoint(clip.staging, work.window)
        translated: Translated = await self._disk(clip, task, work)
        work.drawn = (BY_CPU,) * len(work.window.key_numbers) if work.window.controls else ()
        clip.batches[work.window.index] = translated.batches
        if work.window.flows:

            async def find_flows(device: Device, batch_size: int) -> FindFlows:
                return FindFlows(work.window)

            await self.assignments.run(clip, work, find_flows)

    async def propagate(self, clip: ClipWork, work: WindowWork, segment: int) -> None:
        """The frames of one segment."""
        await work.searched()
        await self.propagation.do(clip, work, segment)

    async def publish_window(self, clip: ClipWork, work: WindowWork) -> None:
        """The window's frames encoded on disk."""
        batches = clip.batches.get(work.window.index, ())
        task = PublishWindow(clip.staging, work.window, work.drawn, clip.encoding, batches)
        await self._disk(clip, task, work)
        self.propagation.published(work)

    async def publish_clip(
        self, clip: ClipWork, output: Path, manifest: dict[str, Any]
    ) -> tuple[str, ...]:
        """The result under its name; returns warnings."""
        task = PublishClip(output, clip.name, clip.plan, clip.encoding, manifest)
        warnings: tuple[str, ...] = await self._disk(clip, task, None)
        return warnings

    async def _disk(self, clip: ClipWork, task: Any, work: WindowWork | None) -> Any:
        """Run a task that writes; where the disk is full, wait for space and do it again."""
        return await self.until_space(
            clip, lambda: self._cpu(clip, "publish", task, (PUBLISH, clip.number), work)
        )

    async def until_space(self, clip: ClipWork, write: Callable[[], Awaitable[T]]) -> T:
        """Do what writes to the clip's staging folder; again, less and less often, where it cannot.

        Raises:
            DiskFullError: there was no space in the time that is given to it.
        """
        pause, give_up = _AGAIN, None
        while True:
            try:
                return await write()
            except DiskFullError:
                now = time.monotonic()
                give_up = give_up or now + self.options.space_timeout
                if now >= give_up:
                    raise
                text = f"no space left for {clip.staging}: waiting for some"
                self.warn(clip, text, Action.DISK_FULL)
                with self._runner.wait("disk", clip):
                    await asyncio.sleep(min(pause, give_up - now))
                pause = min(2 * pause, _SELDOM)

    def warn(self, clip: ClipWork, text: str, action: Action = Action.WARNING) -> None:
        """Tell the user, once for each clip, and the clip's manifest."""
        text = clip.named(text)
        if text not in clip.warnings:
            clip.warnings.append(text)
            self._on_warning(f"{printable(clip.job.clip.name)}: {text}", action)

    # --- what all steps share --------------------------------------------------------------------

    async def _cpu(
        self,
        clip: ClipWork,
        stage: str,
        task: Any,
        priority: tuple[int, ...],
        work: WindowWork | None = None,
        on_start: Callable[[], None] = lambda: None,
        limit: Budget | None = None,
        begins: Callable[[], bool] = lambda: True,
    ) -> Any:
        """Have the pool do a task; `Left` where it is not to, by the time that a core is there."""
        blocks = () if work is None else (work.block,)

        async def run(begin: Callable[[Worker], None]) -> Any:
            if not begins():
                return Left

            def started(worker: Worker) -> None:
                begin(worker)
                on_start()

            return await self.pool.run(task, blocks, priority=priority, on_start=started)

        return await self._runner.use(clip, stage, priority, 1, run, work, "cpu", limit)

    def waiting(self, kind: str) -> int:
        """Tasks for readers ("reader"), the pool ("cpu") or devices that wait for cores."""
        return self._runner.waiting[kind]

    async def close(self) -> None:
        """Stop every process."""
        await self.propagation.close()
        await asyncio.gather(self.readers.close(), self.pool.close(), self.devices.close())
