"""Who gets which device, and what becomes of one that dies. Workers are played by the test."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import pytest
import structlog

from daemon import devices
from daemon.devices import DeviceError, DeviceLost, Devices
from daemon.logs import about
from daemon.workers import WorkerDied
from fresco_core.errors import FrescodError, ModelsError
from io_pipeline.worker import TaskError


class FakeWorker:
    """Does what ``plan[name]`` says at its next start: an error, or None for all is well."""

    plan: dict[str, list[Exception | None]]

    def __init__(
        self, name: str, stage: Any, *, deadlines: Any, threads: int, on_record: Any
    ) -> None:
        self.name, self.stage, self.threads = name, stage, threads
        self.alive = self.stopped = False
        self.starts = 0

    async def start(self) -> Any:
        assert not self.alive
        self.starts += 1
        await asyncio.sleep(0)
        steps = self.plan.get(self.name, [])
        error = steps.pop(0) if steps else None
        if error is not None:
            raise error
        self.alive = True
        return {"device": self.name}

    def kill(self) -> None:
        self.alive = False

    async def stop(self) -> None:
        self.alive, self.stopped = False, True


@pytest.fixture(autouse=True)
def plan(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Exception | None]]:
    monkeypatch.setattr(devices, "Worker", FakeWorker)
    monkeypatch.setattr(devices, "PAUSE", 0.0)
    FakeWorker.plan = {}
    return FakeWorker.plan


class Rig:
    """Devices, and what they told."""

    def __init__(self, *names: str, keep: float = 60.0) -> None:
        self.told: list[str] = []
        self.devices = Devices(
            names,
            lambda name: name,
            deadlines={},
            threads=3,
            on_event=lambda text, action: self.told.append(text),
            keep=keep,
        )

    def worker(self, name: str) -> Any:
        return next(device.worker for device in self.devices.all if device.name == name)


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(10):
            await test()

    asyncio.run(limited())


async def turns(count: int = 40) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def test_names_stages_and_threads() -> None:
    rig = Rig("cuda:0", "cpu", "cpu")
    assert [device.name for device in rig.devices.all] == ["cuda:0", "cpu 1", "cpu 2"]
    assert [device.is_gpu for device in rig.devices.all] == [True, False, False]
    workers: list[Any] = [device.worker for device in rig.devices.all]
    assert [worker.stage for worker in workers] == ["cuda:0", "cpu", "cpu"]
    assert {worker.threads for worker in workers} == {3}


def test_the_longest_clip_first_and_equal_ones_as_they_came() -> None:
    async def test() -> None:
        rig = Rig("cuda:0")
        got: list[str] = []

        async def take(name: str, length: int, again: bool = False) -> None:
            device = await rig.devices.take(length, again=again)
            got.append(name)
            await asyncio.sleep(0)
            rig.devices.give(device)

        waiting = [("short", 1), ("long", 9), ("middle", 5), ("also long", 9)]
        tasks = [asyncio.create_task(take(*clip)) for clip in waiting]
        tasks.append(asyncio.create_task(take("had one", 2, again=True)))
        rig.devices.start()
        await asyncio.gather(*tasks)
        assert got == ["had one", "long", "also long", "middle", "short"]

    run(test)


def test_a_device_is_kept_for_a_longer_clip_that_is_being_prepared() -> None:
    async def test() -> None:
        rig = Rig("cuda:0", "cuda:1")
        rig.devices.start()
        await turns()
        with rig.devices.expected(0), rig.devices.expected(1):
            second = await rig.devices.take(5, number=1)
            third = asyncio.create_task(rig.devices.take(3, number=2))
            await turns()
            assert not third.done()
            first = await rig.devices.take(9, number=0)
            assert first is not second
            rig.devices.give(second)
            assert await third is second

    run(test)


@pytest.mark.parametrize("leave", [True, False])
def test_a_clip_that_is_not_expected_any_longer_keeps_no_device(leave: bool) -> None:
    async def test() -> None:
        rig = Rig("cuda:0")
        rig.devices.start()
        await turns()
        with ExitStack() as stack:
            stack.enter_context(rig.devices.expected(0))
            other = asyncio.create_task(rig.devices.take(3, number=1))
            await turns()
            assert not other.done()
            if leave:
                stack.close()
            else:
                rig.devices.forget(0)
            await other

    run(test)


def test_a_device_is_not_kept_for_long() -> None:
    async def test() -> None:
        rig = Rig("cuda:0", "cuda:1", keep=0.2)
        loop = asyncio.get_running_loop()
        rig.devices.start()
        await asyncio.sleep(0.3)  # no time of the clip's, as long as nobody else wants a device
        with rig.devices.expected(0):
            second = await rig.devices.take(5, number=1)
            begin = loop.time()
            assert await rig.devices.take(3, number=2) is not second
            assert 0.19 < loop.time() - begin < 5
            rig.devices.give(second)  # nor is another one kept, or each would be for a while
            third = asyncio.create_task(rig.devices.take(3, number=3))
            await turns()
            assert third.done()

    run(test)


def test_what_died_at_work_is_started_again() -> None:
    async def test() -> None:
        rig = Rig("cuda:0")
        rig.devices.start()
        device = await rig.devices.take(1)
        rig.worker("cuda:0").alive = False
        rig.devices.died(device)
        rig.devices.give(device)
        assert await rig.devices.take(1) is device
        assert rig.worker("cuda:0").starts == 2
        assert not device.lost

    run(test)


def test_what_died_unused_is_not_handed_out() -> None:
    async def test() -> None:
        rig = Rig("cuda:0", "cuda:1")
        rig.devices.start()
        await turns()
        rig.worker("cuda:0").alive = False
        first, second = await rig.devices.take(1), await rig.devices.take(1)
        assert (first.name, second.name) == ("cuda:1", "cuda:0")
        assert second.worker.alive
        assert len(second.deaths) == 1

    run(test)


def test_a_death_while_loading_is_told_and_tried_again(
    plan: dict[str, list[Exception | None]],
) -> None:
    async def test() -> None:
        rig = Rig("cuda:0")
        plan["cuda:0"] = [WorkerDied("killed by SIGKILL"), None]
        rig.devices.start()
        await rig.devices.take(1)
        assert rig.told == ["cuda:0: killed by SIGKILL; started again"]

    run(test)


def test_five_restarts_within_a_minute_are_enough(
    plan: dict[str, list[Exception | None]],
) -> None:
    async def test() -> None:
        rig = Rig("cuda:0", "cuda:1")
        plan["cuda:0"] = [WorkerDied("exit code 1")] * 9
        rig.devices.start()
        await turns()
        assert rig.worker("cuda:0").starts == 6
        assert rig.devices.all[0].lost
        assert rig.told[:5] == ["cuda:0: exit code 1; started again"] * 5
        assert rig.told[5:] == [
            "cuda:0: exit code 1",
            "cuda:0 is lost, the others carry on: 5 restarts in 60 s did not help",
        ]
        device = await rig.devices.take(1)
        assert device.name == "cuda:1"
        assert await rig.devices.facts() == {"device": "cuda:1"}

    run(test)


def test_who_had_a_lost_device_waits_anew(plan: dict[str, list[Exception | None]]) -> None:
    async def test() -> None:
        rig = Rig("cuda:0", "cuda:1")
        plan["cuda:0"] = [None, *[WorkerDied("exit code 1")] * 9]
        rig.devices.start()
        first, _ = await rig.devices.take(9), await rig.devices.take(1)
        first.worker.kill()
        rig.devices.died(first)
        rig.devices.give(first)
        with pytest.raises(DeviceLost):
            await rig.devices.take(9, again=True)
        with pytest.raises(DeviceLost):  # nor does another one come
            await rig.devices.take(9, again=True)

    run(test)


def test_who_comes_back_late_does_not_wait_for_what_others_hold() -> None:
    """Its device is up again, and another's, who may wait for the memory that it holds."""

    async def test() -> None:
        rig = Rig("cuda:0")
        rig.devices.start()
        device = await rig.devices.take(9, number=0)
        other = asyncio.create_task(rig.devices.take(1, number=1))
        await turns()
        device.worker.kill()
        rig.devices.died(device)
        rig.devices.give(device)
        while device.clip != 1:
            await asyncio.sleep(0)
        with pytest.raises(DeviceLost):  # in the very turn
            await rig.devices.take(9, number=0, again=True)
        assert await other is device

    run(test)


