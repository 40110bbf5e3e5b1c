"""Alike workers behind one queue."""

import asyncio
import heapq
import itertools
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from daemon.worker import OnProgress, Worker, WorkerDied, WorkerTimeout
from fresco_core.errors import FrescodError
from io_pipeline.blocks import Block
from io_pipeline.worker import Stage

__all__ = ["PoolError", "Worker", "WorkerDied", "WorkerPool", "WorkerTimeout"]


class PoolError(FrescodError):
    """The workers of a pool die again and again."""


@dataclass(order=True)
class _Request:
    """A task of a pool that waits for a worker, or is run by one."""

    priority: tuple[Any, ...]
    number: int
    task: Any = field(compare=False)
    blocks: Sequence[Block] = field(compare=False)
    on_progress: OnProgress | None = field(compare=False)
    on_start: Callable[[Worker], None] | None = field(compare=False)
    answer: asyncio.Future[Any] = field(compare=False)
    deaths: int = field(compare=False, default=0)


class WorkerPool:
    """Alike workers, started when they are first needed; the free one takes the next task.

    Args:
        name: of the pool, for messages; its workers are called ``name-0``, ``name-1``, ...
        stage, deadlines, threads, environment: as of `Worker`.
        count: how many workers at most.
        attempts: how often a task is begun whose worker dies of it.
        on_event: called with ("started" | "died" | "stopped", worker, detail).
    """

    # More deaths than this in so many seconds, with no task done between them, are not the tasks'.
    DEATHS, SECONDS = 5, 60.0

    def __init__(
        self,
        name: str,
        stage: Stage,
        count: int,
        *,
        deadlines: Mapping[str, float],
        threads: int = 1,
        environment: Mapping[str, str] | None = None,
        attempts: int = 3,
        on_event: Callable[[str, Worker, str], None] | None = None,
    ) -> None:
        self.name = name
        self.workers = tuple(
            Worker(
                f"{name}-{i}", stage, deadlines=deadlines, threads=threads, environment=environment
            )
            for i in range(count)
        )
        self._attempts = attempts
        self._on_event = on_event or (lambda event, worker, detail: None)
        self._queue: list[_Request] = []
        self._numbers = itertools.count()
        self._idle = list(reversed(self.workers))
        self._running: set[asyncio.Task[None]] = set()
        self._deaths: deque[float] = deque()
        self._closed = False

    async def run(
        self,
        task: Any,
        blocks: Sequence[Block] = (),
        *,
        priority: tuple[Any, ...] = (),
        on_progress: OnProgress | None = None,
        on_start: Callable[[Worker], None] | None = None,
    ) -> Any:
        """Have a task done by one of the workers; its result.

        The task of smallest priority goes first, the oldest among equals. Begun anew when its
        worker dies. Cancelled before it is begun, it is dropped; after that it runs to its end,
        unheard, and its worker is free only then.

        Raises:
            WorkerDied: it was begun ``attempts`` times, and its worker died every time.
            PoolError: the workers die one after another, whatever their tasks.
            FrescodError, TaskError: what the task raised.
        """
        if self._closed:
            raise RuntimeError(f"the {self.name} pool is closed")
        answer = asyncio.get_running_loop().create_future()
        request = _Request(
            priority, next(self._numbers), task, blocks, on_progress, on_start, answer
        )
        heapq.heappush(self._queue, request)
        self._dispatch()
        return await answer

    async def close(self) -> None:
        """End all workers, whatever they do; tasks that are not done raise WorkerDied."""
        self._closed = True
        self._fail_queued(WorkerDied("stopped"))
        alive = [worker for worker in self.workers if worker.alive]
        await asyncio.gather(*(worker.stop() for worker in alive))
        await asyncio.gather(*self._running)
        for worker in alive:
            self._on_event("stopped", worker, "")

    def _dispatch(self) -> None:
        while self._idle and self._queue:
            request = heapq.heappop(self._queue)
            if not request.answer.done():
                worker = self._idle.pop()
                running = asyncio.create_task(self._serve(worker, request))
                self._running.add(running)
                running.add_done_callback(self._running.discard)

    async def _serve(self, worker: Worker, request: _Request) -> None:
        answer = request.answer
        begun = False
        try:
            if not worker.alive:
                await worker.start()
                self._on_event("started", worker, "")
            if answer.done():  # given up meanwhile, and its blocks with it
                return
            begun = True
            if request.on_start is not None:
                request.on_start(worker)
            result = await worker.run(request.task, request.blocks, request.on_progress)
        except WorkerDied as death:
            self._on_event("died", worker, death.reason)
            self._bury(request, death, begun)
        except Exception as error:
            if not answer.done():
                answer.set_exception(error)
        else:
            self._deaths.clear()
            if not answer.done():
                answer.set_result(result)
        finally:
            # the next task is for one that is up and has just been used
            self._idle.insert(len(self._idle) if worker.alive else 0, worker)
            self._dispatch()

    def _bury(self, request: _Request, death: WorkerDied, begun: bool) -> None:
        """A worker has died: its task waits again, unless there have been too many deaths."""
        now = time.monotonic()
        self._deaths.append(now)
        while now - self._deaths[0] > self.SECONDS:
            self._deaths.popleft()
        request.deaths += begun
        if request.deaths >= self._attempts or self._closed:
            if not request.answer.done():
                request.answer.set_exception(death)
        else:
            heapq.heappush(self._queue, request)
        if len(self._deaths) > self.DEATHS:
            self._fail_queued(
                PoolError(f"workers of the {self.name} pool die one after another: {death.reason}")
            )

    def _fail_queued(self, error: Exception) -> None:
        for request in self._queue:
            if not request.answer.done():
                request.answer.set_exception(error)
        self._queue.clear()
