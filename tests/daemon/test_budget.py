"""Tokens that somebody waits for."""

import asyncio
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon import budget
from daemon.budget import Budget, usable_cores


async def turns(count: int = 5) -> None:
    """Let everybody else go on."""
    for _ in range(count):
        await asyncio.sleep(0)


class Queue:
    """Requests in the order in which they were served."""

    def __init__(self, total: int) -> None:
        self.budget = Budget(total)
        self.served: list[str] = []

    def ask(self, name: str, amount: int = 1, priority: tuple[int, ...] = ()) -> asyncio.Task[None]:
        async def wait() -> None:
            await self.budget.acquire(amount, priority)
            self.served.append(name)

        return asyncio.create_task(wait())


def test_smallest_priority_first_then_first_come() -> None:
    async def test() -> None:
        queue = Queue(1)
        await queue.budget.acquire()
        for name, priority in (("b", (2,)), ("c", (2,)), ("a", (1, 9)), ("d", (2, 1))):
            queue.ask(name, 1, priority)
            await turns()
        assert queue.served == []
        for _ in range(4):
            queue.budget.release()
            await turns()
        assert queue.served == ["a", "b", "c", "d"]

    asyncio.run(test())


def test_nobody_overtakes_a_request_for_many() -> None:
    async def test() -> None:
        queue = Queue(4)
        await queue.budget.acquire(2)
        queue.ask("many", 4)
        queue.ask("few")
        await turns()
        assert queue.served == []  # two are free, and kept for it
        queue.budget.release(2)
        await turns()
        assert queue.served == ["many"]

    asyncio.run(test())


def test_who_gives_up_no_longer_stands_in_the_way() -> None:
    async def test() -> None:
        queue = Queue(4)
        await queue.budget.acquire(2)
        many = queue.ask("many", 4)
        queue.ask("few")
        await turns()
        many.cancel()
        await turns()
        assert queue.served == ["few"]

    asyncio.run(test())


def test_a_request_for_more_than_there_are_takes_all() -> None:
    async def test() -> None:
        cores = Budget(2)
        await cores.acquire(8)
        assert cores.free == 0
        cores.release(8)
        assert cores.free == 2

    asyncio.run(test())


@settings(max_examples=100, deadline=None)
@given(
    total=st.integers(1, 6),
    amounts=st.lists(st.tuples(st.integers(1, 8), st.integers(0, 2)), max_size=25),
    seed=st.integers(0, 2**32),
)
def test_never_too_many_and_none_is_lost(
    total: int, amounts: list[tuple[int, int]], seed: int
) -> None:
    """Whoever is cancelled, waiting, just served or at work: all tokens come back."""
    chance = random.Random(seed)

    async def test() -> None:
        cores = Budget(total)
        held = 0

        async def work(amount: int, priority: int) -> None:
            nonlocal held
            for _ in range(chance.randrange(3)):
                await asyncio.sleep(0)
            await cores.acquire(amount, (priority,))
            held += min(amount, total)
            try:
                assert held <= total
                assert cores.free <= total - held  # less where one is served and not yet awake
                for _ in range(chance.randrange(4)):
                    await asyncio.sleep(0)
            finally:
                held -= min(amount, total)
                cores.release(amount)

        tasks = [asyncio.create_task(work(*amount)) for amount in amounts]
        for task in tasks:
            if chance.random() < 0.4:
                await asyncio.sleep(0)
                task.cancel()
        done = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 10)
        assert {type(result) for result in done} <= {type(None), asyncio.CancelledError}
        assert cores.free == total

    asyncio.run(test())


@pytest.mark.parametrize(
    ("text", "cores"), [("max 100000", 8), ("250000 100000", 2), ("50000 100000", 1), ("9", 8)]
)
def test_cores_of_a_control_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, cores: int
) -> None:
    monkeypatch.setattr(budget, "control_groups", lambda: [tmp_path / "own", tmp_path])
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)))
    assert usable_cores() == 8  # no such file
    for folder in (tmp_path / "own", tmp_path):
        folder.mkdir(exist_ok=True)
        (folder / "cpu.max").write_text(text)
        assert usable_cores() == cores
        (folder / "cpu.max").unlink()
