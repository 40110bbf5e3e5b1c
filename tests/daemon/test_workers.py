"""Workers and pools of them, as their supervisor uses them."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from daemon.workers import PoolError, Worker, WorkerDied, WorkerPool, WorkerTimeout
from fresco_core.errors import ClipError
from io_pipeline.blocks import Block, Layout
from io_pipeline.worker import FatalError, OutOfDeviceMemory, TaskError
from tests.faults import stages
from tests.faults.stages import Calls, task

DEADLINES = {"task": 30.0}


def a_worker(stage: Calls | None = None, **options: Any) -> Worker:
    return Worker("test-0", stage or Calls(), **{"deadlines": DEADLINES, **options})


def a_pool(count: int, stage: Calls | None = None, **options: Any) -> WorkerPool:
    return WorkerPool("test", stage or Calls(), count, **{"deadlines": DEADLINES, **options})


def run(test: Coroutine[Any, Any, None]) -> None:
    """Run a test's coroutine; nothing may be left of it."""
    before = os.listdir("/proc/self/fd")
    asyncio.run(test)
    assert len(os.listdir("/proc/self/fd")) == len(before)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)  # neither children nor zombies


def in_a_worker(stage: Calls | None = None, **options: Any):
    """A test that is given a started worker."""

    def decorate(test):
        async def whole() -> None:
            worker = a_worker(stage, **options)
            await worker.start()
            try:
                await test(worker)
            finally:
                await worker.stop()

        def run_test() -> None:
            run(whole())

        run_test.__name__ = test.__name__
        return run_test

    return decorate


@in_a_worker()
async def test_tasks_are_done_one_after_the_other(worker):
    assert worker.alive
    assert worker.facts == {"pid": worker.pid}
    for value in (1, "two", None):
        assert await worker.run(task(stages.echo, value)) == value
    assert await worker.run(task(stages.echo, b"x" * 5_000_000)) == b"x" * 5_000_000


@in_a_worker()
async def test_a_task_works_on_blocks(worker):
    with Block.create(Layout.of(a=((4, 5), "f4"))) as block:
        await worker.run(task(stages.fill_first, 3), [block])
        assert (block["a"] == 3).all()


@in_a_worker()
async def test_progress_is_passed_on(worker):
    seen = []
    result = await worker.run(
        task(stages.steps, 3, 0), on_progress=lambda *progress: seen.append(progress)
    )
    assert result == "done"
    assert seen == [("step", 1, 3), ("step", 2, 3), ("step", 3, 3)]


@in_a_worker(threads=3, environment={"FRESCO_TEST": "yes"})
async def test_its_environment_sets_the_threads(worker):
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
    values = await worker.run(task(stages.environment, (*names, "FRESCO_TEST", "PATH")))
    assert values == ["3", "3", "3", "3", "yes", os.environ["PATH"]]


@in_a_worker()
async def test_it_never_imports_the_daemon_or_torch(worker):
    modules = await worker.run(task(stages.modules))
    assert not {"daemon", "torch", "asyncio"} & modules


@in_a_worker()
async def test_errors_are_raised_and_it_goes_on(worker):
    with pytest.raises(ClipError, match="line 7: what is wrong, what to do"):
        await worker.run(task(stages.user_error))
    with pytest.raises(TaskError, match="ZeroDivisionError: first line"):
        await worker.run(task(stages.wrong))
    assert await worker.run(task(stages.echo, 1)) == 1


@in_a_worker()
async def test_one_task_at_a_time(worker):
    first = asyncio.create_task(worker.run(task(stages.sleep, 0.1)))
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="test-0 has a task already"):
        await worker.run(task(stages.echo, 1))
    await first
    with pytest.raises(RuntimeError, match="test-0 runs already"):
        await worker.start()


@pytest.mark.parametrize(
    ("function", "kind"), [(stages.out_of_memory, OutOfDeviceMemory), (stages.fatal, FatalError)]
)
def test_after_a_fatal_error_the_process_is_gone_and_can_be_started_again(function, kind):
    async def test() -> None:
        worker = a_worker()
        first = await worker.start()
        with pytest.raises(kind):
            await worker.run(task(function))
        assert not worker.alive
        second = await worker.start()
        assert second["pid"] != first["pid"]
        assert await worker.run(task(stages.echo, 1)) == 1
        await worker.stop()

    run(test())


