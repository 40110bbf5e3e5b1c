"""Which device works for which clip, and what becomes of a window when its device cannot."""

import time
from collections.abc import Awaitable, Callable
from typing import Any

from daemon.actions import Action
from daemon.devices import Device, Devices
from daemon.logs import about
from daemon.memory import Memory
from daemon.runner import READ, Runner
from daemon.work import ClipWork, WindowWork
from daemon.workers import Worker, WorkerDied, WorkerTimeout
from fresco_core.errors import ClipError, FrescodError
from fresco_core.keyframes import MIN_BATCH_SIZE
from io_pipeline.tasks import TranslateWindow
from io_pipeline.worker import FatalError, OutOfDeviceMemory

OnProgress = Callable[[str, int, int], None]
# What a device is to do, in batches of so many key frames.
TaskFor = Callable[[Device, int], Awaitable[Any]]


class Assignments:
    """Has clips' devices do tasks; a clip keeps its device until `end`, as long as that lives.

    Args:
        threads: cores that a device of the CPU takes.
        attempts: a clip fails when its devices died so often in vain.
        on_warning: called with a clip and what the user should know of it.
        on_details: called with where a process stood that made no progress.
    """

    def __init__(
        self,
        devices: Devices,
        memory: Memory,
        runner: Runner,
        *,
        threads: int,
        attempts: int,
        on_warning: Callable[[ClipWork, str, Action], None],
        on_details: Callable[[str], None],
    ) -> None:
        self._devices = devices
        self._memory = memory
        self._runner = runner
        self._threads = threads
        self._attempts = attempts
        self._on_warning = on_warning
        self._on_details = on_details
        # Waits until a device may translate so much; False where its process has ended meanwhile.
        self.turn: Callable[[Device, float], Awaitable[bool]] = _at_once
        self.on_translated: Callable[[Device, float, float], None] = lambda *told: None
        # by working size, where memory was short
        self._batch_sizes: dict[tuple[int, int], int] = {}

    async def run(
        self,
        clip: ClipWork,
        work: WindowWork,
        task_for: TaskFor,
        saved: Awaitable[Any] | None = None,
        on_progress: OnProgress | None = None,
    ) -> Any:
        """Have a task about a window done by the clip's device; by another one where that dies.

        As many key frames are translated together as the job's settings say, as long as no device
        was too small for it. ``saved`` is awaited before another device begins, which needs what
        the first one had.

        Raises:
            ClipError: the smallest batch needs too much memory.
            FrescodError: its device died too often, or no device is left.
        """
        window = work.window
        size = window.height, window.width
        while True:
            device = await self.begin(clip)
            wanted = clip.settings.key_frames.batch_size
            batch_size = min(wanted, self._batch_sizes.get(size, wanted))
            with about(device=device.name, window=window.index):
                task = await task_for(device, batch_size)
                try:
                    return await self._run(clip, device, task, work, on_progress)
                except OutOfDeviceMemory as error:
                    smaller = max(MIN_BATCH_SIZE, batch_size // 2)
                    if batch_size == smaller:
                        raise ClipError(
                            f"{clip.job.clip}: {device.name} has too little memory for a batch of "
                            f"{batch_size} key frames ({error}): lower key_frames.resolution"
                        ) from error
                    self._batch_sizes[size] = min(smaller, self._batch_sizes.get(size, smaller))
                    self._on_warning(
                        clip,
                        f"{device.name} ran out of memory: batches of {smaller} from here on",
                        Action.WARNING,
                    )
                except (WorkerDied, FatalError) as death:
                    fate = f"window {window.index} is done again"
                    await self.charge(clip, device, death, fate)
                except _Fallen:
                    pass  # for which another clip was charged
            self.end(clip)
            if saved is not None:
                await saved

    async def charge(self, clip: ClipWork, device: Device, death: Exception, fate: str) -> None:
        """A device has died of a clip; ``fate`` is what becomes of what it did.

        Raises:
            FrescodError: it was once too often.
        """
        reason = getattr(death, "reason", str(death))
        if isinstance(death, WorkerTimeout):
            self._on_details(death.output)
        self._devices.died(device)
        clip.deaths += 1
        if clip.deaths >= self._attempts:
            raise FrescodError(
                f"{clip.job.clip}: {clip.deaths} times the process that translated it "
                f"ended: {reason}"
            ) from death
        await clip.on_death()
        self._on_warning(clip, f"{device.name}: {reason}; {fate}", Action.DEVICE_DIED)

    def end(self, clip: ClipWork) -> None:
        """The clip needs its device no more."""
        if clip.device is not None:
            self._devices.give(clip.device)
            clip.device = None

    async def begin(self, clip: ClipWork) -> Device:
        """The clip's device; waits for one where it has none."""
        if clip.device is None:
            with self._runner.wait("device", clip):
                clip.device = await self._devices.take(
                    clip.length, clip.number, again=not clip.account.ahead
                )
            self._memory.promote(clip.account)
        return clip.device

    async def _run(
        self,
        clip: ClipWork,
        device: Device,
        task: Any,
        work: WindowWork,
        on_progress: OnProgress | None,
    ) -> Any:
        cores = 0 if device.is_gpu else self._threads
        window = work.window
        amount = 0
        if isinstance(task, TranslateWindow):
            amount = len(window.key_numbers) * window.height * window.width
        seconds = 0.0

        async def translate(begin: Callable[[Worker], None]) -> Any:
            nonlocal seconds
            begin(device.worker)
            start = time.monotonic()
            answer = await device.worker.run(task, (work.block,), on_progress)
            seconds = time.monotonic() - start
            return answer

        if not await self.turn(device, amount):
            raise _Fallen
        priority = (READ, clip.number)
        try:
            result = await self._runner.use(
                clip, "translate", priority, cores, translate, work, "device"
            )
        finally:
            device.translating = False
        self.on_translated(device, amount, seconds)
        self._devices.done(device)
        clip.devices += [] if device.name in clip.devices else [device.name]
        return result


class _Fallen(Exception):
    """A clip's device died of what it did for another."""


async def _at_once(device: Device, amount: float) -> bool:
    return True
