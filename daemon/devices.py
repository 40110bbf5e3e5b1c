"""The devices: one process each, models loaded once, handed to the clip that is longest."""

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from daemon.failures import reason
from daemon.workers import Worker, WorkerDied
from fresco_core.errors import FrescodError
from io_pipeline.worker import Stage, TaskError

# So many deaths in so many seconds, and a device is not tried again.
DEATHS = 5
SPAN = 60.0


class DeviceError(FrescodError):
    """No device that could be used is there, or is left."""

    exit_code = 69


class DeviceLost(FrescodError):
    """A clip's device is lost, all others have clips: it has to begin to wait anew."""


@dataclass(eq=False)
class Device:
    """A worker that translates, and how often it died."""

    name: str
    worker: Worker
    deaths: deque[float] = field(default_factory=lambda: deque(maxlen=DEATHS + 1))
    facts: Mapping[str, Any] = field(default_factory=dict)
    lost: str = ""

    @property
    def is_gpu(self) -> bool:
        """Whether the models run on a GPU."""
        return self.name.startswith("cuda")


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

    ``on_event(text)`` hears what the user should know.
    """

    def __init__(
        self,
        names: Sequence[str],
        stage: Callable[[str], Stage],
        *,
        deadlines: Mapping[str, float],
        threads: int,
        on_event: Callable[[str], None],
    ) -> None:
        counts: dict[str, itertools.count[int]] = {}
        self.all: list[Device] = []
        for name in names:
            number = next(counts.setdefault(name, itertools.count()))
            title = f"{name} {number + 1}" if names.count(name) > 1 else name
            worker = Worker(title, stage(name), deadlines=deadlines, threads=threads)
            self.all.append(Device(title, worker))
        self.failure: FrescodError | None = None
        self._ready = asyncio.Event()
        self._on_event = on_event
        self._free: list[Device] = []
        self._waiting: list[_Request] = []
        self._expected: set[int] = set()
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
        late, the others would long be done while these go on. It ends with `take` or `forget`.
        """
        self._expected.add(number)
        try:
            yield
        finally:
            self.forget(number)

    def forget(self, number: int) -> None:
        """Expect a clip no longer."""
        if number in self._expected:
            self._expected.remove(number)
            self._offer()

    async def take(self, length: int, number: int = 0, again: bool = False) -> Device:
        """The next free device; of those that wait, the longest clip gets it.

        ``number`` is the clip's place in the order of all. A clip that had one and lost it
        (``again``) goes before all that had none: it holds memory that they would wait for.

        Raises:
            FrescodError: `failure`: models that cannot be loaded, or no device is left.
            DeviceLost: ``again``, and what it waits for is held by clips that may in turn wait for
                what it holds itself.
        """
        if again and not (self._free or self._starting or self.failure):
            raise DeviceLost("its device is lost")
        future: asyncio.Future[Device] = asyncio.get_running_loop().create_future()
        request = _Request(not again, -length, number, next(self._order), future)
        self._waiting.append(request)
        self._expected.discard(number)
        self._offer()
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and not future.exception():
                self.give(future.result())
            raise

    async def facts(self) -> Mapping[str, Any]:
        """What a device says of itself, for the manifest; they are alike.

        Raises:
            FrescodError: `failure`.
        """
        await self._ready.wait()
        if self.failure:
            raise self.failure
        return next(device.facts for device in self.all if device.facts)

    def give(self, device: Device) -> None:
        """Take a device back, dead or alive."""
        if device.worker.alive:
            self._free.append(device)
            self._offer()
        else:
            self._restart(device)

    def died(self, device: Device) -> None:
        """Count a death that was not planned."""
        device.deaths.append(time.monotonic())

    async def close(self) -> None:
        """Stop all."""
        for task in self._starting:
            task.cancel()
        await asyncio.gather(*self._starting, return_exceptions=True)
        await asyncio.gather(*(device.worker.stop() for device in self.all))

    def _offer(self) -> None:
        for device in [device for device in self._free if not device.worker.alive]:
            self._free.remove(device)  # it died while nobody used it
            self.died(device)
            self._restart(device)
        for request in sorted(self._waiting):
            if not request.device.done():
                kept = sum(number < request.number for number in self._expected)
                if self.failure:
                    request.device.set_exception(self.failure)
                elif len(self._free) > (kept if request.first else 0):
                    request.device.set_result(self._free.pop(0))
                else:
                    continue
            self._waiting.remove(request)

    def _restart(self, device: Device) -> None:
        task = asyncio.get_running_loop().create_task(self._start(device))
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)

    async def _start(self, device: Device) -> None:
        while not self.failure:
            if len(device.deaths) > DEATHS and device.deaths[-1] - device.deaths[0] < SPAN:
                return self._lose(device, f"{DEATHS} restarts in {SPAN:.0f} s did not help")
            try:
                device.facts = await device.worker.start()
            except WorkerDied as death:
                self.died(device)
                self._on_event(f"{device.name}: {death.reason}; started again")
            except FrescodError as error:
                if error.exit_code == 78:  # wrong everywhere: settings or weights
                    return self._fail(error)
                return self._lose(device, str(error), error)
            except TaskError as error:
                failure = FrescodError(reason(error))
                failure.__cause__ = error
                return self._lose(device, str(failure), failure)
            else:
                self._ready.set()
                self._free.append(device)
                return self._offer()

    def _lose(self, device: Device, reason: str, error: FrescodError | None = None) -> None:
        device.lost = reason
        task = asyncio.current_task()
        assert task is not None
        self._starting.discard(task)  # nobody is to wait for it any more
        if all(other.lost for other in self.all):
            self._fail(error or DeviceError(f"no device is left: {device.name}: {reason}"))
        else:
            self._on_event(f"{device.name} is lost, the others carry on: {reason}")
            for request in self._waiting:
                if not request.first and not request.device.done():
                    request.device.set_exception(DeviceLost("its device is lost"))

    def _fail(self, error: FrescodError) -> None:
        self.failure = self.failure or error
        self._ready.set()
        self._offer()
