"""Which decoder is tried when, and which process reads. Workers are played by the test."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from benchmarks.simulated import plan_clip, write_clip
from daemon import readers
from daemon.readers import Readers
from daemon.workers import WorkerDied, WorkerTimeout
from fresco_core.errors import ClipError
from io_pipeline.blocks import Block, BlockError
from io_pipeline.options import KeyFrameOptions
from io_pipeline.plan import ClipPlan
from io_pipeline.tasks import OpenClip, PlanClip, ReadWindow
from io_pipeline.window import Window, windows

DEATH = WorkerDied("killed by SIGABRT")
OPTIONS = KeyFrameOptions(5, 5, 3, 64)
HANG = WorkerTimeout("decode made no progress in 60 s")


class FakeWorker:
    """Does what ``plan`` says for its next tasks: an error, or the answer; then ``answer``."""

    plan: list[Any]
    tasks: list[Any]
    answer: Callable[[Any], Any]

    def __init__(self, name: str, stage: Any, *, deadlines: Any, on_record: Any) -> None:
        self.name = name
        self.alive = self.busy = False
        self.starts = 0

    async def start(self) -> None:
        assert not self.alive
        self.alive = True
        self.starts += 1

    async def run(self, task: Any, blocks: Any = (), on_progress: Any = None) -> Any:
        assert self.alive
        assert not self.busy
        assert len(blocks) == isinstance(task, ReadWindow)
        self.tasks.append(task)
        await asyncio.sleep(0)
        result = self.plan.pop(0) if self.plan else type(self).answer(task)
        if isinstance(result, WorkerDied):
            self.alive = False
        if isinstance(result, Exception):
            raise result
        return result

    async def stop(self) -> None:
        self.alive = False


class Rig:
    def __init__(self, folder: Path, decoder: str) -> None:
        self.clip = folder / "a.sim"
        write_clip(self.clip, 30, 64)
        self.plan: ClipPlan = plan_clip(self.clip, 3)
        self.windows: list[Window] = [*windows(self.plan, steps=1, flows=False)]
        self.warnings: list[str] = []
        self.readers = Readers(None, decoder, deadlines={})  # type: ignore[arg-type]

    def open(self, clip: Path | None = None) -> Any:
        async def run(worker: Any, task: Any, blocks: Any) -> Any:
            return await worker.run(task, blocks)

        return self.readers.open(clip or self.clip, run, self.warnings.append)

    def tasks(self) -> list[str]:
        """What was asked for, short."""
        told = []
        for task in FakeWorker.tasks:
            match task:
                case PlanClip(_, decoder):
                    told.append(f"plan {decoder}")
                case OpenClip(plan, window):
                    told.append(f"open {window} {plan.info.engine}")
                case ReadWindow(window):
                    told.append(f"read {window.index}")
        return told


@pytest.fixture(params=["auto"])
def rig(request: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rig:
    monkeypatch.setattr(readers, "Worker", FakeWorker)
    rig = Rig(tmp_path, request.param)
    FakeWorker.plan, FakeWorker.tasks = [], []
    FakeWorker.answer = lambda task: rig.plan if isinstance(task, PlanClip) else None
    return rig


def run(test: Coroutine[Any, Any, None]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(10):
            await test

    asyncio.run(limited())


class TestPlan:
    def plan(self, rig: Rig, *outcomes: Any) -> Any:
        FakeWorker.plan[:] = outcomes
        got: list[ClipPlan] = []

        async def test() -> None:
            async with rig.open() as reader:
                got.append(await reader.plan(OPTIONS))

        run(test())
        return got[0]

    def test_one_pass(self, rig: Rig) -> None:
        assert self.plan(rig) is rig.plan
        assert rig.tasks() == ["plan auto"]
        assert rig.warnings == []

    def test_after_a_death_the_same_decoder_again(self, rig: Rig) -> None:
        """Something else may have killed it."""
        assert self.plan(rig, DEATH) is rig.plan
        assert rig.tasks() == ["plan auto", "plan auto"]
        assert rig.warnings == ["reader 1: killed by SIGABRT; read again"]

    def test_after_two_deaths_another_decoder(self, rig: Rig) -> None:
        assert self.plan(rig, DEATH, DEATH) is rig.plan
        assert rig.tasks() == ["plan auto", "plan auto", "plan decord-only"]
        again = "reader 1: killed by SIGABRT; read again"
        assert rig.warnings == [again, again, "read with another decoder"]

    def test_one_that_hangs_is_not_tried_again(self, rig: Rig) -> None:
        assert self.plan(rig, HANG) is rig.plan
        assert rig.tasks() == ["plan auto", "plan decord-only"]
        assert "no progress in 60 s" in rig.warnings[0]

    @pytest.mark.parametrize("rig", ["decord"], indirect=True)
    def test_decord_first(self, rig: Rig) -> None:
        self.plan(rig, HANG)
        assert rig.tasks() == ["plan decord", "plan pyav"]

    def test_no_decoder_can_read_it(self, rig: Rig) -> None:
        for outcomes in ([DEATH] * 3, [HANG, HANG], [HANG, DEATH], [DEATH, HANG, DEATH]):
            with pytest.raises(ClipError, match=r"a\.sim: no decoder can read it .*copy it again"):
                self.plan(rig, *outcomes)
            assert not FakeWorker.plan

    def test_what_is_wrong_with_the_clip_is_told_at_once(self, rig: Rig) -> None:
        with pytest.raises(ClipError, match="frame 3"):
            self.plan(rig, ClipError("a.sim: frame 3 is broken"))
        assert rig.tasks() == ["plan auto"]


class TestRead:
    def read(self, rig: Rig, *outcomes: Any, indices: tuple[int, ...] = (0, 1, 2)) -> None:
        """Outcomes are those of tasks after planning."""
        FakeWorker.plan[:] = [rig.plan, *outcomes]

        async def test() -> None:
            async with rig.open() as reader:
                plan = await reader.plan(OPTIONS)
                FakeWorker.tasks.clear()
                for index in indices:
                    window = rig.windows[index]
                    with Block.create(window.layout()) as block:
                        try:
                            await reader.read(plan, window, block)
                        except BlockError:
                            await reader.read(plan, window, block)

        run(test())

    def test_in_order(self, rig: Rig) -> None:
        self.read(rig)
        assert rig.tasks() == ["read 0", "read 1", "read 2"]

    def test_windows_that_are_done_are_left_out(self, rig: Rig) -> None:
        self.read(rig, indices=(1, 2))
        assert rig.tasks() == ["open 1 pyav", "read 1", "read 2"]

    def test_a_new_process_opens_the_clip_where_the_old_one_was(self, rig: Rig) -> None:
        self.read(rig, None, DEATH)
        assert rig.tasks() == ["read 0", "read 1", "open 1 pyav", "read 1", "read 2"]
        assert rig.warnings == ["reader 1: killed by SIGABRT; read again"]

    def test_one_that_hangs_is_replaced_by_the_other_decoder(self, rig: Rig) -> None:
        self.read(rig, None, HANG)
        assert rig.tasks() == ["read 0", "read 1", "open 1 decord", "read 1", "read 2"]
        assert [text.partition(";")[0] for text in rig.warnings] == [
            "reader 1: decode made no progress in 60 s",
            "read with another decoder",
        ]

    def test_neither_decoder(self, rig: Rig) -> None:
        with pytest.raises(ClipError, match=r"a\.sim: no decoder can read it"):
            self.read(rig, None, DEATH, DEATH, DEATH)

    def test_no_memory_is_not_the_decoders_fault(self, rig: Rig) -> None:
        self.read(rig, None, BlockError("no memory for a block"))
        assert rig.tasks() == ["read 0", "read 1", "read 1", "read 2"]


class TestProcesses:
    def test_a_reader_is_used_again(self, rig: Rig) -> None:
        async def test() -> None:
            for _ in range(3):
                async with rig.open() as reader:
                    await reader.plan(OPTIONS)
            (worker,) = rig.readers.workers
            assert worker.starts == 1
            await rig.readers.close()
            assert not worker.alive

        run(test())

    def test_clips_that_are_open_have_one_each(self, rig: Rig) -> None:
        async def test() -> None:
            async with rig.open() as one, rig.open() as other:
                await asyncio.gather(one.plan(OPTIONS), other.plan(OPTIONS))
            assert [worker.name for worker in rig.readers.workers] == ["reader 1", "reader 2"]

        run(test())

    def test_a_busy_one_is_left_alone(self, rig: Rig) -> None:
        """Its clip has failed, but what it does cannot be taken back."""

        async def test() -> None:
            async with rig.open() as reader:
                await reader.plan(OPTIONS)
            worker: Any = rig.readers.workers[0]
            worker.busy = True
            async with rig.open() as reader:
                await reader.plan(OPTIONS)
            worker.busy = False
            async with rig.open(), rig.open():
                pass
            assert len(rig.readers.workers) == 2

        run(test())
