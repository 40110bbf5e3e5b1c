"""The pipeline's side of the store: what is to be done next, and how it fares."""

import asyncio
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, Self, TypeVar

from daemon.fingerprints import Fingerprints
from daemon.job_store import JobStore, StoreError
from daemon.jobs import Arrival, Job, JobResult, JobState, Outcome

T = TypeVar("T")

# Seconds between two tries to write to the store: the first, and the most there may be.
_AGAIN, _SELDOM = 1.0, 30.0


class JobQueue:
    """Hands out the store's jobs, and writes down what becomes of them.

    What the store cannot take (its disk is full) is written as soon as it can.

    Args:
        endless: more jobs may come at any time; else it ends when the last one has been claimed.
        only: the numbers of the jobs that are to be done; None: all.
        hold: nothing is handed out while it says so.
        patience: seconds in which the store has to take what is written; None: for ever.
        on_end: called with a job and its result when that is in the store.
        on_problem: called when the store cannot be written, once until it can.

    Attributes:
        count: of all jobs, where it is known; else 0.
        problem: why the store cannot be written at the moment; empty where it can.
        paused, draining: no job is handed out, for now or for good.
    """

    def __init__(
        self,
        store: JobStore,
        *,
        endless: bool = False,
        only: Collection[int] | None = None,
        hold: Callable[[], bool] = lambda: False,
        patience: float | None = None,
        count: int = 0,
        on_end: Callable[[Job, JobResult], None] = lambda job, result: None,
        on_problem: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.store = store
        self.endless = endless
        self._only = only
        self._hold = hold
        self._patience = patience
        self.count = count
        self.problem = ""
        self.paused = False
        self.draining = False
        self._on_end = on_end
        self._on_problem = on_problem
        self._wake = asyncio.Event()
        self._later: set[int] = set()
        # Its own: the store has to answer also when all other threads wait for a disk.
        self._thread = ThreadPoolExecutor(1, "store")

    @classmethod
    def of(cls, jobs: Sequence[Job]) -> Self:
        """These jobs in this order, in a store of the memory."""
        store = JobStore(":memory:")
        store.arrive(map(Arrival.of, jobs))
        return cls(store, count=len(jobs))

    async def claim(self) -> Job | None:
        """The next job, once there is one; None when there will be none any more."""
        while True:
            self._wake.clear()
            if self.draining:
                return None
            held = self._hold()
            if not self.paused and not held:
                record = await self.do(self.store.claim, tuple(self._later), self._only)
                if record is not None and (self.draining or self.paused):  # since just now
                    await self.do(self.store.release, record.id)
                    continue
                if record is not None:
                    return record.job()
                if not self.endless and await self.do(self.store.is_empty, self._only):
                    return None
            with suppress(TimeoutError):
                async with asyncio.timeout(_AGAIN if held else None):
                    await self._wake.wait()

    def put_off(self, job: Job, seconds: float) -> None:
        """Hand a job out again only after so many seconds, when it is queued again."""

        def take_up() -> None:
            self._later.discard(job.id)
            self.wake()

        self._later.add(job.id)
        asyncio.get_running_loop().call_later(seconds, take_up)

    def wake(self) -> None:
        """There may be another job."""
        self._wake.set()

    def pause(self) -> None:
        """Hand out nothing until `resume`."""
        self.paused = True

    def resume(self) -> None:
        """Hand out jobs again."""
        self.paused = False
        self.wake()

    def drain(self) -> None:
        """Hand out nothing any more."""
        self.draining = True
        self.wake()

    # --- how a job fares -------------------------------------------------------------------------

    async def begin(self, job: Job, prints: Fingerprints) -> None:
        """What the job's result is made from is known."""
        await self.do(self.store.set_prints, job.id, prints)

    async def go_on(self, job: Job, state: JobState) -> None:
        """The job has come to its next stage."""
        await self.do(self.store.set_state, job.id, state)

    async def window_done(self, job: Job, done: int, count: int) -> None:
        """One more of the job's windows is on disk."""
        await self.do(self.store.window_done, job.id, done, count)

    async def charge(self, job: Job) -> None:
        """A process has died of it."""
        await self.do(self.store.charge, job.id)

    async def end(self, job: Job, result: JobResult) -> None:
        """The job has ended, or goes back into the queue."""
        match result.outcome:
            case Outcome.DONE:
                await self.do(self.store.end, job.id, JobState.DONE, "", result.seconds)
            case Outcome.ALREADY_DONE:
                await self.do(self.store.end_as_before, job.id)
            case Outcome.QUEUED:
                await self.do(self.store.release, job.id, result.reason, result.seconds)
            case Outcome.CANCELLED:
                await self.do(
                    self.store.end, job.id, JobState.CANCELLED, result.reason, result.seconds
                )
            case _:
                await self.do(
                    self.store.end, job.id, JobState.FAILED, result.reason, result.seconds
                )
        self._on_end(job, result)
        self.wake()  # another job may have waited for its folder

    async def do(self, act: Callable[..., T], *arguments: Any) -> T:
        """Have the store do something, beside the loop; again, for as long as it cannot.

        Raises:
            StoreError: it could not in the time that it has.
        """
        pause, begun = _AGAIN, time.monotonic()
        try:
            while True:
                try:
                    return await self.ask(act, *arguments)
                except StoreError as error:
                    if not self.problem:
                        self._on_problem(str(error))
                    self.problem = str(error)
                    if self._patience is not None and time.monotonic() - begun > self._patience:
                        raise
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, _SELDOM)
        finally:
            self.problem = ""

    async def ask(self, act: Callable[..., T], *arguments: Any) -> T:
        """Have the store do something, beside the loop.

        Raises:
            StoreError: it cannot.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, partial(act, *arguments))

    def close(self) -> None:
        """Have nothing done any more; the store itself stays open."""
        self._thread.shutdown(wait=False)