def test_only_as_many_wait_as_there_are_devices_to_come() -> None:
    async def test() -> None:
        rig = Rig("cuda:0", "cuda:1")
        rig.devices.start()
        devices = [await rig.devices.take(9, number=i) for i in range(2)]
        third = asyncio.create_task(rig.devices.take(1, number=2))
        for device in devices:
            await turns()  # the third clip gets the first one
            device.worker.kill()
            rig.devices.died(device)
            rig.devices.give(device)
        await asyncio.sleep(0)
        assert third.done()
        waiting = asyncio.create_task(rig.devices.take(9, number=0, again=True))
        await asyncio.sleep(0)
        with pytest.raises(DeviceLost):
            await rig.devices.take(9, number=1, again=True)
        assert await waiting is devices[1]

    run(test)


@pytest.mark.parametrize("seconds", [11, 13])
@pytest.mark.parametrize("work_is_done", [True, False])
def test_a_death_now_and_then_is_forgiven_where_work_is_done(
    monkeypatch: pytest.MonkeyPatch, seconds: int, work_is_done: bool
) -> None:
    async def test() -> None:
        clock = [0.0]
        monkeypatch.setattr(devices, "time", SimpleNamespace(monotonic=lambda: clock[0]))
        rig = Rig("cuda:0")
        rig.devices.start()
        for _ in range(20):
            device = await rig.devices.take(1)
            if work_is_done:
                rig.devices.done(device)
            clock[0] += seconds
            rig.worker("cuda:0").alive = False
            rig.devices.died(device)
            rig.devices.give(device)
            await turns()
            if device.lost:
                break
        if seconds == 11:
            assert device.lost == "5 restarts in 60 s did not help"
        elif not work_is_done:  # where loading takes long, too
            assert device.lost == "5 restarts did not help"
        else:
            assert not device.lost

    run(test)


