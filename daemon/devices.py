"""The devices: one process each, models loaded once, handed to the clip that is longest."""

import asyncio
import contextvars
import itertools
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from daemon.actions import Action
from daemon.failures import reason
from daemon.workers import OnRecord, Worker, WorkerDied
from fresco_core.errors import FrescodError
from io_pipeline.worker import Stage

# A device that has been restarted so often in so many seconds, or since it last did any work, is
# not tried again.
DEATHS = 5
SPAN = 60.0
PAUSE = 0.5  # seconds before a start that failed is tried again; doubles with each
KEEP = 5.0  # seconds that devices are kept for a clip that is being prepared


class DeviceError(FrescodError):
    """No device that could be used is there, or is left."""

    exit_code = 69


class DeviceLost(FrescodError):
    """A clip's device is lost, all others have clips: it has to begin to wait anew."""


def is_gpu(name: str) -> bool:
    """Whether a device of this name is a GPU."""
    return name.startswith("cuda")


def _set_event() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event


@dataclass(eq=False)
class Device:
    """A worker that translates, and how often it died.

    Attributes:
        deaths: when it last died.
        in_vain: deaths since it last did any work.
        clip: number of the clip that has it.
        died_with: numbers of clips that had it when it died.
        lost: why it is not tried again.
        translating: whether the clip that has it uses it.
        lent: whether it propagates, whoever has it; ``returned`` is set while it does not.
        fallen: whether its process ended at that.
    """

    name: str
    worker: Worker
    deaths: deque[float] = field(default_factory=lambda: deque(maxlen=DEATHS + 1))
    in_vain: int = 0
    clip: int | None = None
    died_with: set[int] = field(default_factory=set)
    facts: Mapping[str, Any] = field(default_factory=dict)
    lost: str = ""
    translating: bool = False
    lent: bool = False
    returned: asyncio.Event = field(default_factory=_set_event)
    fallen: bool = False

    @property
    def is_gpu(self) -> bool:
        """Whether the models run on a GPU."""
        return is_gpu(self.name)

    @property
    def memory(self) -> int | None:
        """Bytes of its memory that the process has held at most; None where it has none."""
        return self.worker.memory

    @property
    def hopeless(self) -> str:
        """Why it is not to be tried again; empty where it is."""
        if len(self.deaths) > DEATHS and self.deaths[-1] - self.deaths[0] < SPAN:
            return f"{DEATHS} restarts in {SPAN:.0f} s did not help"
        if self.in_vain > DEATHS:
            return f"{DEATHS} restarts did not help"
        return ""


@dataclass(order=True)
class _Request:
    """A clip that waits for a device; the smallest gets one first."""

    first: bool  # it has not had one before
    length: int  # negative
    number: int
    order: int
    device: asyncio.Future[Device] = field(compare=False)


