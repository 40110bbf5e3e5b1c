import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from daemon.job_store import JobStore, StoreError
from daemon.jobs import Arrival, JobState
from daemon.store_view import EVERY, WAIT, StoreView


@pytest.fixture
def store() -> Iterator[JobStore]:
    store = JobStore(":memory:")
    yield store
    store.close()


def add(store: JobStore, name: str) -> None:
    store.arrive([Arrival(Path("/in", name), Path("/in/a.txt"), None, "1")])


def test_counts_and_failures_as_they_are(store: JobStore) -> None:
    async def main() -> None:
        view = StoreView(store, asyncio.to_thread)
        assert view.counts[JobState.QUEUED] == 0
        for count in range(1, 4):
            add(store, f"{count}.mp4")
            await view.refresh()
            assert view.counts[JobState.QUEUED] == count
        store.end(2, JobState.FAILED, "why")
        await view.refresh()
        assert [job.reason for job in view.failures] == ["why"]

    asyncio.run(main())


def test_nothing_is_read_where_nothing_has_changed(store: JobStore) -> None:
    asked = []

    async def ask(act: Callable[[], Any]) -> Any:
        asked.append(act)
        return act()

    async def main() -> None:
        view = StoreView(store, ask)
        for _ in range(3):
            await view.refresh()
        assert len(asked) == 1
        add(store, "a.mp4")
        await view.refresh()
        assert len(asked) == 2

    asyncio.run(main())


def test_a_store_that_does_not_answer_holds_nobody_up(store: JobStore) -> None:
    answers = asyncio.Event()

    async def ask(act: Callable[[], Any]) -> Any:
        await answers.wait()
        return act()

    async def main() -> None:
        view = StoreView(store, ask)
        add(store, "a.mp4")
        begin = time.monotonic()
        await asyncio.gather(*(view.refresh() for _ in range(10)))
        assert WAIT / 2 < time.monotonic() - begin < 10 * WAIT
        assert view.counts[JobState.QUEUED] == 0
        answers.set()
        await view.refresh()
        assert view.counts[JobState.QUEUED] == 1

    asyncio.run(main())


def test_a_store_that_cannot_answer(store: JobStore) -> None:
    broken = True

    async def ask(act: Callable[[], Any]) -> Any:
        if broken:
            raise StoreError("the disk")
        return act()

    async def main() -> None:
        nonlocal broken
        view = StoreView(store, ask)
        add(store, "a.mp4")
        await view.refresh()
        assert view.counts[JobState.QUEUED] == 0
        broken = False
        await view.refresh()
        assert view.counts[JobState.QUEUED] == 1

    asyncio.run(main())


def test_it_follows_though_nobody_asks(store: JobStore) -> None:
    async def main() -> None:
        view = StoreView(store, asyncio.to_thread)
        follow = asyncio.create_task(view.run())
        add(store, "a.mp4")
        async with asyncio.timeout(20 * EVERY):
            while not view.counts[JobState.QUEUED]:
                await asyncio.sleep(0.01)
        follow.cancel()
        with suppress(asyncio.CancelledError):
            await follow

    asyncio.run(main())
