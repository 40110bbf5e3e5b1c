"""Pools of workers, as their supervisor uses them."""

import asyncio
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from daemon.workers import PoolError, WorkerDied, WorkerPool
from fresco_core.errors import ClipError
from io_pipeline.blocks import Block, Layout
from io_pipeline.worker import OutOfDeviceMemory
from tests.daemon.test_worker import DEADLINES, run
from tests.faults import stages
from tests.faults.stages import Calls, task


def a_pool(count: int, stage: Calls | None = None, **options: Any) -> WorkerPool:
    return WorkerPool("test", stage or Calls(), count, **{"deadlines": DEADLINES, **options})


def test_a_pool_does_all_that_it_is_given():
    async def test() -> None:
        pool = a_pool(2)
        results = await asyncio.gather(*(pool.run(task(stages.echo, i)) for i in range(20)))
        assert results == list(range(20))
        await pool.close()
        with pytest.raises(RuntimeError, match="the test pool is closed"):
            await pool.run(task(stages.echo, 1))

    run(test())


def test_workers_are_started_when_they_are_needed():
    async def test() -> None:
        events = []
        pool = a_pool(3, on_event=lambda event, worker, detail: events.append(event))
        assert not any(worker.alive for worker in pool.workers)
        for i in range(5):
            await pool.run(task(stages.echo, i))
        assert [worker.alive for worker in pool.workers] == [True, False, False]
        await asyncio.gather(*(pool.run(task(stages.sleep, 0.1)) for _ in range(2)))
        assert [worker.alive for worker in pool.workers] == [True, True, False]
        await pool.close()
        assert events == ["started", "started", "stopped", "stopped"]

    run(test())


def test_the_smallest_priority_goes_first_and_the_oldest_among_equals():
    async def test() -> None:
        pool = a_pool(1)
        begun: list[Any] = []

        async def one(name: str, *priority: int) -> None:
            await pool.run(
                task(stages.echo, name),
                priority=priority,
                on_start=lambda worker: begun.append((name, worker.name)),
            )

        await asyncio.gather(
            one("first", 9), one("c", 2), one("a", 1, 5), one("b", 1, 7), one("d", 2)
        )
        assert begun == [(name, "test-0") for name in ("first", "a", "b", "c", "d")]
        await pool.close()

    run(test())


def test_a_task_given_up_before_it_began_is_dropped():
    async def test() -> None:
        pool = a_pool(1)
        begun: list[str] = []
        with Block.create(Layout.of(a=((10,), "u1"))) as block:
            tasks = [
                asyncio.create_task(
                    pool.run(
                        task(stages.sleep, 0.2),
                        [block],
                        on_start=lambda worker, name=name: begun.append(name),
                    )
                )
                for name in "abc"
            ]
            await asyncio.sleep(0)
            tasks[0].cancel()  # its worker is still loading
            tasks[1].cancel()
            await asyncio.gather(*tasks[:2], return_exceptions=True)
            await tasks[2]
        assert begun == ["c"]
        await pool.close()

    run(test())


def test_a_task_given_up_while_it_runs_keeps_its_worker_until_it_is_done(tmp_path):
    async def test() -> None:
        pool = a_pool(1)
        mark = tmp_path / "mark"
        first = asyncio.create_task(pool.run(task(stages.touch_and_sleep, mark, 0.3)))
        while not mark.exists():
            await asyncio.sleep(0.01)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        start = time.monotonic()
        pid = pool.workers[0].pid
        assert await pool.run(task(stages.echo, 1)) == 1
        assert time.monotonic() - start > 0.15
        assert pool.workers[0].pid == pid
        await pool.close()

    run(test())


def test_errors_of_tasks_and_of_loading_reach_the_caller():
    async def test() -> None:
        pool = a_pool(1)
        with pytest.raises(ClipError):
            await pool.run(task(stages.user_error))
        with pytest.raises(OutOfDeviceMemory):
            await pool.run(task(stages.out_of_memory))
        assert await pool.run(task(stages.echo, 1)) == 1
        await pool.close()
        pool = a_pool(1, Calls(task(stages.user_error)))
        with pytest.raises(ClipError):
            await pool.run(task(stages.echo, 1))
        await pool.close()

    run(test())


def test_a_task_that_kills_its_workers_is_given_up_and_the_others_are_done():
    async def test() -> None:
        events = []
        pool = a_pool(
            2, on_event=lambda event, worker, detail: events.append((event, worker.name, detail))
        )
        results = await asyncio.gather(
            pool.run(task(stages.die, signal.SIGKILL)),
            *(pool.run(task(stages.steps, 2, 0.02)) for _ in range(30)),
            return_exceptions=True,
        )
        assert isinstance(results[0], WorkerDied)
        assert results[1:] == ["done"] * 30
        assert sum(event == "died" for event, _, _ in events) == 3
        assert {detail for event, _, detail in events if event == "died"} == {"killed by SIGKILL"}
        await pool.close()

    run(test())


def test_workers_that_all_die_are_not_started_for_ever():
    async def test() -> None:
        events = []
        pool = a_pool(
            2,
            Calls(task(stages.leave, 3, "ImportError: broken\n")),
            on_event=lambda event, worker, detail: events.append(event),
        )
        results = await asyncio.gather(
            *(pool.run(task(stages.echo, i)) for i in range(10)), return_exceptions=True
        )
        assert {str(result) for result in results} == {
            "workers of the test pool die one after another: exit code 3: ImportError: broken"
        }
        assert {type(result) for result in results} == {PoolError}
        assert events.count("died") <= 7  # the sixth is one too many; another was on its way
        await pool.close()

    run(test())


def test_closing_a_pool_ends_what_runs_and_what_waits(tmp_path):
    async def test() -> None:
        pool = a_pool(2)
        marks = [tmp_path / str(i) for i in range(3)]
        tasks = [
            asyncio.create_task(pool.run(task(stages.touch_and_sleep, mark, 60))) for mark in marks
        ]
        while not (marks[0].exists() and marks[1].exists()):
            await asyncio.sleep(0.01)
        await pool.close()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [(type(result), str(result)) for result in results] == [(WorkerDied, "stopped")] * 3
        assert not marks[2].exists()

    run(test())


def test_a_pool_that_is_abandoned_with_its_loop_leaves_no_process():
    """As when the supervisor's main task ends by an error."""
    code = """if True:
        import asyncio
        from tests.daemon.test_workers import a_pool, stages, task

        async def main():
            pool = a_pool(2)
            for _ in range(3):
                running = asyncio.create_task(pool.run(task(stages.sleep, 60)))
            while not (pool.workers[1].alive and pool.workers[1].facts):
                await asyncio.sleep(0.01)
            print(*[worker.pid for worker in pool.workers])

        asyncio.run(main())
    """
    command = [sys.executable, "-c", code]
    output = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
    for pid in output.split():
        deadline = time.monotonic() + 2
        while Path(f"/proc/{int(pid)}/exe").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not Path(f"/proc/{int(pid)}/exe").exists()
