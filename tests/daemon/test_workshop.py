"""Who waits for what, and why nobody waits for ever. Workers are played by the test."""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon import devices as devices_module
from daemon import workshop as workshop_module
from daemon.devices import Device, DeviceLost, Devices
from daemon.memory import Account, Memory
from daemon.work import WindowWork
from io_pipeline.blocks import Block, BlockError
from io_pipeline.tasks import DrawMap, MatchPair, Translated
from io_pipeline.window import Window
from io_pipeline.writing import DiskFullError
from tests.daemon.shops import Pool, clip_work, run, window
from tests.daemon.shops import shop as make_shop
from tests.daemon.test_memory import checked, turns


class FakeWorker:
    """Starts in a random number of turns."""

    chance: random.Random

    def __init__(
        self, name: str, stage: Any, *, deadlines: Any, threads: int, on_record: Any
    ) -> None:
        self.name, self.alive = name, False

    async def start(self) -> Any:
        await turns(self.chance.randrange(4))
        self.alive = True
        return {"device": self.name}

    async def stop(self) -> None:
        self.alive = False


class Life:
    """Clips with the real memory and the real devices, which die now and then.

    As the main loop does it: windows prepared ahead, one device a clip, which is kept while the
    clip is translated; windows drain when they are translated; a clip whose device is lost gives
    everything back and begins anew.
    """

    def __init__(
        self, chance: random.Random, total: int, count: int, queue: int, deaths: float
    ) -> None:
        self.chance = chance
        self.deaths = deaths
        self.queue = queue
        self.memory = Memory(total, lambda used: checked(self.memory, used))
        names = [f"cuda:{i}" for i in range(count)]
        self.devices = Devices(
            names, lambda name: None, deadlines={}, threads=1, on_event=lambda text, action: None
        )
        # one that never dies, or nothing would be left
        self.immortal = self.devices.all[0]
        self.finished: list[int] = []

    async def some_time(self) -> None:
        await turns(self.chance.randrange(5))

    async def run(self, clips: Sequence[Sequence[int]]) -> None:
        self.devices.start()
        slots = asyncio.Semaphore(2 * len(self.devices.all))
        async with asyncio.TaskGroup() as group:
            for number, sizes in enumerate(clips):
                await slots.acquire()
                group.create_task(self.job(number, sizes, slots))
        await self.devices.close()

    async def job(self, number: int, sizes: Sequence[int], slots: asyncio.Semaphore) -> None:
        with self.devices.expected(number):
            while True:
                try:
                    await self.clip(Account(number), sizes)
                    break
                except* DeviceLost:
                    pass
        self.finished.append(number)
        slots.release()

    async def clip(self, account: Account, sizes: Sequence[int]) -> None:
        prepared: asyncio.Queue[int | None] = asyncio.Queue(self.queue)
        devices: list[Device] = []  # none, or the one that it has
        held: list[int] = []
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self.prepare(account, sizes, prepared, held))
                while (nbytes := await prepared.get()) is not None:
                    await self.translate(account, devices, len(sizes))
                    tasks.create_task(self.drain(account, nbytes, held))
                self.devices.give(devices.pop())
        finally:
            for device in devices:
                self.devices.give(device)
            for nbytes in held:
                self.memory.release(account, nbytes)

    async def translate(self, account: Account, devices: list[Device], length: int) -> None:
        while True:
            if not devices:
                again = not account.ahead
                devices.append(await self.devices.take(length, account.number, again=again))
                self.memory.promote(account)
            (device,) = devices
            await self.some_time()
            if device is self.immortal or self.chance.random() >= self.deaths:
                return self.devices.done(device)
            device.worker.alive = False  # type: ignore[misc]
            self.devices.died(device)
            self.devices.give(devices.pop())
            await self.some_time()

    async def prepare(
        self,
        account: Account,
        sizes: Sequence[int],
        prepared: "asyncio.Queue[int | None]",
        held: list[int],
    ) -> None:
        for nbytes in sizes:
            await self.memory.acquire(account, nbytes, lambda: self.devices.forget(account.number))
            held.append(nbytes)
            await self.some_time()
            await prepared.put(nbytes)
        await prepared.put(None)

    async def drain(self, account: Account, nbytes: int, held: list[int]) -> None:
        await self.some_time()
        held.remove(nbytes)
        self.memory.release(account, nbytes)


