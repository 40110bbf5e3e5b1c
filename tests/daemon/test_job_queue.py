import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from daemon import job_queue
from daemon.job_queue import JobQueue
from daemon.job_store import JobStore, StoreError
from daemon.jobs import Arrival, Job, JobResult, JobState, Outcome

Body = Callable[[JobQueue], Awaitable[Any]]


def jobs(*names: str) -> list[Job]:
    return [Job(Path(f"/x/{name}.mp4"), Path(f"/x/{name}.txt"), name) for name in names]


def run(body: Body, *names: str, **options: Any) -> tuple[Any, JobQueue]:
    async def main() -> tuple[Any, JobQueue]:
        queue = JobQueue.of(jobs(*names))
        for name, value in options.items():
            setattr(queue, name, value)
        async with asyncio.timeout(10):
            return await body(queue), queue

    return asyncio.run(main())


async def claim_all(queue: JobQueue) -> list[str]:
    names = []
    while job := await queue.claim():
        names.append(job.name)
    return names


def test_jobs_in_the_order_given_then_the_end() -> None:
    names, queue = run(claim_all, "b", "a", "c")
    assert names == ["b", "a", "c"]
    assert queue.count == 3


async def soon(waiting: "asyncio.Task[Any]") -> bool:
    await asyncio.wait([waiting], timeout=0.2)
    return waiting.done()


def test_an_endless_one_waits_for_more() -> None:
    async def body(queue: JobQueue) -> str:
        waiting = asyncio.create_task(queue.claim())
        assert not await soon(waiting)
        queue.store.arrive([Arrival(Path("/x/a.mp4"), Path("/x/a.txt"), None, "1")])
        queue.wake()
        job = await waiting
        assert job is not None
        return job.name

    assert run(body, endless=True)[0] == "a"


def test_paused_it_hands_out_nothing() -> None:
    async def body(queue: JobQueue) -> None:
        queue.pause()
        waiting = asyncio.create_task(queue.claim())
        assert not await soon(waiting)
        queue.resume()
        assert await waiting is not None

    run(body, "a")


def test_drained_it_ends_for_those_who_wait() -> None:
    async def body(queue: JobQueue) -> None:
        waiting = asyncio.create_task(queue.claim())
        assert not await soon(waiting)
        queue.drain()
        assert await waiting is None
        assert await queue.claim() is None

    _, queue = run(body, endless=True)
    assert queue.draining


@pytest.mark.parametrize(
    ("outcome", "state", "attempts"),
    [
        (Outcome.DONE, JobState.DONE, 1),
        (Outcome.ALREADY_DONE, JobState.DONE, 1),
        (Outcome.FAILED, JobState.FAILED, 1),
        (Outcome.QUEUED, JobState.QUEUED, 0),
        (Outcome.CANCELLED, JobState.CANCELLED, 1),
    ],
)
def test_what_becomes_of_a_job(outcome: Outcome, state: JobState, attempts: int) -> None:
    ended = []

    async def body(queue: JobQueue) -> None:
        queue._on_end = lambda job, result: ended.append((job.name, result.outcome))
        job = await queue.claim()
        assert job is not None
        await queue.end(job, JobResult(job.clip, outcome, 2.5, "why"))

    _, queue = run(body, "a")
    record = queue.store.get(1)
    assert (record.state, record.attempts) == (state, attempts)
    assert ended == [("a", outcome)]
    if outcome in (Outcome.FAILED, Outcome.QUEUED, Outcome.CANCELLED):
        assert (record.reason, record.seconds) == ("why", 2.5)


def test_what_waits_for_a_folder_is_claimed_when_that_is_free() -> None:
    async def body(queue: JobQueue) -> None:
        other = Arrival(Path("/y/a.mp4"), Path("/y/a.txt"), None, "", name="a")
        queue.store.arrive([other])
        first = await queue.claim()
        assert first is not None
        waiting = asyncio.create_task(queue.claim())
        assert not await soon(waiting)
        await queue.end(first, JobResult(first.clip, Outcome.DONE))
        second = await waiting
        assert second is not None
        assert second.clip == other.clip

    run(body, "a")


def test_what_the_store_cannot_take_is_written_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_queue, "_AGAIN", 0.05)
    told: list[str] = []

    async def body(queue: JobQueue) -> None:
        job = await queue.claim()
        assert job is not None
        end, problems = JobStore.end, list[str]()

        def full(*arguments: Any) -> None:
            problems.append(queue.problem)
            if len(problems) < 3:
                raise StoreError("jobs.sqlite: no space")
            end(*arguments)

        monkeypatch.setattr(JobStore, "end", full)
        queue._on_problem = told.append
        await queue.end(job, JobResult(job.clip, Outcome.DONE))
        assert problems == ["", "jobs.sqlite: no space", "jobs.sqlite: no space"]

    _, queue = run(body, "a")
    assert told == ["jobs.sqlite: no space"]
    assert queue.problem == ""
    assert queue.store.get(1).state is JobState.DONE


def test_one_that_ends_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_queue, "_AGAIN", 0.05)

    def full(*arguments: Any) -> None:
        raise StoreError("jobs.sqlite: no space")

    async def body(queue: JobQueue) -> None:
        with pytest.raises(StoreError):
            await queue.do(full)

    run(body, "a", _patience=0.1)


def test_nothing_is_handed_out_while_held() -> None:
    held = [True]

    async def body(queue: JobQueue) -> None:
        queue._hold = lambda: held[0]
        waiting = asyncio.create_task(queue.claim())
        assert not await soon(waiting)
        held[0] = False
        assert await waiting is not None

    run(body, "a")


def test_a_claim_that_a_pause_overtakes_is_given_back() -> None:
    async def body(queue: JobQueue) -> None:
        claim = queue.store.claim

        def slow(*arguments: Any) -> Any:
            record = claim(*arguments)
            queue.paused = True
            return record

        queue.store.claim = slow  # type: ignore[method-assign]
        waiting = asyncio.create_task(queue.claim())
        assert not await soon(waiting)
        record = queue.store.get(1)
        assert (record.state, record.attempts) == (JobState.QUEUED, 0)
        waiting.cancel()

    run(body, "a")


def test_what_is_put_off_comes_later() -> None:
    async def body(queue: JobQueue) -> list[str]:
        first = await queue.claim()
        assert first is not None
        queue.put_off(first, 0.05)
        await queue.end(first, JobResult(first.clip, Outcome.QUEUED))
        return await claim_all(queue)

    assert run(body, "a", "b")[0] == ["b", "a"]
