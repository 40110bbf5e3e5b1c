"""Pools of workers, as their supervisor uses them."""

import asyncio
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import structlog

from daemon.logs import about
from daemon.workers import PoolError, Worker, WorkerDied, WorkerPool
from fresco_core.errors import ClipError
from io_pipeline.blocks import Block, Layout
from io_pipeline.worker import OutOfDeviceMemory
from tests.daemon.test_worker import DEADLINES, run
from tests.faults import stages
from tests.faults.stages import Calls, task


def a_pool(count: int, stage: Calls | None = None, **options: Any) -> WorkerPool:
    return WorkerPool("test", stage or Calls(), count, **{"deadlines": DEADLINES, **options})


def test_tasks_that_wait_are_counted():
    async def test() -> None:
        pool = a_pool(1)
        calls = [asyncio.create_task(pool.run(task(stages.echo, i))) for i in range(4)]
        await asyncio.sleep(0)
        assert pool.waiting == 3
        calls[-1].cancel()
        await asyncio.sleep(0)
        assert pool.waiting == 2
        await asyncio.gather(*calls[:-1])
        assert pool.waiting == 0
        await pool.close()

    run(test())


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
        fates = [detail for event, _, detail in events if event == "died"]
        again = "killed by SIGKILL; its task is done again"
        assert fates == [again, again, "killed by SIGKILL; its task is given up after 3 attempts"]
        await pool.close()

    run(test())


def test_workers_that_cannot_be_started_are_not_started_for_ever(monkeypatch):
    monkeypatch.setattr(WorkerPool, "PAUSE", 0.01)

    async def test() -> None:
        events = []
        pool = a_pool(
            2,
            Calls(task(stages.leave, 3, "ImportError: broken\n")),
            on_event=lambda event, worker, detail: events.append((event, worker.name, detail)),
        )
        results = await asyncio.gather(
            *(pool.run(task(stages.echo, i)) for i in range(10)), return_exceptions=True
        )
        assert {str(result) for result in results} == {
            "the test pool has no workers: exit code 3: ImportError: broken"
        }
        assert {type(result) for result in results} == {PoolError}
        await asyncio.sleep(1)
        assert len(events) <= 10  # five for each
        detail = "exit code 3: ImportError: broken; its task waits for another"
        assert set(events) <= {("died", name, detail) for name in ("test-0", "test-1")}
        await pool.close()

    run(test())


def test_a_burst_of_deaths_fails_no_task():
    """As when memory is short and the kernel takes what it finds."""

    async def test() -> None:
        pool = a_pool(8)
        begun: list[Any] = []
        tasks = [
            asyncio.create_task(
                pool.run(task(stages.sleep, 1), on_start=lambda worker: begun.append(worker))
            )
            for _ in range(10)
        ]
        while len(begun) < 8:
            await asyncio.sleep(0.01)
        for worker in pool.workers[:6]:
            worker.kill()
        await asyncio.gather(*tasks)
        await pool.close()

    run(test())


def test_where_some_workers_run_the_others_need_not(tmp_path, monkeypatch):
    """A shortage that lasts: what runs does all."""
    monkeypatch.setattr(WorkerPool, "PAUSE", 0.01)

    async def test() -> None:
        events: list[Any] = []
        pool = a_pool(
            3, on_event=lambda event, worker, detail: events.append((event, worker.name, detail))
        )
        await pool.run(task(stages.echo, 0))

        def fail(*arguments: Any, **options: Any) -> None:
            raise OSError(11, "Resource temporarily unavailable")

        with monkeypatch.context() as patch:
            patch.setattr("subprocess.Popen", fail)
            tasks = [asyncio.create_task(pool.run(task(stages.sleep, 0.1))) for _ in range(10)]
            await asyncio.gather(*tasks)
        died = [event for event in events if event[0] == "died"]
        reason = "cannot be started: Resource temporarily unavailable; its task waits for another"
        assert set(died) == {("died", f"test-{i}", reason) for i in (1, 2)}
        assert len(died) < 20
        await asyncio.sleep(0.7)  # all may be tried again
        tasks = [asyncio.create_task(pool.run(task(stages.sleep, 0.5))) for _ in range(3)]
        await asyncio.gather(*tasks)
        assert all(worker.ready for worker in pool.workers)
        await pool.close()

    run(test())


def test_what_becomes_of_a_task_is_told_as_it_is():
    async def test() -> None:
        told: list[str] = []
        pool = a_pool(2, on_event=lambda event, worker, detail: told.append(detail))
        with pytest.raises(WorkerDied):
            await pool.run(task(stages.die, signal.SIGKILL))
        begun = asyncio.Event()
        given_up = asyncio.create_task(
            pool.run(task(stages.sleep, 60), on_start=lambda worker: begun.set())
        )
        await begun.wait()
        given_up.cancel()
        await asyncio.wait([given_up])
        running = next(worker for worker in pool.workers if worker.busy)
        running.kill()
        while running.alive:
            await asyncio.sleep(0.01)
        await pool.run(task(stages.echo, 1))
        assert [text for text in told if text] == [
            "killed by SIGKILL; its task is done again",
            "killed by SIGKILL; its task is done again",
            "killed by SIGKILL; its task is given up after 3 attempts",
            "killed by SIGKILL; nobody wants its task any more",
        ]
        await pool.close()

    run(test())


@pytest.mark.parametrize("turns", range(4))
def test_a_task_that_comes_just_before_the_close_starts_no_process(turns):
    async def test() -> None:
        events: list[str] = []
        pool = a_pool(2, on_event=lambda event, worker, detail: events.append(event))
        running = asyncio.create_task(pool.run(task(stages.sleep, 60)))
        for _ in range(turns):
            await asyncio.sleep(0)
        await pool.close()
        with pytest.raises((WorkerDied, RuntimeError), match=r"stopped|closed"):
            await running
        assert not any(worker.alive for worker in pool.workers)
        assert "died" not in events

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


def test_what_a_worker_says_is_about_the_task_that_it_does():
    """Not about the one before, whose end is what began it."""

    async def test() -> None:
        told: list[tuple[str, Any]] = []

        def hear(worker: Worker, record: Any) -> None:
            told.append((record.event, structlog.contextvars.get_contextvars()))

        pool = a_pool(1, on_record=hear)

        async def one(number: int) -> None:
            with about(job=number):
                await pool.run(task(stages.log, f"of {number}"))

        await asyncio.gather(*(asyncio.create_task(one(number)) for number in range(3)))
        await pool.close()
        about_jobs = {(text, tuple(found.items())) for text, found in told if "of " in text}
        assert about_jobs == {(f"of {number}", (("job", number),)) for number in range(3)}

    run(test())