class Devices:
    """Starts the devices, hands them out, restarts what died.

    ``on_event(text, action)`` hears what the user should know, ``on_record`` what their processes
    log. For a clip that is `expected` devices are kept for ``keep`` seconds at most.
    ``loading(name)`` is entered while a device loads its models.
    """

    def __init__(
        self,
        names: Sequence[str],
        stage: Callable[[str], Stage],
        *,
        deadlines: Mapping[str, float],
        threads: int,
        on_event: Callable[[str, Action], None],
        keep: float = KEEP,
        on_record: OnRecord | None = None,
    ) -> None:
        counts: dict[str, itertools.count[int]] = {}
        self.all: list[Device] = []
        for name in names:
            number = next(counts.setdefault(name, itertools.count()))
            title = f"{name} {number + 1}" if names.count(name) > 1 else name
            worker = Worker(
                title, stage(name), deadlines=deadlines, threads=threads, on_record=on_record
            )
            worker.on_death = self._look_soon  # it may have been idle
            self.all.append(Device(title, worker))
        self.failure: FrescodError | None = None
        self.loading: Callable[[str], AbstractContextManager[None]] = lambda name: nullcontext()
        self.on_free: Callable[[], None] = lambda: None  # called when one may be
        self._ready = asyncio.Event()
        self._closed = False
        self._on_event = on_event
        self._free: list[Device] = []
        self._waiting: list[_Request] = []
        self._keep = keep
        # By the clip's number; what ends its time runs from the moment that somebody waits for it.
        self._expected: dict[int, asyncio.TimerHandle | None] = {}
        self._order = itertools.count()
        self._starting: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Start all; returns at once."""
        for device in self.all:
            self._restart(device)

    @contextmanager
    def expected(self, number: int) -> Iterator[None]:
        """The clip of this number is being prepared: those behind it leave it a device.

        Clips are taken longest first, and the longest take longest to be planned: if they came
        late, the others would long be done while these go on. It ends with `take` or `forget`, or
        when a device has been kept for it for too long: none is to wait while there is work.
        """
        self._expected[number] = None
        try:
            yield
        finally:
            self.forget(number)

    def forget(self, number: int) -> None:
        """Expect a clip no longer."""
        if self._expect_no_more(number):
            self._offer()

    async def take(self, length: int, number: int = 0, again: bool = False) -> Device:
        """The next free device; of those that wait, the longest clip gets it.

        ``number`` is the clip's place in the order of all. A clip that had one and lost it
        (``again``) goes before all that had none: it holds memory that they would wait for. It
        gets another one than it had where it can choose.

        Raises:
            FrescodError: `failure`: models that cannot be loaded, or no device is left.
            DeviceLost: ``again``, and what it waits for is held by clips that may in turn wait for
                what it holds itself.
        """
        others = sum(not request.first and not request.device.done() for request in self._waiting)
        coming = sum(device.lent and device.clip is None for device in self.all)
        coming += len(self._free) + len(self._starting)
        if again and not self.failure and others >= coming:
            raise DeviceLost("its device is lost")
        future: asyncio.Future[Device] = asyncio.get_running_loop().create_future()
        request = _Request(not again, -length, number, next(self._order), future)
        self._waiting.append(request)
        self._expect_no_more(number)
        self._offer()
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and not future.exception():
                self.give(future.result())
            raise

    async def facts(self, names: Sequence[str] = ()) -> Mapping[str, Any]:
        """What the first of these devices says of itself, or, where there is none, any device.

        Raises:
            FrescodError: `failure`.
        """
        await self._ready.wait()
        if self.failure:
            raise self.failure
        known = [device for device in self.all if device.facts]
        return next((device.facts for device in known if device.name in names[:1]), known[0].facts)

    async def settled(self) -> None:
        """Wait until every device is ready, or lost.

        Raises:
            FrescodError: `failure`.
        """
        while self._starting and not self.failure:
            await asyncio.wait(self._starting)
        if self.failure:
            raise self.failure

    def give(self, device: Device) -> None:
        """Take a device back, dead or alive."""
        device.clip = None
        if device.lent:
            return
        if device.worker.alive:
            self._free.append(device)
            self._offer()
        else:
            self._restart(device)

    def is_free(self, device: Device) -> bool:
        """Whether no clip has it, and it could be given to one."""
        return device in self._free

    def lend(self, device: Device) -> None:
        """It is to propagate for a moment: nobody gets it, and the clip that has it waits."""
        device.lent = True
        device.returned.clear()
        if device in self._free:
            self._free.remove(device)

    def take_back(self, device: Device) -> None:
        """A device that was lent has propagated, or ended at it."""
        device.lent = False
        device.returned.set()
        device.fallen = not device.worker.alive
        if device.clip is None:
            self.give(device)

    def done(self, device: Device) -> None:
        """It has done some work: its deaths so far were not in vain."""
        device.in_vain = 0

    def died(self, device: Device) -> None:
        """Count a death that was not planned."""
        device.deaths.append(time.monotonic())
        device.in_vain += 1
        if device.clip is not None:
            device.died_with.add(device.clip)

    async def close(self) -> None:
        """Stop all."""
        self._closed = True
        for task in self._starting:
            task.cancel()
        await asyncio.gather(*self._starting, return_exceptions=True)
        await asyncio.gather(*(device.worker.stop() for device in self.all))

    def _look_soon(self) -> None:
        asyncio.get_running_loop().call_soon(self._offer)

    def _offer(self) -> None:
        for device in [device for device in self._free if not device.worker.alive]:
            self._free.remove(device)  # it died while nobody used it
            self._on_event(f"{device.name}: died while idle; started again", Action.DEVICE_DIED)
            self.died(device)
            self._restart(device)
        for request in sorted(self._waiting):
            if not request.device.done():
                kept = sum(number < request.number for number in self._expected)
                if self.failure:
                    request.device.set_exception(self.failure)
                elif len(self._free) > (kept if request.first else 0):
                    self._hand_out(request)
                else:
                    if self._free:
                        self._be_patient(request.number)
                    continue
            self._waiting.remove(request)
        if self._free:
            self.on_free()

    def _hand_out(self, request: _Request) -> None:
        # The one that has been free for longest, of those that did not die with this clip.
        device = min(self._free, key=lambda device: request.number in device.died_with)
        self._free.remove(device)
        device.clip = request.number
        request.device.set_result(device)

    def _be_patient(self, number: int) -> None:
        """A device is kept from this clip: not for ever."""
        loop = asyncio.get_running_loop()
        for other, timer in self._expected.items():
            if other < number and timer is None:
                self._expected[other] = loop.call_later(self._keep, self.forget, other)

    def _expect_no_more(self, number: int) -> bool:
        """Whether it was expected until now."""
        if number not in self._expected:
            return False
        timer = self._expected.pop(number)
        if timer is not None:
            timer.cancel()
        return True

    def _restart(self, device: Device) -> None:
        if self._closed:
            return
        device.fallen = False
        # What it logs from here on is about no job.
        task = asyncio.get_running_loop().create_task(
            self._start(device), context=contextvars.Context()
        )
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)

    async def _start(self, device: Device) -> None:
        while not self.failure:
            if device.hopeless:
                return self._lose(device, device.hopeless)
            try:
                with self.loading(device.name):
                    device.facts = await device.worker.start()
            except WorkerDied as death:
                self.died(device)
                fate = "" if device.hopeless else "; started again"
                self._on_event(f"{device.name}: {death.reason}{fate}", Action.DEVICE_DIED)
                if fate:
                    await asyncio.sleep(PAUSE * 2 ** (device.in_vain - 1))
            except FrescodError as error:
                if error.exit_code == 78:  # wrong everywhere: settings or weights
                    return self._fail(error)
                return self._lose(device, str(error), error)
            except Exception as error:  # nobody hears what this task raises
                failure = FrescodError(reason(error))
                failure.__cause__ = error
                return self._lose(device, str(failure), failure)
            else:
                self._ready.set()
                self._no_longer_starting()
                self._free.append(device)
                return self._offer()

    def _lose(self, device: Device, reason: str, error: FrescodError | None = None) -> None:
        device.lost = reason
        self._no_longer_starting()
        if all(other.lost for other in self.all):
            self._fail(error or DeviceError(f"no device is left: {device.name}: {reason}"))
        else:
            text = f"{device.name} is lost, the others carry on: {reason}"
            self._on_event(text, Action.DEVICE_LOST)
            for request in self._waiting:
                if not request.first and not request.device.done():
                    request.device.set_exception(DeviceLost("its device is lost"))

    def _no_longer_starting(self) -> None:
        """Nobody is to wait for what this task starts: by the next turn others may have it."""
        task = asyncio.current_task()
        assert task is not None
        self._starting.discard(task)

    def _fail(self, error: FrescodError) -> None:
        self.failure = self.failure or error
        self._ready.set()
        self._offer()
