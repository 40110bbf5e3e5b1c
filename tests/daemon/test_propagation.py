"""Segments between cores and devices. Both are played by the test."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from daemon import devices as devices_module
from daemon.config import Layer, merge
from daemon.devices import Device, Devices
from daemon.propagation import Propagation
from daemon.who_propagates import SPARE, Rate
from daemon.work import ClipWork, WindowWork
from daemon.workers import WorkerDied
from fresco_core.errors import FrescodError
from io_pipeline.blocks import Block
from io_pipeline.tasks import PropagateSegments
from io_pipeline.worker import NoMemoryToPropagate, OutOfDeviceMemory, TaskError
from tests.daemon.shops import Pool, clip_work, run, shop, window
from tests.daemon.test_memory import turns


class PlayedWorker:
    """Propagates when the test says so."""

    def __init__(
        self, name: str, stage: Any, *, deadlines: Any, threads: int, on_record: Any
    ) -> None:
        self.name, self.alive, self.busy, self.memory = name, False, False, None
        self.tasks: list[PropagateSegments] = []
        self.finish = asyncio.Event()
        self.error: Exception | None = None

    @property
    def ready(self) -> bool:
        return self.alive

    async def start(self) -> Any:
        self.alive = True
        return {}

    async def run(self, task: Any, blocks: Any, on_progress: Any = None) -> None:
        assert not self.busy
        self.busy = True
        self.tasks.append(task)
        await self.finish.wait()
        self.busy = False
        if self.error is not None:
            self.alive = not isinstance(self.error, WorkerDied | OutOfDeviceMemory)
            raise self.error

    async def stop(self) -> None:
        self.alive = False


class House:
    """A workshop with devices, cores and a clip of two segments a window."""

    def __init__(self, *names: str, side: str = "auto", cores: int = 1) -> None:
        self.told: list[str] = []
        self.devices = Devices(
            names or ("cuda:0",),
            lambda name: None,  # type: ignore[arg-type, return-value]
            deadlines={},
            threads=1,
            on_event=lambda text, action: self.told.append(text),
        )
        self.pool = Pool()
        self.shop, self.warnings = shop(self.pool, devices=self.devices, side=side, cores=cores)
        self.propagation: Propagation = self.shop.propagation
        self.clip = clip_work(ahead=False)
        self.tasks: list[asyncio.Task[None]] = []

    @property
    def device(self) -> Device:
        return self.devices.all[0]

    @property
    def worker(self) -> Any:
        return self.device.worker

    async def up(self) -> None:
        self.devices.start()
        await self.devices.settled()

    def rates(self, *, core: float, device: float, translate: float = 1.0) -> None:
        """Seconds a segment, and a key frame."""
        rates, pixels = self.propagation.rates, 64 * 64
        rates.core = Rate(core / (3 * pixels))
        rates.device = Rate(device / (3 * pixels) / (2 + SPARE))  # for both
        rates.translate = Rate(translate / pixels)

    async def propagate(
        self, index: int = 0, clip: ClipWork | None = None, **changes: Any
    ) -> WindowWork:
        """Both segments of a window begin to wait."""
        chosen = replace(window(index), **{"flows": True, **changes})
        if index:
            chosen = replace(chosen, key_numbers=chosen.key_numbers[1:])
        work = WindowWork(chosen, Block.create(chosen.layout()))
        for segment in range(2):
            doing = self.shop.propagate(clip or self.clip, work, segment)
            self.tasks.append(asyncio.create_task(doing))
        await turns(4)
        return work

    async def done(self) -> None:
        await asyncio.gather(*self.tasks)
        assert self.propagation.waiting == 0

    def cores_do(self) -> None:
        self.pool.start.set()
        self.pool.finish.set()


@pytest.fixture(autouse=True)
def played() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(devices_module, "Worker", PlayedWorker)
        patch.setattr(devices_module, "PAUSE", 0.001)
        yield


def test_an_idle_device_takes_a_windows_segments_together() -> None:
    async def test() -> None:
        house = House()
        house.rates(core=5, device=1)
        await house.up()
        await house.propagate()
        (task,) = house.worker.tasks
        assert (task.segments, task.memory) == ((0, 1), 1 << 20)
        assert not house.devices.is_free(house.device)
        house.worker.finish.set()
        await house.done()
        assert house.devices.is_free(house.device)
        assert house.clip.propagated == {"cpu": 0, "gpu": 6}
        share = house.propagation.shares["gpu"]
        assert (share.segments, share.frames) == (2, 6)
        assert house.pool.seen in ([], ["dropped"])

    run(test())


def test_cores_do_what_they_are_done_with_sooner() -> None:
    async def test() -> None:
        house = House(cores=2)
        house.rates(core=1, device=50)
        await house.up()
        await house.propagate()
        assert not house.worker.tasks
        house.cores_do()
        await house.done()
        assert house.clip.propagated == {"cpu": 6, "gpu": 0}

    run(test())


def test_a_device_leaves_what_a_core_has_begun() -> None:
    async def test() -> None:
        house = House()
        house.rates(core=5, device=1)
        house.pool.start.set()
        await house.propagate()
        assert house.pool.seen == ["begun"]
        await house.up()
        assert [task.segments for task in house.worker.tasks] == [(1,)]
        house.worker.finish.set()
        house.pool.finish.set()
        await house.done()
        assert house.clip.propagated == {"cpu": 3, "gpu": 3}

    run(test())


def test_a_device_takes_the_window_that_most_waits_of() -> None:
    async def test() -> None:
        house = House(side="gpu")
        house.device.translating = True
        await house.up()
        first = await house.propagate()
        second = await house.propagate(1)
        house.pool.start.set()
        house.propagation._waiting[0].cores_only = True
        house.device.translating = False
        house.propagation.look()
        await turns(4)
        assert house.worker.tasks[0].window is second.window
        house.worker.finish.set()
        house.cores_do()
        await house.done()
        assert [task.window for task in house.worker.tasks] == [second.window, first.window]

    run(test())


class TestFeeding:
    """Cores that bring a device its next windows do not propagate for it."""

    async def house(self) -> House:
        house = House(cores=3)
        house.rates(core=1, device=1, translate=4)
        house.propagation.outlook = lambda: [(64 * 64.0, 0.0)]
        house.device.translating = True
        await house.up()
        return house

    def test_some_are_left(self) -> None:
        async def test() -> None:
            house = await self.house()
            house.propagation.rates.around = Rate(8 / 64**2)
            house.pool.start.set()
            await house.propagate()
            assert house.pool.seen == ["begun"]
            house.pool.finish.set()
            await house.done()
            assert house.pool.seen == ["begun", "done"] * 2

        run(test())

    def test_all_of_them_feed_it(self) -> None:
        async def test() -> None:
            house = await self.house()
            house.propagation.rates.around = Rate(12 / 64**2)
            house.cores_do()
            await house.propagate()
            assert house.pool.seen == []
            house.device.translating = False
            turn = asyncio.create_task(house.propagation.turn(house.device, 64 * 64))
            await turns(4)
            assert [task.segments for task in house.worker.tasks] == [(0, 1)]
            house.worker.finish.set()
            assert await turn
            await house.done()

        run(test())

    def test_none_is_fed_any_more(self) -> None:
        async def test() -> None:
            house = await self.house()
            house.propagation.rates.around = Rate(12 / 64**2)
            house.propagation.outlook = lambda: [(0.0, 64 * 64.0)]
            house.rates(core=1, device=50)
            house.cores_do()
            await house.propagate()
            await house.done()
            assert house.clip.propagated == {"cpu": 6, "gpu": 0}

        run(test())

    def test_how_many_is_measured(self) -> None:
        async def test() -> None:
            house = await self.house()
            work = await house.propagate()
            work.seconds.update(prepare=3.0, match=1.0, publish=4.0, propagate=99.0, translate=9.0)
            for _ in range(2):
                house.propagation.published(work)
            assert house.propagation.rates.around.seconds(3 * 64 * 64) == 8
            house.device.translating = False
            house.propagation.look()
            house.worker.finish.set()
            house.cores_do()
            await house.done()

        run(test())


class TestMachineCode:
    """What cores propagate with is made ahead, by one of them."""

    def test_no_core_begins_a_segment_meanwhile(self) -> None:
        async def test() -> None:
            house = House(cores=2)
            house.rates(core=1, device=50)
            house.propagation.compile_ahead(house.clip)
            house.pool.start.set()
            await turns(4)
            assert house.pool.seen == ["begun"]
            await house.propagate()
            assert house.pool.seen == ["begun"]
            await house.up()
            assert house.worker.tasks == []
            house.pool.finish.set()
            await house.done()
            assert house.clip.propagated == {"cpu": 6, "gpu": 0}

        run(test())

    @pytest.mark.parametrize(
        ("side", "settings", "made"),
        [
            ("cpu", {}, True),
            ("auto", {}, True),
            ("gpu", {}, False),
            ("gpu", {"propagation.inpaint_scale": 1}, True),  # cores do it nevertheless
            ("cpu", {"output.frames": "keys"}, False),
        ],
    )
    def test_only_for_cores(self, side: str, settings: dict[str, Any], made: bool) -> None:
        async def test() -> None:
            house = House(side=side)
            house.clip.settings = merge(Layer("command line", settings))
            house.propagation.compile_ahead(house.clip)
            house.cores_do()
            await turns(6)
            assert house.pool.seen == (["begun", "done"] if made else [])

        run(test())


class TestTurn:
    """A device with a window to translate."""

    def test_translates_first_while_cores_keep_up(self) -> None:
        async def test() -> None:
            house = House()
            house.rates(core=2, device=1, translate=4)
            await house.up()
            device = await house.devices.take(1)
            await house.propagate()
            assert await house.propagation.turn(device, 64 * 64)
            assert device.translating
            assert not house.worker.tasks
            house.cores_do()
            await house.done()

        run(test())

    def test_propagates_first_where_they_do_not(self) -> None:
        async def test() -> None:
            house = House()
            house.rates(core=3, device=1, translate=4)
            await house.up()
            device = await house.devices.take(1)
            await house.propagate()
            turn = asyncio.create_task(house.propagation.turn(device, 64 * 64))
            await turns(4)
            assert house.worker.tasks
            assert not turn.done()
            house.worker.finish.set()
            assert await turn
            await house.done()
            house.propagation.look()
            assert len(house.worker.tasks) == 1

        run(test())

    def test_waits_without_anything_to_translate(self) -> None:
        """For frames a little, in which cores would keep up; for memory perhaps for ever."""

        async def test() -> None:
            house = House()
            house.rates(core=2, device=1, translate=4)
            await house.up()
            house.clip.device = await house.devices.take(1)
            house.clip.plan = Any  # type: ignore[assignment]
            house.propagation._window = lambda clip: 4.0  # type: ignore[method-assign]
            await house.propagate()
            house.clip.blocked = "frames"
            with house.propagation.starved(house.clip):
                assert not house.device.lent
                house.clip.blocked = "memory"
                house.propagation.look()
                assert house.device.lent
            house.worker.finish.set()
            await house.done()

        run(test())


class TestEnd:
    """The last segments, of which cores leave some to devices that will be done sooner."""

    def test_cores_leave_them_to_a_device_that_translates(self) -> None:
        async def test() -> None:
            house = House()
            house.rates(core=20, device=1)
            await house.up()
            house.pool.start.set()
            house.device.translating = True
            house.propagation.outlook = lambda: [(64 * 64, 0)]
            await house.propagate()
            assert not house.pool.seen
            house.device.translating = False
            house.propagation.look()
            house.worker.finish.set()
            await house.done()
            assert house.clip.propagated == {"cpu": 0, "gpu": 6}

        run(test())

    @pytest.mark.parametrize("left", [[None], [(100 * 64 * 64, 0)], [(0, 1e9)]])
    def test_cores_begin_while_more_comes(self, left: Any) -> None:
        async def test() -> None:
            house = House()
            house.rates(core=20, device=1)
            await house.up()
            house.device.translating = True
            house.propagation.outlook = lambda: left
            house.cores_do()
            await house.propagate()
            await house.done()
            assert house.clip.propagated == {"cpu": 6, "gpu": 0}

        run(test())

    def test_a_core_looks_again_at_a_device_that_hangs(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def test() -> None:
            house = House()
            house.rates(core=0.3, device=0.01)
            await house.up()
            house.propagation.outlook = lambda: []
            await house.propagate()  # which the device never does
            house.cores_do()
            await house.propagate(1)
            assert not house.pool.seen
            await asyncio.wait(house.tasks[2:])
            assert house.clip.propagated["cpu"] == 6
            house.worker.finish.set()
            await house.done()

        monkeypatch.setattr("daemon.propagation.LOOK_AGAIN", 0.01)
        run(test())


class TestSides:
    def test_of_cores_alone(self) -> None:
        async def test() -> None:
            house = House(side="cpu")
            house.rates(core=100, device=0.1)
            await house.up()
            house.cores_do()
            await house.propagate()
            await house.done()
            assert not house.propagation.by_devices(house.clip)
            assert not house.worker.tasks

        run(test())

    def test_of_devices_alone(self) -> None:
        async def test() -> None:
            house = House(side="gpu")
            house.rates(core=0.1, device=100)
            await house.up()
            house.device.translating = True
            house.cores_do()
            await house.propagate()
            assert not house.pool.seen
            house.device.translating = False
            house.worker.finish.set()
            house.propagation.look()
            await house.done()
            assert house.clip.propagated == {"cpu": 0, "gpu": 6}

        run(test())

    def test_a_device_of_the_cpu_never_does(self) -> None:
        async def test() -> None:
            house = House("cpu")
            house.rates(core=100, device=0.1)
            await house.up()
            house.cores_do()
            await house.propagate()
            await house.done()
            assert not house.worker.tasks

        run(test())

    def test_what_devices_cannot_do(self) -> None:
        async def test() -> None:
            house = House(side="gpu")
            await house.up()
            house.cores_do()
            radius = merge(Layer("test", {"propagation.inpaint_scale": 4}))
            other = clip_work("b")
            other.settings = radius
            await house.propagate(clip=other)
            await house.done()
            assert not house.worker.tasks
            (warning,) = house.warnings
            assert warning.startswith("b.mp4: propagated by the CPU: inpainting")

        run(test())

    @pytest.mark.parametrize(("side", "told"), [("gpu", 1), ("auto", 0), ("cpu", 0)])
    def test_no_room_for_flows(self, side: str, told: int) -> None:
        async def test() -> None:
            house = House(side=side)
            house.rates(core=100, device=0.1)
            await house.up()
            house.cores_do()
            await house.propagate(flows=False)
            await house.propagate(1, flows=False)
            await house.done()
            assert not house.worker.tasks
            assert house.clip.propagated == {"cpu": 12, "gpu": 0}
            assert house.warnings == told * [
                "a.mp4: propagated by the CPU: windows with flows take more than half of "
                "prefetch.memory: raise that or lower key_frames.resolution, "
                "key_frames.max_interval or key_frames.batch_size"
            ]

        run(test())

    def test_no_flows_after_devices_have_failed(self) -> None:
        """From then on nobody wants any, and the user knows."""

        async def test() -> None:
            house = House(side="gpu")
            await house.up()
            house.worker.error = TaskError("CompilationError", "no such instruction", "")
            house.worker.finish.set()
            house.cores_do()
            await house.propagate()
            await house.done()
            await house.propagate(1, flows=False)
            await house.done()
            (warning,) = house.warnings
            assert "no such instruction" in warning

        run(test())

    def test_no_flows_and_nothing_to_do_with_them(self) -> None:
        async def test() -> None:
            house = House(side="gpu")
            await house.up()
            house.cores_do()
            await house.propagate(flows=False, key_numbers=(0, 1, 2))
            await house.done()
            assert house.warnings == []

        run(test())


class TestFailures:
    def failed(self, error: Exception, **options: Any) -> House:
        house: Any = None

        async def test() -> None:
            nonlocal house
            house = House(**options)
            house.rates(core=5, device=1)
            await house.up()
            house.worker.error = error
            house.worker.finish.set()
            house.cores_do()
            await house.propagate()
            await house.done()
            assert house.clip.propagated == {"cpu": 6, "gpu": 0}
            house.worker.error = None
            await house.devices.settled()
            await house.propagate(1)
            await house.propagate(2, height=32)
            await house.done()

        run(test())
        return house  # type: ignore[no-any-return]

    @pytest.mark.parametrize("kind", [NoMemoryToPropagate, OutOfDeviceMemory])
    def test_no_memory_sends_that_size_to_the_cores(self, kind: type[FrescodError]) -> None:
        house = self.failed(kind("tried to allocate 3 GiB"), side="gpu")
        assert [task.window.height for task in house.worker.tasks] == [64, 32]
        assert house.clip.deaths == 0
        (warning,) = house.warnings
        assert warning == (
            "a.mp4: cuda:0 has no memory to propagate at 64x64 (tried to allocate 3 GiB): from "
            "here on the CPU does that; the GPU is full: lower propagation.device_memory or "
            "key_frames.resolution, or end what else uses it"
        )

    def test_a_death_is_charged_and_another_window_tried(self) -> None:
        house = self.failed(WorkerDied("killed by SIGKILL"), side="gpu")
        assert [task.window.index for task in house.worker.tasks] == [0, 1, 2]
        assert house.clip.deaths == 1
        assert house.device.deaths
        (warning,) = house.warnings
        assert warning == "a.mp4: cuda:0: killed by SIGKILL; the CPU propagates what it had"

    def test_what_cannot_be_run_is_not_tried_again(self) -> None:
        house = self.failed(TaskError("CompilationError", "no such instruction", ""))
        assert len(house.worker.tasks) == 1
        (warning,) = house.warnings
        assert warning == (
            "a.mp4: from here on the CPU alone propagates: cuda:0: CompilationError: no such "
            "instruction"
        )

    def test_a_death_too_many_fails_the_clip(self) -> None:
        async def test() -> None:
            house = House(side="gpu")
            house.clip.deaths = 2
            await house.up()
            house.worker.error = WorkerDied("killed by SIGKILL")
            house.worker.finish.set()
            await house.propagate()
            found = await asyncio.gather(*house.tasks, return_exceptions=True)
            assert ["3 times" in str(error) for error in found] == [True, True]

        run(test())

    def test_another_clip_is_not_charged_for_its_device(self) -> None:
        async def test() -> None:
            house = House()
            house.rates(core=9, device=1, translate=4)
            await house.up()
            device = await house.devices.take(1)
            await house.propagate()
            turn = asyncio.create_task(house.propagation.turn(device, 64 * 64))
            await turns(4)
            house.worker.error = WorkerDied("killed by SIGKILL")
            house.worker.finish.set()
            assert not await turn
            house.devices.give(device)
            await house.devices.settled()
            assert house.devices.is_free(device)
            assert not device.fallen
            house.worker.error = None
            house.cores_do()
            await house.done()

        run(test())


class TestLent:
    def test_nobody_gets_a_device_that_propagates(self) -> None:
        async def test() -> None:
            house = House(side="gpu")
            await house.up()
            await house.propagate()
            take = asyncio.create_task(house.devices.take(1))
            again = asyncio.create_task(house.devices.take(1, number=3, again=True))
            await turns(4)
            assert not take.done()
            assert not again.done()  # it comes back
            house.worker.finish.set()
            device = await again
            house.devices.give(device)
            assert await take is device
            await house.done()

        run(test())

    def test_given_back_by_its_clip_meanwhile(self) -> None:
        async def test() -> None:
            house = House(side="gpu")
            await house.up()
            device = await house.devices.take(1)
            await house.propagate()
            turn = asyncio.create_task(house.propagation.turn(device, 1))
            await turns(4)
            turn.cancel()
            house.devices.give(device)
            assert not house.devices.is_free(device)
            house.worker.finish.set()
            await house.done()
            assert house.devices.is_free(device)

        run(test())

    def test_a_clip_that_is_given_up_at_once_is_not_begun(self) -> None:
        async def test() -> None:
            house = House(side="gpu")
            await house.up()
            house.device.translating = True
            work = await house.propagate()
            house.device.translating = False
            house.propagation.look()
            assert house.device.lent
            for task in house.tasks:
                task.cancel()
            work.block.close()
            await turns(6)
            assert not house.worker.tasks
            assert house.devices.is_free(house.device)

        run(test())

    def test_a_clip_that_is_given_up_has_its_block_used_to_the_end(self) -> None:
        async def test() -> None:
            house = House(side="gpu")
            await house.up()
            work = await house.propagate()
            for task in house.tasks:
                task.cancel()
            await asyncio.wait(house.tasks)
            assert work.running
            house.worker.finish.set()
            await work.settle()
            await turns(4)
            assert house.devices.is_free(house.device)
            assert not house.clip.running

        run(test())