def test_a_clip_gets_another_device_than_it_died_with() -> None:
    async def test() -> None:
        rig = Rig("cuda:0", "cuda:1", "cuda:2")
        rig.devices.start()
        first = await rig.devices.take(9, number=7)
        second, third = await rig.devices.take(8, number=8), await rig.devices.take(7, number=9)
        first.worker.kill()
        rig.devices.died(first)
        rig.devices.give(first)
        await turns()
        rig.devices.give(second)
        assert await rig.devices.take(9, number=7, again=True) is second  # free for less time
        assert await rig.devices.take(6, number=10) is first  # which others may have
        rig.devices.give(first)
        rig.devices.give(third)
        second.worker.kill()
        rig.devices.died(second)
        rig.devices.give(second)
        await turns()
        assert await rig.devices.take(9, number=7, again=True) is third
        assert await rig.devices.take(9, number=7, again=True) is first  # better than none

    run(test)


def test_no_device_is_left(plan: dict[str, list[Exception | None]]) -> None:
    async def test() -> None:
        rig = Rig("cuda:0", "cuda:1")
        plan["cuda:0"] = plan["cuda:1"] = [WorkerDied("exit code 1")] * 12
        waiting = [asyncio.create_task(rig.devices.take(i)) for i in range(3)]
        rig.devices.start()
        errors = await asyncio.gather(*waiting, return_exceptions=True)
        with pytest.raises(DeviceError, match="no device is left") as caught:
            await rig.devices.take(1)  # nor for those that come later
        with pytest.raises(DeviceError):
            await rig.devices.facts()
        assert caught.value.exit_code == 69
        assert all(error is rig.devices.failure for error in errors)

    run(test)


