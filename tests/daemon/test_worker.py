"""A worker, as its supervisor uses it."""

import asyncio
import errno
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

import pytest

from daemon.worker import Worker, WorkerDied, WorkerTimeout
from fresco_core.errors import ClipError
from io_pipeline.blocks import Block, Layout
from io_pipeline.records import Record
from io_pipeline.worker import FatalError, OutOfDeviceMemory, TaskError
from tests.faults import stages
from tests.faults.stages import Calls, task

DEADLINES = {"task": 30.0}


def a_worker(stage: Calls | None = None, **options: Any) -> Worker:
    return Worker("test-0", stage or Calls(), **{"deadlines": DEADLINES, **options})


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


def test_a_process_that_the_system_cannot_give_is_a_death_and_leaves_nothing():
    """With one descriptor more each time, until there are enough."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    reasons = []

    async def test() -> None:
        worker = a_worker()
        lowest_free = os.dup(0)
        os.close(lowest_free)
        for limit in range(lowest_free, lowest_free + 100):
            before = len(os.listdir("/proc/self/fd"))
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
            try:
                await worker.start()
                break
            except WorkerDied as death:
                reasons.append(death.reason)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            assert not worker.alive
            assert len(os.listdir("/proc/self/fd")) == before
        assert await worker.run(task(stages.echo, 1)) == 1
        await worker.stop()

    run(test())
    assert len(reasons) > 3
    assert set(reasons) == {"cannot be started: Too many open files"}


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("socket.socketpair", errno.ENFILE),
        ("os.pipe", errno.EMFILE),
        ("subprocess.Popen", errno.EAGAIN),
        ("os.pidfd_open", errno.ENOMEM),
    ],
)
def test_each_thing_that_a_process_needs_may_be_missing(monkeypatch, name, number):
    async def test() -> None:
        def fail(*arguments: Any, **options: Any) -> None:
            raise OSError(number, os.strerror(number))

        worker = a_worker()
        with monkeypatch.context() as patch:
            patch.setattr(name, fail)
            with pytest.raises(WorkerDied) as death:
                await worker.start()
        assert death.value.reason == f"cannot be started: {os.strerror(number)}"
        assert not worker.ready
        await worker.start()
        assert worker.ready
        await worker.stop()
        assert not worker.ready
        assert worker.loaded

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
        worker = a_worker(deadlines={"task": 30, "step": 1.0})
        await worker.start()

        def dawdle(phase: str, done: int, count: int) -> None:
            if done == 1:
                time.sleep(1.5)

        result = await worker.run(task(stages.steps, 5, 0.1), on_progress=dawdle)
        assert result == "done"
        await worker.stop()

    run(test())


def test_what_the_process_logs_is_heard_and_is_no_progress():
    async def test() -> None:
        heard: list[Record] = []

        def on_record(of: Worker, record: Record) -> None:
            assert of is worker
            heard.append(record)

        worker = a_worker(deadlines={"task": 0.6, "start": 30, "load": 30}, on_record=on_record)
        await worker.start()
        await worker.run(task(stages.log, "hello"))
        assert [record.event for record in heard] == ["hello", "UserWarning: slow"]
        begin = time.monotonic()
        with pytest.raises(WorkerTimeout, match=r"task made no progress in 0\.6 s"):
            await worker.run(task(stages.chatter, 60.0))
        assert 0.5 < time.monotonic() - begin < 8
        assert heard[-1].event == "still here"
        assert heard[-1].fields == {"logger": "library", "thread": "talker"}

    run(test())


@in_a_worker()
async def test_nobody_need_hear_what_it_logs(worker):
    assert await worker.run(task(stages.log, "hello")) is None


def test_device_memory_is_that_of_the_process():
    async def test() -> None:
        worker = a_worker()
        assert worker.memory is None
        await worker.start()
        await worker.run(task(stages.take_device_memory, 1 << 33))
        assert worker.memory == 1 << 33
        await worker.stop()
        await worker.start()
        assert worker.memory is None
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


def test_a_timeout_is_a_kind_of_death():
    assert issubclass(WorkerTimeout, WorkerDied)
