"""What arrives and goes, with nothing left of what has gone."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from daemon.inbox import Changes
from daemon.intake import Intake
from daemon.job_queue import JobQueue
from daemon.job_store import JobStore
from daemon.jobs import Arrival, Job, JobResult, JobState, Outcome

CLIP = Path("/in/a.mp4")


class Shop:
    """An inbox and a pipeline as the intake sees them: ``forgotten`` is what is removed."""

    def __init__(self) -> None:
        self.store = JobStore(":memory:")
        self.queue = JobQueue(self.store, endless=True)
        self.running: set[Path] = set()
        self.forgotten: list[str] = []
        inbox: Any = self
        self.intake = Intake(inbox, self.queue, lambda: self.running, self.forgotten.append)

    async def lacks(self, clip: Path) -> bool:
        return True

    async def tell_again(self, clip: Path) -> None:
        raise AssertionError(clip)

    async def drop(self) -> Job:
        """A clip arrives and is taken."""
        await self.intake.change(Changes((Arrival(CLIP, CLIP.with_suffix(".txt"), None, "1"),)))
        job = await self.queue.claim()
        assert job is not None
        return job

    @property
    def state(self) -> JobState:
        return self.store.get(1).state


@pytest.fixture
def shop() -> Shop:
    return Shop()


def test_nothing_stays_of_a_clip_that_goes_while_its_interrupted_job_waits(shop: Shop) -> None:
    async def test() -> None:
        await shop.drop()
        shop.store.recover(attempts=3)  # the daemon was killed meanwhile
        await shop.intake.change(Changes(gone=(CLIP,)))

    asyncio.run(test())
    assert shop.state is JobState.CANCELLED
    assert shop.forgotten == ["a"]


def test_nothing_stays_of_a_clip_that_went_before_its_job_was_queued_again(shop: Shop) -> None:
    async def test() -> None:
        job = await shop.drop()
        await shop.intake.change(Changes(gone=(CLIP,)))
        assert shop.forgotten == []  # it is in work
        result = JobResult(CLIP, Outcome.QUEUED)
        await shop.queue.end(job, result)  # the disk was full
        shop.intake.ended(job, result)
        async with asyncio.timeout(5):
            while shop.state is not JobState.CANCELLED or not shop.forgotten:
                await asyncio.sleep(0)

    asyncio.run(test())
    assert shop.forgotten == ["a"]


def test_its_name_is_free_only_when_nothing_is_left(shop: Shop) -> None:
    """Another clip of the same name would be built in the folder that is being removed."""
    states = []

    def forget(name: str) -> None:
        states.append([job.state for job in shop.store.jobs()])

    shop.intake = Intake(shop, shop.queue, lambda: (), forget)  # type: ignore[arg-type]

    async def test() -> None:
        await shop.drop()
        shop.store.recover(attempts=3)
        other = CLIP.with_suffix(".mkv")
        arrival = Arrival(other, CLIP.with_suffix(".txt"), None, "2")
        await asyncio.gather(
            shop.intake.change(Changes(gone=(CLIP,))), shop.intake.change(Changes((arrival,)))
        )

    asyncio.run(test())
    assert states == [[JobState.CANCELLED]]
    assert [job.name for job in shop.store.jobs()] == ["a", "a"]
