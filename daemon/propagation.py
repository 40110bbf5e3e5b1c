"""Segments that are to be propagated: by cores, or by devices that take them from those.

Every segment waits for a core. A device takes all that wait of a window and that no core has begun;
`daemon.who_propagates` says when.
"""

import asyncio
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Protocol

from daemon.actions import Action
from daemon.budget import Budget
from daemon.devices import Device, Devices
from daemon.logs import about
from daemon.machine_code import MachineCode
from daemon.runner import PROPAGATE, Runner
from daemon.segments import CORES, DEVICES, SIDES, Left, Segment, Share, settle
from daemon.setbacks import OnWarning, Setbacks
from daemon.stages import propagation_options
from daemon.who_propagates import Rates, core_begins, device_takes, devices_need, filled
from daemon.work import ClipWork, WindowWork
from daemon.workers import Worker
from fresco_core.propagation.gpu import unsupported
from io_pipeline.tasks import PropagateSegment, PropagateSegments

# Seconds after which a core that has left segments to the devices looks again.
LOOK_AGAIN = 0.5
# Why a window without flows is propagated by cores.
NO_FLOWS = (
    "windows with flows take more than half of prefetch.memory: raise that or lower "
    "key_frames.resolution, key_frames.max_interval or key_frames.batch_size"
)


class OnCpu(Protocol):
    """Has the pool do a task; `Left` where ``begins``, asked when a core is there, says no."""

    async def __call__(
        self,
        clip: ClipWork,
        stage: str,
        task: Any,
        priority: tuple[int, ...],
        work: WindowWork | None = None,
        on_start: Callable[[], None] = ...,
        limit: Budget | None = None,
        begins: Callable[[], bool] = ...,
    ) -> Any: ...


# What is left to translate, by clip: key frames times pixels, and the frames times pixels that are
# to be propagated after that. None: it is not known of one.
Outlook = Sequence[tuple[float, float] | None]


