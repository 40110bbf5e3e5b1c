"""Workers that are killed or hang, a supervisor that is killed, a clock that is set back."""

import asyncio
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from daemon.workers import Worker, WorkerDied, WorkerPool, WorkerTimeout
from tests.faults import stages
from tests.faults.stages import Calls, task
from tests.io_pipeline.test_blocks import holders

DEADLINES = {"task": 30.0}


def alive(pid: int) -> bool:
    """Whether a process runs; one that is dead but not yet waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except OSError:
        return False


def seconds_until(condition: Callable[[], bool], limit: float) -> float:
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < limit
        time.sleep(0.005)
    return time.monotonic() - start


def named_memory() -> set[str]:
    """What named shared memory and semaphores there are."""
    semaphores = Path("/proc/sysvipc/sem").read_text().splitlines()[1:]
    segments = Path("/proc/sysvipc/shm").read_text().splitlines()[1:]
    return {*os.listdir("/dev/shm"), *semaphores, *segments}


def test_kill_9_of_a_cpu_worker_repeats_its_task_and_no_other(tmp_path):
    async def test() -> None:
        events: list[tuple[str, str]] = []
        begun: list[Any] = []
        pool = WorkerPool(
            "cpu",
            Calls(),
            2,
            deadlines=DEADLINES,
            on_event=lambda event, worker, detail: events.append((event, detail)),
        )

        async def one(value: int, what: stages.Task) -> Any:
            return await pool.run(what, on_start=lambda worker: begun.append(value))

        results = await asyncio.gather(
            one(-1, task(stages.die_once, tmp_path / "mark", "done again")),
            *(one(i, task(stages.echo, i)) for i in range(20)),
        )
        await pool.close()
        assert results == ["done again", *range(20)]
        assert sorted(begun) == [-1, -1, *range(20)]
        assert events.count(("died", "killed by SIGKILL; its task is done again")) == 1

    asyncio.run(test())


@pytest.mark.parametrize("when", ["idle", "busy", "loading"])
def test_the_death_of_a_worker_is_noticed_at_once(tmp_path, when):
    async def seconds_to_notice(mark: Path) -> float:
        asleep = task(stages.touch_and_sleep, mark, 60)
        worker = Worker("test-0", Calls(asleep if when == "loading" else None), deadlines=DEADLINES)
        starting = asyncio.create_task(worker.start())
        waiting = starting
        if when != "loading":
            await starting
        if when == "busy":
            waiting = asyncio.create_task(worker.run(asleep))
        while when != "idle" and not mark.exists():
            await asyncio.sleep(0.01)
        assert worker.pid is not None
        start = time.monotonic()
        os.kill(worker.pid, signal.SIGKILL)
        if when == "idle":
            while worker.alive:
                await asyncio.sleep(0.001)
        else:
            with pytest.raises(WorkerDied, match="killed by SIGKILL"):
                await waiting
        return time.monotonic() - start

    # the best of some, for a machine that is busy with other things
    delays = [asyncio.run(seconds_to_notice(tmp_path / str(i))) for i in range(3)]
    logging.getLogger(__name__).info("noticed after %s s", delays)
    assert min(delays) < 0.1


@pytest.mark.parametrize("busy", [("keep_the_lock",), ("sleep", "600")])
@pytest.mark.parametrize("whole_group", [False, True])
def test_kill_9_of_the_supervisor_leaves_nothing(tmp_path, busy, whole_group):
    before = named_memory()
    command = [sys.executable, "-m", "tests.faults.supervisor", str(tmp_path), *busy]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as supervisor:
        assert supervisor.stdout is not None
        *workers, inode = map(int, supervisor.stdout.readline().split())
        assert len(workers) == 3
        assert all(map(alive, workers))
        assert holders(inode) > 0
        if whole_group:
            os.killpg(supervisor.pid, signal.SIGKILL)
        else:
            supervisor.kill()
        seconds = seconds_until(lambda: not any(map(alive, workers)), limit=10)
    logging.getLogger(__name__).info("all gone after %.3f s", seconds)
    assert seconds < 2
    assert holders(inode) == 0
    # Others' locks have a name for a moment.
    assert seconds_until(lambda: named_memory() <= before, limit=10) < 10


def test_ctrl_c_is_the_supervisors_to_answer(tmp_path):
    """The whole group gets the signal: workers go on until the supervisor ends."""
    command = [sys.executable, "-m", "tests.faults.supervisor", str(tmp_path), "sleep", "600"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as supervisor:
        assert supervisor.stdout is not None
        assert supervisor.stderr is not None
        *workers, _ = map(int, supervisor.stdout.readline().split())
        for worker in workers:
            os.kill(worker, signal.SIGINT)
        time.sleep(0.2)
        assert all(map(alive, workers))
        os.killpg(supervisor.pid, signal.SIGINT)
        assert "KeyboardInterrupt" in supervisor.stderr.read()
        supervisor.wait()
        seconds_until(lambda: not any(map(alive, workers)), limit=2)


def test_a_hung_step_shows_its_stacks_and_is_ended():
    async def test() -> None:
        worker = Worker("test-0", Calls(), deadlines={"task": 30, "step": 0.2})
        await worker.start()
        start = time.monotonic()
        with pytest.raises(WorkerTimeout) as death:
            await worker.run(task(stages.hang_after, 3))
        assert 1.2 < time.monotonic() - start < 10  # three steps in time, then a second's grace
        assert death.value.reason == "step made no progress in 0.2 s"
        assert "in hang_after" in death.value.output
        assert not worker.alive
        await worker.start()
        assert await worker.run(task(stages.echo, 1)) == 1
        await worker.stop()

    asyncio.run(test())


def test_a_hung_step_that_ignores_sigterm_is_killed(monkeypatch):
    escalation = ((signal.SIGUSR1, 0.1), (signal.SIGTERM, 0.3), (signal.SIGKILL, 60.0))
    monkeypatch.setattr("daemon.worker.ESCALATION", escalation)

    async def test() -> None:
        worker = Worker("test-0", Calls(), deadlines={"task": 0.3, "load": 30, "start": 30})
        await worker.start()
        start = time.monotonic()
        with pytest.raises(WorkerTimeout, match=r"task made no progress in 0\.3 s") as death:
            await worker.run(task(stages.ignore_sigterm))
        assert 0.7 <= time.monotonic() - start < 10
        assert "in ignore_sigterm" in death.value.output

    asyncio.run(test())


def test_a_result_that_comes_after_the_deadline_is_no_result(monkeypatch):
    """The process is being killed by then: whoever took the result would lose the next task."""

    async def test() -> None:
        worker = Worker("test-0", Calls(), deadlines={"task": 0.3, "load": 30, "start": 30})
        await worker.start()
        with pytest.raises(WorkerTimeout):
            await worker.run(task(stages.sleep, 0.6))
        assert not worker.alive

    asyncio.run(test())


def test_a_worker_that_hangs_while_it_loads_is_ended():
    async def test() -> None:
        hanging = Calls(task(stages.sleep, 600))
        worker = Worker("test-0", hanging, deadlines={"task": 30, "load": 0.3})
        with pytest.raises(WorkerTimeout, match=r"load made no progress in 0\.3 s"):
            await worker.start()
        assert not worker.alive

    asyncio.run(test())


def test_a_hung_worker_of_a_pool_is_replaced(tmp_path):
    async def test() -> None:
        pool = WorkerPool("cpu", Calls(), 1, deadlines={"task": 0.5, "load": 30, "start": 30})
        assert await pool.run(task(stages.hang_once, tmp_path / "mark", "done")) == "done"
        await pool.close()

    asyncio.run(test())


@pytest.mark.parametrize("parts", [1, 4])
def test_what_was_stopped_goes_on(parts):
    """Ctrl-Z, or a machine that slept: nobody worked, so nobody is late."""
    code = """if True:
        import asyncio, sys
        import daemon.worker
        from daemon.workers import Worker
        from tests.faults import stages

        async def main():
            deadlines = {"task": 2, "load": 30, "start": 30}
            worker = Worker("test-0", stages.Calls(), deadlines=deadlines)
            await worker.start()
            print(worker.pid, flush=True)
            print(await worker.run(stages.task(stages.steps, 4, 1.0)))
            await worker.stop()

        daemon.worker.PARTS = int(sys.argv[1])
        asyncio.run(main())
    """
    with subprocess.Popen(
        [sys.executable, "-c", code, str(parts)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as supervisor:
        assert supervisor.stdout is not None
        worker = int(supervisor.stdout.readline())
        time.sleep(0.5)
        os.killpg(supervisor.pid, signal.SIGSTOP)
        time.sleep(3.5)  # longer than a step may take
        supervisor.send_signal(signal.SIGCONT)
        time.sleep(0.3)  # the worker may be the last to go on
        os.kill(worker, signal.SIGCONT)
        assert supervisor.stdout.read() == "done\n"


@pytest.mark.parametrize("hours", [-24, 24])
def test_a_clock_that_is_set_by_a_day_changes_nothing(monkeypatch, hours):
    async def test() -> None:
        worker = Worker("test-0", Calls(), deadlines={"task": 30, "step": 1.0})
        await worker.start()
        running = asyncio.create_task(worker.run(task(stages.steps, 5, 0.1)))
        await asyncio.sleep(0.2)
        wall_clock = time.time
        monkeypatch.setattr(time, "time", lambda: wall_clock() + hours * 3600)
        assert await running == "done"
        start = time.monotonic()
        with pytest.raises(WorkerTimeout):
            await worker.run(task(stages.hang_after, 1))
        assert time.monotonic() - start < 15

    asyncio.run(test())