def test_missing_models_are_everybodys_error(plan: dict[str, list[Exception | None]]) -> None:
    async def test() -> None:
        rig = Rig("cuda:0", "cuda:1")
        error = ModelsError("no weights: run frescod models pull")
        plan["cuda:1"] = [error]
        plan["cuda:0"] = [WorkerDied("exit code 1")] * 3
        waiting = [asyncio.create_task(rig.devices.take(i)) for i in range(3)]
        rig.devices.start()
        assert set(await asyncio.gather(*waiting, return_exceptions=True)) == {error}
        assert error.exit_code == 78
        assert rig.devices.failure is error

    run(test)


@pytest.mark.parametrize(
    "error", [TaskError("RuntimeError", "CUDA error", "trace"), RuntimeError("CUDA error")]
)
def test_an_unexpected_error_in_loading_loses_the_device(
    plan: dict[str, list[Exception | None]], error: Exception
) -> None:
    async def test() -> None:
        rig = Rig("cuda:0", "cuda:1")
        plan["cuda:0"] = [error]
        plan["cuda:1"] = [None, error]
        rig.devices.start()
        device = await rig.devices.take(1)
        assert rig.told == [
            "cuda:0 is lost, the others carry on: unexpected RuntimeError: CUDA error (run with "
            "--debug for details)"
        ]
        rig.worker("cuda:1").alive = False
        rig.devices.give(device)
        with pytest.raises(FrescodError, match="CUDA error"):
            await rig.devices.take(1)

    run(test)


def test_who_gives_up_waiting_leaves_the_device_to_the_next() -> None:
    async def test() -> None:
        rig = Rig("cuda:0")
        rig.devices.start()
        device = await rig.devices.take(1)
        one, two, three = (asyncio.create_task(rig.devices.take(9 - i)) for i in range(3))
        await turns()
        one.cancel()  # waiting
        rig.devices.give(device)  # for the second,
        two.cancel()  # who will not have it
        assert await three is device
        assert one.cancelled()
        assert two.cancelled()

    run(test)


def test_a_shortage_that_passes_loses_no_device(
    plan: dict[str, list[Exception | None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        monkeypatch.setattr(devices, "PAUSE", 0.01)
        rig = Rig("cuda:0")
        plan["cuda:0"] = [WorkerDied("cannot be started: Too many open files")] * 5
        loop = asyncio.get_running_loop()
        begin = loop.time()
        rig.devices.start()
        await rig.devices.take(1)
        assert loop.time() - begin > 0.01 * (1 + 2 + 4 + 8 + 16)

    run(test)


def test_close_ends_what_is_starting_too() -> None:
    async def test() -> None:
        rig = Rig("cuda:0", "cuda:1")
        rig.devices.start()
        await rig.devices.close()
        workers: list[Any] = [device.worker for device in rig.devices.all]
        assert all(worker.stopped and not worker.alive for worker in workers)

    run(test)


def test_a_device_that_is_started_again_is_about_no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[Any] = []
    real = FakeWorker.start

    async def start(self: FakeWorker) -> Any:
        found.append(structlog.contextvars.get_contextvars())
        return await real(self)

    monkeypatch.setattr(FakeWorker, "start", start)

    async def test() -> None:
        rig = Rig("cuda:0")
        with about(job=1):
            rig.devices.start()
            device = await rig.devices.take(1)
            rig.worker("cuda:0").kill()
            rig.devices.give(device)
            await turns()

    run(test)
    assert found == [{}, {}]
