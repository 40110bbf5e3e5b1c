"""Who waits for what, and why nobody waits for ever. Workers are played by the test."""

import asyncio
import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon import devices as devices_module
from daemon.devices import Device, DeviceLost, Devices
from daemon.memory import Account, Memory
from tests.daemon.test_memory import checked, turns


class FakeWorker:
    """Starts in a random number of turns."""

    chance: random.Random

    def __init__(self, name: str, stage: Any, *, deadlines: Any, threads: int) -> None:
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
            names, lambda name: None, deadlines={}, threads=1, on_event=lambda text: None
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
        device: Device | None = None
        held: list[int] = []
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self.prepare(account, sizes, prepared, held))
                while (nbytes := await prepared.get()) is not None:
                    device = await self.translate(account, device, len(sizes))
                    tasks.create_task(self.drain(account, nbytes, held))
                assert device is not None
                self.devices.give(device)
                device = None
        finally:
            if device is not None:
                self.devices.give(device)
            for nbytes in held:
                self.memory.release(account, nbytes)

    async def translate(self, account: Account, device: Device | None, length: int) -> Device:
        while True:
            if device is None:
                device = await self.devices.take(length, account.number, again=not account.ahead)
                self.memory.promote(account)
            await self.some_time()
            if device is self.immortal or self.chance.random() >= self.deaths:
                return device
            device.worker.alive = False  # type: ignore[misc]
            self.devices.died(device)
            self.devices.give(device)
            device = None
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