class Propagation:
    """Who does which segment, and what each side has done so far.

    Args:
        cores: that there are.
        limit: of them, that propagate at a time; 0: all.
        side: "auto", or who is to do it: "cpu", "gpu".
        memory: bytes of a device's that it may take.
        setbacks: hears of what devices have failed at.
        on_cpu: has a core do a segment.
        on_warning: hears what the user should know of a clip.
    """

    def __init__(
        self,
        devices: Devices,
        runner: Runner,
        *,
        cores: int,
        limit: int,
        side: str,
        memory: int,
        setbacks: Setbacks,
        on_cpu: OnCpu,
        on_warning: OnWarning,
    ) -> None:
        self.side = side
        self.rates = Rates()
        self.shares = {each: Share() for each in SIDES}
        self.outlook: Callable[[], Outlook] = lambda: [None]
        self._devices = devices
        self._runner = runner
        self._cores = cores
        self._most = min(cores, limit or cores)  # that propagate
        self._limit = Budget(limit) if limit else None
        self._memory = memory
        self._setbacks = setbacks
        self._on_cpu = on_cpu
        self._on_warning = on_warning
        self._waiting: list[Segment] = []
        self._on_cores: set[Segment] = set()
        self._machine_code = MachineCode(on_cpu, self.look)
        self._changed = asyncio.Event()
        # Of devices: what they were to take, and since when they are at it.
        self._groups: dict[asyncio.Task[None], tuple[float, float]] = {}
        self._starved: dict[Device, ClipWork] = {}
        devices.on_free = self.look

    @property
    def _off(self) -> bool:
        """Whether cores alone propagate."""
        gpus = any(device.is_gpu for device in self._devices.all)
        return self.side == CORES or self._setbacks.given_up or not gpus

    @property
    def waiting(self) -> int:
        """Segments that nobody has begun."""
        return len(self._waiting)

    def by_devices(self, clip: ClipWork) -> bool:
        """Whether devices may propagate for a clip."""
        return not self._off and unsupported(propagation_options(clip.settings)) is None

    async def do(self, clip: ClipWork, work: WindowWork, index: int) -> None:
        """Have a segment propagated, by whoever it is.

        Raises:
            FrescodError: its processes died of it too often.
        """
        options = propagation_options(clip.settings)
        done = asyncio.get_running_loop().create_future()
        segment = Segment(clip, work, index, options, done)
        reason = unsupported(options)
        if reason is None and not segment.has_flows and not self._off:
            reason = NO_FLOWS
        segment.cores_only = bool(reason) or not segment.has_flows or segment.frames == 0
        if reason and segment.frames and self.side == DEVICES:
            self._on_warning(clip, f"propagated by the CPU: {reason}", Action.WARNING)
        self._wait(segment)
        # Not at once: those that come with it are to be taken with it.
        asyncio.get_running_loop().call_soon(self.look)
        try:
            await segment.done
        finally:
            self._take_out([segment])

    # --- what devices do -------------------------------------------------------------------------

    async def turn(self, device: Device, amount: float) -> bool:
        """Wait until a device may translate so much; False where its process ended meanwhile.

        Until it has, it is ``translating``.
        """
        while True:
            await device.returned.wait()
            if device.fallen:
                return False
            if device.lent or self._take(device, self.rates.translate.seconds(amount)):
                continue
            device.translating = True
            return True

    def translated(self, device: Device, amount: float, seconds: float) -> None:
        """A device has translated so much."""
        if device.is_gpu:
            self.rates.translate.measured(seconds, amount)

    @contextmanager
    def starved(self, clip: ClipWork) -> Iterator[None]:
        """The clip's device has nothing to translate for as long as the block lasts."""
        device = clip.device
        if device is None:
            yield
            return
        self._starved[device] = clip
        self.look()
        try:
            yield
        finally:
            del self._starved[device]

    def look(self) -> None:
        """Something has changed: a device may have to take something, or a core to begin it."""
        self._changed.set()
        self._changed = asyncio.Event()
        for device in self._devices.all:
            if not self._waiting:
                return
            if device.lent or device.translating or device.worker.busy or not device.worker.ready:
                continue
            if self._devices.is_free(device):
                self._take(device, None)
            elif device in self._starved:
                # What its clip waits for is not far, but for memory: that may be what waits here.
                clip = self._starved[device]
                near = None if clip.blocked == "memory" else self._window(clip)
                self._take(device, near)

    def _window(self, clip: ClipWork) -> float:
        """Seconds that a window of a clip takes a device."""
        height, width = clip.plan.working_size
        return self.rates.translate.seconds(clip.settings.key_frames.batch_size * height * width)

    def _take(self, device: Device, window: float | None) -> bool:
        """Have a device propagate, if it is to; ``window``: seconds that translating would take."""
        group = self._group() if device.is_gpu and not self._off else []
        if not group:
            return False
        amounts = [segment.amount for segment in group]
        seconds = self.rates.group(amounts)
        if self.side != DEVICES:
            core = self.rates.core.seconds(max(amounts))
            waiting = sum(each.amount for each in self._waiting)
            cores = self._free_cores(self.outlook())
            pool = self.rates.core.seconds(waiting) / cores if cores else math.inf
            if not device_takes(seconds, pool, core, window):
                return False
        self._take_out(group)
        self._devices.lend(device)
        task = asyncio.get_running_loop().create_task(
            self._by_device(device, group), context=group[0].context.copy()
        )
        self._groups[task] = seconds, time.monotonic()
        task.add_done_callback(self._groups.pop)
        return True

    def _group(self) -> list[Segment]:
        """What one device would take: most of those of a window, of the earliest such one."""
        windows: dict[WindowWork, list[Segment]] = {}
        for segment in self._waiting:
            if self._for_devices(segment):
                windows.setdefault(segment.work, []).append(segment)
        return max(windows.values(), key=len, default=[])

    def _for_devices(self, segment: Segment) -> bool:
        possible = not segment.cores_only and not self._setbacks.too_large(segment)
        return possible and segment.begun is None and not self._off

    async def _by_device(self, device: Device, group: Sequence[Segment]) -> None:
        wanted = [segment for segment in group if not segment.done.done()]
        if len(wanted) < len(group):  # given up since, and perhaps the block
            self._devices.take_back(device)
            for segment in wanted:
                self._wait(segment)
            return self.look()
        clip, work = group[0].clip, group[0].work
        task = PropagateSegments(
            work.window,
            tuple(segment.index for segment in group),
            group[0].options,
            self._memory,
        )
        seconds = 0.0

        async def run(begin: Callable[[Worker], None]) -> None:
            nonlocal seconds
            begin(device.worker)
            start = time.monotonic()
            await device.worker.run(task, (work.block,))
            seconds = time.monotonic() - start

        priority = (PROPAGATE, clip.number, work.window.index)
        failure: Exception | None = None
        try:
            with about(device=device.name, window=work.window.index):
                await self._runner.use(clip, "propagate", priority, 0, run, work, "device")
        except Exception as error:
            failure = error
        finally:
            self._devices.take_back(device)
        if failure is None:
            self.rates.device.measured(seconds, filled([segment.amount for segment in group]))
            self._count(DEVICES, group, seconds)
            settle(group)
        else:
            try:
                await self._setbacks.add(device, group, failure)
            except Exception as error:
                settle(group, error)
            for segment in group:
                segment.cores_only = True
                if not segment.done.done():
                    self._wait(segment)
        self.look()

    # --- what cores do ---------------------------------------------------------------------------

    def _wait(self, segment: Segment) -> None:
        self._waiting.append(segment)
        segment.by_core = asyncio.get_running_loop().create_task(
            self._on_core(segment), context=segment.context.copy()
        )

    def _take_out(self, segments: Sequence[Segment]) -> None:
        """They wait no more: cores need not begin them."""
        for segment in segments:
            if segment in self._waiting:
                self._waiting.remove(segment)
            if segment.by_core is not None:
                segment.by_core.cancel()

    async def _on_core(self, segment: Segment) -> None:
        def begins() -> bool:
            return self._core_begins(segment)

        def begin() -> None:
            segment.begun = time.monotonic()
            self._on_cores.add(segment)
            if segment in self._waiting:
                self._waiting.remove(segment)

        clip, work = segment.clip, segment.work
        task = PropagateSegment(work.window, segment.index, segment.options)
        priority = (PROPAGATE, clip.number, work.window.index)

        async def done() -> bool:
            answer = await self._on_cpu(
                clip, "propagate", task, priority, work, begin, self._limit, begins
            )
            return answer is not Left

        try:
            while True:
                changed = self._changed
                if begins() and await done():
                    break
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_AGAIN):
                        await changed.wait()
        except Exception as error:
            settle([segment], error)
        else:
            assert segment.begun is not None
            seconds = time.monotonic() - segment.begun
            self.rates.core.measured(seconds, segment.amount)
            self._count(CORES, [segment], seconds)
            settle([segment])
        finally:
            self._on_cores.discard(segment)
        self.look()

    def compile_ahead(self, clip: ClipWork) -> None:
        """Ready what cores propagate a clip with, if they are to."""
        left_to_devices = self.side == DEVICES and self.by_devices(clip)
        if clip.settings.output.frames == "all" and not left_to_devices:
            self._machine_code.make(clip, propagation_options(clip.settings))

    def _core_begins(self, segment: Segment) -> bool:
        if self._machine_code.is_being_made(segment.options):
            return False
        if not self._for_devices(segment):
            return True
        if self.side == DEVICES:
            return False
        outlook = self.outlook()
        if len(self._on_cores) >= self._free_cores(outlook):
            return False
        return core_begins(self.rates.core.seconds(segment.amount), self._devices_need(outlook))

    def published(self, work: WindowWork) -> None:
        """A window is on disk: what it took cores, apart from propagation, is known."""
        window = work.window
        amount = len(window.key_numbers) * window.height * window.width
        seconds = sum(work.seconds[stage] for stage in ("prepare", "match", "publish"))
        self.rates.around.measured(seconds, amount)

    @property
    def _gpus(self) -> int:
        """Those that are ready."""
        return sum(device.is_gpu and device.worker.ready for device in self._devices.all)

    def _free_cores(self, outlook: Outlook) -> int:
        """Cores that may propagate now: all of them when nothing is left to translate."""
        if all(left is not None and left[0] == 0 for left in outlook):
            return self._most
        return min(self._most, self.rates.free_cores(self._cores, self._gpus))

    def _devices_need(self, outlook: Outlook) -> float:
        """Seconds until the devices would have done everything; infinite where nobody knows."""
        clips = [left for left in outlook if left is not None]
        count = self._gpus
        if len(clips) < len(outlook) or count == 0:
            return math.inf
        amounts = [each.amount for each in self._waiting if self._for_devices(each)]
        to_come = sum(frames for _, frames in clips)
        now = time.monotonic()
        return devices_need(
            [self.rates.translate.seconds(keys) for keys, _ in clips],
            max(self.rates.windows(sum(amounts) + to_come), self.rates.group(amounts)),
            [(seconds, now - begun) for seconds, begun in self._groups.values()],
            count,
        )

    def _count(self, side: str, segments: Sequence[Segment], seconds: float) -> None:
        frames = sum(segment.frames for segment in segments)
        share = self.shares[side]
        share.segments += len(segments)
        share.frames += frames
        share.seconds += seconds
        segments[0].clip.propagated[side] += frames

    async def close(self) -> None:
        """Have nothing more done."""
        for task in tuple(self._groups):
            task.cancel()
        await asyncio.gather(self._machine_code.close(), *self._groups, return_exceptions=True)