def test_what_loading_raises_is_raised_by_start():
    async def test() -> None:
        worker = a_worker(Calls(task(stages.user_error)))
        for _ in range(2):
            with pytest.raises(ClipError, match="line 7"):
                await worker.start()
            assert not worker.alive
        with pytest.raises(WorkerDied, match="exit code 0"):
            await worker.run(task(stages.echo, 1))

    run(test())


def test_a_worker_that_was_never_started():
    async def test() -> None:
        worker = a_worker()
        assert not worker.alive
        assert worker.pid is None
        with pytest.raises(WorkerDied, match="test-0 was never started"):
            await worker.run(task(stages.echo, 1))
        worker.kill()
        await worker.stop()

    run(test())


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (task(stages.die, signal.SIGKILL), "killed by SIGKILL"),
        (task(stages.die, signal.SIGSEGV), "SIGSEGV: Fatal Python error: Segmentation fault"),
        (task(stages.die, signal.SIGRTMIN + 1), "killed by signal 35"),
        (task(stages.leave, 3, "hello\n\nwhy\n"), "exit code 3: why"),
        (task(stages.leave, 4, ""), "exit code 4"),
    ],
)
def test_how_a_worker_died_is_said(function, reason):
    async def test() -> None:
        worker = a_worker()
        await worker.start()
        with pytest.raises(WorkerDied) as death:
            await worker.run(function)
        assert death.value.reason.endswith(reason)
        assert str(death.value) == death.value.reason
        assert not worker.alive

    run(test())


@in_a_worker()
async def test_the_last_that_it_wrote_is_kept_and_never_blocks_it(worker):
    await worker.run(task(stages.print_lines, 10000))
    await asyncio.sleep(0.1)
    assert len(worker.output) == 1 << 16
    assert worker.output.endswith("line 9999 " + "x" * 90 + "\n")


def test_a_cancelled_task_ends_its_process():
    async def test() -> None:
        worker = a_worker()
        await worker.start()
        running = asyncio.create_task(worker.run(task(stages.sleep, 60)))
        await asyncio.sleep(0.1)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await worker.stop()
        assert not worker.alive

    run(test())


def test_an_error_of_the_listener_ends_the_process_too():
    async def test() -> None:
        worker = a_worker()
        await worker.start()
        with pytest.raises(TypeError):
            await worker.run(task(stages.steps, 2, 0), on_progress=lambda: None)
        await worker.stop()
        assert not worker.alive

    run(test())


@pytest.mark.parametrize("function", [stages.sleep, stages.echo])
def test_stopping_is_quick_and_ends_a_task(function):
    async def test() -> None:
        worker = a_worker()
        await worker.start()
        running = asyncio.create_task(worker.run(task(function, 60)))
        await asyncio.sleep(0.1)
        start = time.monotonic()
        await worker.stop()
        assert time.monotonic() - start < 1
        assert not worker.alive
        with suppress(WorkerDied):
            await running

    run(test())


def test_stopping_one_that_does_not_listen():
    async def test() -> None:
        worker = a_worker()
        await worker.start()
        running = asyncio.create_task(worker.run(task(stages.keep_the_lock)))
        await asyncio.sleep(0.3)
        await worker.stop(grace=0.2)
        with pytest.raises(WorkerDied, match="stopped"):
            await running

    run(test())


def test_a_loop_that_had_no_time_blames_nobody():
    async def test() -> None:
        worker = a_worker(deadlines={"task": 30, "step": 0.3})
        await worker.start()

        def dawdle(phase: str, done: int, count: int) -> None:
            if done == 1:
                time.sleep(0.6)

        result = await worker.run(task(stages.steps, 5, 0.1), on_progress=dawdle)
        assert result == "done"
        await worker.stop()

    run(test())


def test_the_supervisor_imports_no_torch():
    code = "import sys, daemon.workers; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_round_trip_costs_the_supervisor_little():
    async def test() -> None:
        worker = a_worker()
        await worker.start()
        with Block.create(Layout.of(a=((64 << 20,), "u1"))) as block:
            message = task(stages.echo, 1)
            costs = []
            for _ in range(5):
                start = time.process_time()
                for _ in range(100):
                    await worker.run(message, [block])
                costs.append((time.process_time() - start) / 100)
        await worker.stop()
        assert min(costs) < 0.5e-3

    run(test())


# --- pools


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


def test_a_timeout_is_a_kind_of_death():
    assert issubclass(WorkerTimeout, WorkerDied)
