"""Bytes that are granted: never too many, and always enough for everybody to go on."""

import asyncio
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon import memory
from daemon.memory import Account, Memory, budget_bytes
from fresco_core.errors import ClipError, ConfigError

MIB = 2**20


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def test_what_is_prepared_ahead_gets_half_and_a_device_s_clip_all() -> None:
    async def test() -> None:
        bytes_ = Memory(100)
        ahead, other = Account(0), Account(1)
        await bytes_.acquire(ahead, 50)
        more = asyncio.create_task(bytes_.acquire(ahead, 10))
        with_device = asyncio.create_task(bytes_.acquire(other, 30))
        await turns()
        assert not more.done()
        assert not with_device.done()
        bytes_.promote(other)
        await turns()
        assert with_device.done()  # not held up by the one before it, who may have no more
        bytes_.promote(ahead)
        await turns()
        assert more.done()
        assert (bytes_.used, bytes_.peak) == (90, 90)

    asyncio.run(test())


def test_earlier_clips_first_and_nobody_overtakes() -> None:
    async def test() -> None:
        bytes_ = Memory(100)
        accounts = [Account(number, ahead=False) for number in range(3)]
        await bytes_.acquire(accounts[0], 80)
        late = asyncio.create_task(bytes_.acquire(accounts[2], 20))
        await turns()
        assert late.done()
        second = asyncio.create_task(bytes_.acquire(accounts[2], 10))
        first = asyncio.create_task(bytes_.acquire(accounts[1], 50))
        await turns()
        bytes_.release(accounts[2], 20)
        await turns()
        assert not second.done()  # 20 bytes are free, and the first needs 50
        bytes_.release(accounts[0], 80)
        await turns()
        assert first.done()
        assert second.done()

    asyncio.run(test())


def test_a_window_of_more_than_half_is_refused() -> None:
    bytes_ = Memory(100 * MIB)
    bytes_.check(50 * MIB, Path("a.mp4"))
    with pytest.raises(ClipError, match=r"a\.mp4: a window of it takes 51.0 MiB .* to 102MiB"):
        bytes_.check(51 * MIB - 7, Path("a.mp4"))


def test_changes_are_told() -> None:
    told: list[int] = []

    async def test() -> None:
        bytes_ = Memory(10, told.append)
        account = Account(0)
        await bytes_.acquire(account, 4)
        bytes_.release(account, 4)

    asyncio.run(test())
    assert told == [4, 0]


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32), count=st.integers(1, 12))
def test_whoever_gives_up_leaves_nothing_behind(seed: int, count: int) -> None:
    chance = random.Random(seed)

    async def test() -> None:
        bytes_ = Memory(100, lambda used: checked(bytes_, used))

        async def hold(account: Account) -> None:
            for _ in range(chance.randrange(4)):
                nbytes = chance.randint(1, 50)
                await bytes_.acquire(account, nbytes)
                try:
                    await turns(chance.randrange(3))
                    if chance.random() < 0.3:
                        bytes_.promote(account)
                finally:
                    bytes_.release(account, nbytes)

        tasks = [asyncio.create_task(hold(Account(number))) for number in range(count)]
        for task in tasks:
            if chance.random() < 0.5:
                await turns(chance.randrange(3))
                task.cancel()
        await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 10)
        assert bytes_.used == 0
        await bytes_.acquire(Account(99), 50)  # also of what is ahead nothing has leaked

    asyncio.run(test())


def checked(bytes_: Memory, used: int) -> None:
    assert 0 <= used <= bytes_.total
    assert 0 <= bytes_._ahead <= bytes_.total // 2


class Life:
    """Clips through the loop's own waiting: memory, a queue, a device, and draining.

    Everything that takes time takes a random number of turns.
    """

    def __init__(self, chance: random.Random, total: int, devices: int, queue: int) -> None:
        self.chance = chance
        self.memory = Memory(total, lambda used: checked(self.memory, used))
        self.devices: asyncio.Semaphore = asyncio.Semaphore(devices)
        self.slots = asyncio.Semaphore(2 * devices)
        self.queue = queue
        self.finished = 0

    async def some_time(self) -> None:
        await turns(self.chance.randrange(6))

    async def clip(self, number: int, sizes: Sequence[int]) -> None:
        account = Account(number)
        prepared: asyncio.Queue[int | None] = asyncio.Queue(self.queue)
        has_device = False
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.prepare(account, sizes, prepared))
            while (nbytes := await prepared.get()) is not None:
                if not has_device:
                    await self.devices.acquire()
                    self.memory.promote(account)
                    has_device = True
                await self.some_time()
                tasks.create_task(self.drain(account, nbytes))
            self.devices.release()
            self.slots.release()
        self.finished += 1

    async def prepare(
        self, account: Account, sizes: Sequence[int], prepared: "asyncio.Queue[Any]"
    ) -> None:
        for nbytes in sizes:
            await self.memory.acquire(account, nbytes)
            await self.some_time()
            await prepared.put(nbytes)
        await prepared.put(None)

    async def drain(self, account: Account, nbytes: int) -> None:
        await self.some_time()
        self.memory.release(account, nbytes)


@settings(max_examples=200, deadline=None)
@given(
    clips=st.lists(st.lists(st.integers(1, 50), min_size=1, max_size=6), max_size=10),
    devices=st.integers(1, 4),
    queue=st.integers(1, 5),
    total=st.integers(100, 300),
    seed=st.integers(0, 2**32),
)
def test_everybody_can_always_go_on(
    clips: list[list[int]], devices: int, queue: int, total: int, seed: int
) -> None:
    async def test() -> None:
        life = Life(random.Random(seed), total, devices, queue)
        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            for number, sizes in enumerate(clips):
                await life.slots.acquire()
                group.create_task(life.clip(number, sizes))
        assert life.finished == len(clips)
        assert life.memory.used == 0

    asyncio.run(test())


class TestBudget:
    @pytest.fixture(autouse=True)
    def available(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(memory, "available_memory", lambda: 8 * 2**30)

    @pytest.mark.parametrize(
        ("text", "nbytes"),
        [
            ("512MiB", 512 * MIB),
            ("1.5 gib", 1536 * MIB),
            ("7gib", 7 * 2**30),
        ],
    )
    def test_sizes(self, text: str, nbytes: int) -> None:
        assert budget_bytes(text, 1) == nbytes

    def test_auto_is_a_gib_a_device_and_one_but_a_quarter_at_most(self) -> None:
        assert budget_bytes("auto", 0) == 2**30
        assert budget_bytes("auto", 1) == 2 * 2**30
        assert budget_bytes("auto", 8) == 2 * 2**30

    def test_more_than_there_is(self) -> None:
        with pytest.raises(ConfigError, match=r"9216 MiB .* are needed, 8192 MiB are available"):
            budget_bytes("9GiB", 1)

    @pytest.mark.parametrize("text", ["", "much", "-1GiB", "1GB", "1e9", "4096", "2KiB", "0GiB"])
    def test_no_size(self, text: str) -> None:
        with pytest.raises(ConfigError, match="is no size"):
            budget_bytes(text, 1)