@settings(max_examples=300, deadline=None)
@given(
    clips=st.lists(st.lists(st.integers(1, 50), min_size=1, max_size=6), max_size=8),
    count=st.integers(1, 3),
    queue=st.integers(1, 4),
    total=st.integers(100, 200),
    deaths=st.sampled_from([0.0, 0.3, 0.7]),
    seed=st.integers(0, 2**32),
)
def test_every_clip_is_finished_whatever_dies(
    clips: list[list[int]], count: int, queue: int, total: int, deaths: float, seed: int
) -> None:
    async def test() -> None:
        chance = random.Random(seed)
        FakeWorker.chance = chance
        life = Life(chance, total, count, queue, deaths)
        async with asyncio.timeout(5):
            await life.run(clips)
        assert sorted(life.finished) == list(range(len(clips)))
        assert life.memory.used == 0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(devices_module, "Worker", FakeWorker)
        asyncio.run(test())


class FakeReader:
    """Takes a window's memory when the machine of the test has it."""

    def __init__(self, machine: int) -> None:
        self.free = machine
        self.tries = 0

    async def read(self, plan: Any, window: Window, block: Block) -> None:
        self.tries += 1
        await turns()
        if block.nbytes > self.free:
            raise BlockError(f"no memory for a block of {block.nbytes} bytes")
        self.free -= block.nbytes
        block.allocate()


NBYTES = window().layout().nbytes


