"""Alike workers behind one queue."""

import asyncio
import contextvars
import heapq
import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from daemon.worker import OnProgress, OnRecord, Worker, WorkerDied, WorkerTimeout
from fresco_core.errors import FrescodError
from io_pipeline.blocks import Block
from io_pipeline.worker import Stage

__all__ = ["OnRecord", "PoolError", "Worker", "WorkerDied", "WorkerPool", "WorkerTimeout"]


class PoolError(FrescodError):
    """The workers of a pool cannot be started."""


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
    # Of whoever wants it: what the worker logs is about that.
    context: contextvars.Context = field(compare=False, default_factory=contextvars.copy_context)
    deaths: int = field(compare=False, default=0)


class WorkerPool:
    """Alike workers, started when they are first needed; the free one takes the next task.

    Args:
        name: of the pool, for messages; its workers are called ``name-0``, ``name-1``, ...
        stage, deadlines, threads, environment, on_record: as of `Worker`.
        count: how many workers at most.
        attempts: how often a task is begun whose worker dies of it.
        on_event: called with ("started" | "died" | "stopped", worker, detail); the detail of a
            death says how it came and what becomes of the task.
    """

    # So many starts of a worker may fail one after another, with pauses (seconds) that double.
    STARTS, PAUSE = 5, 0.5

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
        on_record: OnRecord | None = None,
    ) -> None:
        self.name = name
        self.workers = tuple(
            Worker(
                f"{name}-{i}",
                stage,
                deadlines=deadlines,
                threads=threads,
                environment=environment,
                on_record=on_record,
            )
            for i in range(count)
        )
        self._attempts = attempts
        self._on_event = on_event or (lambda event, worker, detail: None)
        self._queue: list[_Request] = []
        self._numbers = itertools.count()
        self._idle = list(reversed(self.workers))
        self._running: set[asyncio.Task[None]] = set()
        self._failed_starts: Counter[str] = Counter()  # by worker, since the last that did not fail
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
            PoolError: there is no worker, and none can be started.
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

    @property
    def waiting(self) -> int:
        """Tasks that wait for a worker."""
        return sum(not request.answer.done() for request in self._queue)

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
                running = asyncio.create_task(self._serve(worker, request), context=request.context)
                self._running.add(running)
                running.add_done_callback(self._running.discard)

    async def _serve(self, worker: Worker, request: _Request) -> None:
        answer = request.answer
        pause = 0.0
        try:
            if self._closed:
                raise WorkerDied("stopped")
            if not worker.alive:
                await worker.start()
                self._failed_starts.clear()
                self._on_event("started", worker, "")
            if answer.done():  # given up meanwhile, and its blocks with it
                return
            if request.on_start is not None:
                request.on_start(worker)
            result = await worker.run(request.task, request.blocks, request.on_progress)
        except WorkerDied as death:
            pause = self._bury(worker, request, death)
        except Exception as error:
            _fail(request, error)
        else:
            if not answer.done():
                answer.set_result(result)
        finally:
            if pause:
                asyncio.get_running_loop().call_later(pause, self._free, worker)
            else:
                self._free(worker)

    def _free(self, worker: Worker) -> None:
        # the next task is for one that is up and has just been used
        self._idle.insert(len(self._idle) if worker.alive else 0, worker)
        self._dispatch()

    def _bury(self, worker: Worker, request: _Request, death: WorkerDied) -> float:
        """A worker has died: its task waits again, or has had all its attempts.

        Returns the seconds to wait before the worker is started again. A worker that was not even
        ready says nothing of its task, but where none is, something of the stage or the system.
        """
        if self._closed:
            _fail(request, death)
            return 0.0
        failed_start = not worker.loaded
        fate = "its task is done again"
        if failed_start:
            fate = "its task waits for another"
        else:
            request.deaths += 1
        if request.answer.done():
            fate = "nobody wants its task any more"
        elif request.deaths == self._attempts:
            fate = f"its task is given up after {self._attempts} attempts"
            _fail(request, death)
        else:
            heapq.heappush(self._queue, request)
        self._on_event("died", worker, f"{death.reason}; {fate}")
        if not failed_start:
            return 0.0
        self._failed_starts[worker.name] += 1
        failed = self._failed_starts[worker.name]
        if failed >= self.STARTS and not any(worker.ready for worker in self.workers):
            self._fail_queued(PoolError(f"the {self.name} pool has no workers: {death.reason}"))
        return self.PAUSE * 2.0 ** min(failed - 1, 6)

    def _fail_queued(self, error: Exception) -> None:
        for request in self._queue:
            _fail(request, error)
        self._queue.clear()


def _fail(request: _Request, error: Exception) -> None:
    if not request.answer.done():
        request.answer.set_exception(error)