class TestMemoryThatTheMachineHasNot:
    """Windows that are granted more than there is."""

    @pytest.fixture(autouse=True)
    def quick(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(workshop_module, "_AGAIN", 0.01)

    def test_no_descriptor_for_a_block(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def create(layout: Any) -> Block:
            raise BlockError("no memory for a block: Too many open files")

        async def test() -> None:
            shop, _ = make_shop()
            clip = clip_work()
            with pytest.raises(BlockError, match="Too many"):
                await shop.read(clip, FakeReader(NBYTES), window())
            assert shop.memory.used == clip.account.held == 0

        monkeypatch.setattr(Block, "create", create)
        run(test())

    def test_waits_for_a_window_that_has_taken_its_memory(self) -> None:
        async def test() -> None:
            shop, warnings = make_shop()
            reader = FakeReader(NBYTES)
            first, second = clip_work("a", 0), clip_work("b", 1)
            work = await shop.read(first, reader, window())
            waiting = asyncio.create_task(shop.read(second, reader, window()))
            while reader.tries < 4:
                await asyncio.sleep(0.001)
            await shop.drop(first, work)
            reader.free = NBYTES
            await shop.drop(second, await waiting)
            assert shop.memory.used == 0
            assert warnings == [
                "b.mp4: the machine has less memory than prefetch.memory: waiting for it"
            ]

        run(test())

    def test_granted_but_not_taken_is_nothing_to_wait_for(self) -> None:
        """Two that the machine has no memory for would wait for each other."""

        async def test() -> None:
            shop, _ = make_shop()
            reader = FakeReader(NBYTES - 1)
            clips = clip_work("a", 0), clip_work("b", 1)
            results = await asyncio.gather(
                *(shop.read(clip, reader, window()) for clip in clips), return_exceptions=True
            )
            assert [type(result) for result in results] == [BlockError, BlockError]
            for clip in clips:
                await shop.clear(clip)
            assert shop.memory.used == 0

        run(test())

    def test_a_clip_with_a_device_does_not_wait_for_one_without(self) -> None:
        """That one may wait for its device."""

        async def test() -> None:
            shop, _ = make_shop()
            reader = FakeReader(NBYTES)
            ahead, with_device = clip_work("a", 0), clip_work("b", 1, ahead=False)
            work = await shop.read(ahead, reader, window())
            with pytest.raises(BlockError):
                await shop.read(with_device, reader, window())
            await shop.clear(with_device)
            await shop.drop(ahead, work)

        run(test())

    def test_memory_that_came_back_during_the_try(self) -> None:
        async def test() -> None:
            shop, _ = make_shop()
            reader = FakeReader(NBYTES)
            first, second = clip_work("a", 0), clip_work("b", 1)
            work = await shop.read(first, reader, window())
            waiting = asyncio.create_task(shop.read(second, reader, window()))
            await turns(2)
            assert reader.tries == 2
            work.block.close()  # at once, for the answer to come later
            shop._windows.pop(work)
            await turns(5)
            reader.free = NBYTES
            await shop.drop(second, await waiting)

        run(test())


class TestFullDisk:
    def test_tries_less_and_less_often(self, monkeypatch: pytest.MonkeyPatch) -> None:
        pauses: list[float] = []
        sleep = asyncio.sleep

        async def no_sleep(seconds: float) -> None:
            pauses.append(seconds)
            await sleep(0)

        async def test() -> None:
            shop, warnings = make_shop(space=1e6)
            space = iter([False] * 8 + [True])

            async def write() -> str:
                if next(space):
                    return "written"
                raise DiskFullError("a: no space")

            assert await shop.until_space(clip_work(), write) == "written"
            assert pauses == [2, 4, 8, 16, 32, 60, 60, 60]
            assert warnings == ["a.mp4: no space left for /out/a: waiting for some"]

        monkeypatch.setattr(asyncio, "sleep", no_sleep)
        run(test())

    def test_gives_up_in_time(self) -> None:
        async def test() -> None:
            shop, _ = make_shop(space=0.1)
            tries: list[float] = []

            async def write() -> None:
                tries.append(asyncio.get_running_loop().time())
                raise DiskFullError("a: no space")

            with pytest.raises(DiskFullError, match="no space"):
                await shop.until_space(clip_work(), write)
            assert len(tries) == 2  # once more, when the time is over
            assert 0.1 <= tries[1] - tries[0] < 1

        run(test())


class TestSegmentsAtATime:
    """propagation.processes: of the cores that are free, so many are for propagation."""

    @pytest.mark.parametrize(("segments", "begun"), [(0, 4), (1, 1), (2, 2), (9, 4)])
    def test_bound(self, segments: int, begun: int) -> None:
        async def test() -> None:
            pool = Pool()
            shop, _ = make_shop(pool, cores=4, segments=segments)
            clip, work = clip_work(), WindowWork(window(), Block.create(window().layout()))
            pool.start.set()
            tasks = [asyncio.create_task(shop.propagate(clip, work, 0)) for _ in range(4)]
            await turns(20)
            assert pool.seen.count("begun") == begun
            assert shop.cores.free == 4 - begun
            assert shop.waiting("cpu") == 4 - begun
            # Others find the cores free.
            shown = asyncio.create_task(shop.save(clip, work, Translated((), ("", ""))))
            await turns(20)
            assert pool.seen.count("begun") == min(begun + 1, 4)
            pool.finish.set()
            await asyncio.gather(*tasks, shown)
            assert pool.seen.count("done") == 5
            assert shop.cores.free == 4
            work.block.close()

        run(test())

    def test_called_off_before_and_after_it_is_begun(self) -> None:
        async def test() -> None:
            pool = Pool()
            shop, _ = make_shop(pool, cores=2, segments=1)
            clip, work = clip_work(), WindowWork(window(), Block.create(window().layout()))
            pool.start.set()
            tasks = [asyncio.create_task(shop.propagate(clip, work, 0)) for _ in range(3)]
            await turns(20)
            for task in tasks[:2]:  # one is begun and goes on, one waits
                task.cancel()
            await turns(20)
            assert pool.seen == ["begun"]
            pool.finish.set()
            await asyncio.gather(*tasks, return_exceptions=True)
            await clip.settle()
            assert pool.seen == ["begun", "done"] * 2
            assert (shop.cores.free, shop.propagation._limit.free) == (2, 1)
            work.block.close()

        run(test())


class Recorder(Pool):
    """Remembers the tasks."""

    def __init__(self) -> None:
        super().__init__()
        self.tasks: list[Any] = []

    async def run(self, task: Any, blocks: Any, **options: Any) -> None:
        self.tasks.append(task)
        await super().run(task, blocks, **options)


class TestMatchedAhead:
    """Pairs of key frames that the pool matches before a device comes to their window."""

    MATCHED = replace(window(), matched=True)
    DEVICE: Any = SimpleNamespace(name="cuda:0", is_gpu=True)

    async def read(self, shop: Any, clip: Any, chosen: Window) -> WindowWork:
        work: WindowWork = await shop.read(clip, FakeReader(1 << 30), chosen)
        return work

    def test_goes_before_what_takes_longer(self) -> None:
        """It is begun by the reading, while no device is there."""

        async def test() -> None:
            pool = Recorder()
            shop, _ = make_shop(pool, cores=1)
            first, second = clip_work("a", 0), clip_work("b", 1)
            await shop.cores.acquire()
            drawn = await self.read(shop, first, window(controls=1))
            work = await self.read(shop, second, self.MATCHED)
            await turns()
            pool.start.set()
            pool.finish.set()
            shop.cores.release()
            await asyncio.gather(*work.matches, *(drawing.task for drawing in drawn.maps))
            assert pool.tasks[:3] == [MatchPair(self.MATCHED, pair) for pair in range(3)]
            assert [type(task) for task in pool.tasks[3:]] == [DrawMap] * 3
            assert second.seconds["match"] > 0
            await shop.drop(first, drawn)
            await shop.drop(second, work)

        run(test())

    def test_a_device_waits_for_all_of_it(self) -> None:
        async def test() -> None:
            pool = Recorder()
            shop, _ = make_shop(pool, cores=3)
            clip = clip_work()
            work = await self.read(shop, clip, self.MATCHED)
            ahead = asyncio.create_task(shop._ahead(clip, work, self.DEVICE))
            pool.start.set()
            await turns(20)
            assert pool.seen == ["begun"] * 3
            assert not ahead.done()
            pool.finish.set()
            assert await ahead == ()
            assert pool.seen[3:] == ["done"] * 3
            await shop.drop(clip, work)

        run(test())

    def test_its_failure_is_the_windows(self) -> None:
        async def test() -> None:
            pool = Recorder()
            pool.error = ValueError("no pair")
            shop, _ = make_shop(pool, cores=3)
            clip = clip_work()
            work = await self.read(shop, clip, self.MATCHED)
            pool.start.set()
            pool.finish.set()
            with pytest.raises(ValueError, match="no pair"):
                await shop._ahead(clip, work, self.DEVICE)
            await shop.clear(clip)

        run(test())

    def test_a_window_that_was_translated_before_needs_none(self) -> None:
        async def test() -> None:
            pool = Recorder()
            shop, _ = make_shop(pool)
            clip = clip_work()
            clip.translated = frozenset({0})
            work = await self.read(shop, clip, self.MATCHED)
            assert not work.matches
            assert shop.memory.used == work.block.nbytes == NBYTES < self.MATCHED.layout().nbytes
            await shop.drop(clip, work)

        run(test())

    def test_a_window_that_has_room_only_without_goes_without(self) -> None:
        async def test() -> None:
            shop, _ = make_shop(total=2 * self.MATCHED.layout().nbytes - 1)
            clip = clip_work()
            work = await self.read(shop, clip, self.MATCHED)
            assert not work.matches
            assert work.window.ring_pairs == 0
            assert work.block.nbytes == NBYTES
            await shop.drop(clip, work)

        run(test())

    def test_is_given_up_with_its_clip(self) -> None:
        """What has begun goes on to its end, before the block is closed."""

        async def test() -> None:
            pool = Recorder()
            shop, _ = make_shop(pool, cores=1)
            clip = clip_work()
            work = await self.read(shop, clip, self.MATCHED)
            pool.start.set()
            await turns(20)
            work.abandon()
            dropping = asyncio.create_task(shop.drop(clip, work))
            await turns(20)
            assert not dropping.done()
            pool.finish.set()
            await dropping
            assert pool.seen == ["begun", "done"]
            assert (shop.memory.used, shop.cores.free) == (0, 1)

        run(test())
