"""Decoders that hang or abort in their process, and clips that are odd.

What is wrong with a clip itself (cut, flipped bits, no video stream, no frame, too many pixels) is
in tests/io_pipeline/test_clip_reader.py: `TestRefused`, `TestCutShort`.
"""

import asyncio
import importlib.util
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.readers import Readers
from daemon.workers import Worker, WorkerDied, WorkerTimeout
from fresco_core.errors import ClipError
from fresco_core.keyframes import resize_frame
from io_pipeline.blocks import Block
from io_pipeline.options import KeyFrameOptions
from io_pipeline.reading import ReaderStage
from io_pipeline.tasks import PlanClip, ReadWindow
from io_pipeline.window import windows
from tests.faults.broken_decoders import BrokenDecoders
from tests.io_pipeline.media import difference, flip_bytes, make_clip, read

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("decord") is None, reason="decord is not installed"
)
STAGE = ReaderStage(8192 * 8192)
OPTIONS = KeyFrameOptions(3, 3, 4, 64)
# Seconds; loading takes longer than a frame.
DEADLINES = {"start": 60.0, "load": 60.0, "task": 60.0, "decode": 2.0}
OTHER = {"pyav": "decord", "decord": "pyav"}
FRAMES = 20


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return make_clip(tmp_path / "a.mp4", frames=FRAMES)


class Broken:
    """Readers whose decoders break from `now` on."""

    def __init__(
        self, folder: Path, *decoders: str, how: str, after: int = 0, decoder: str = "auto"
    ) -> None:
        self._when = folder / "broken"
        stage = BrokenDecoders(STAGE, decoders, how, after, self._when)
        self._readers = Readers(stage, decoder, deadlines=DEADLINES)
        self.warnings: list[str] = []

    def now(self) -> None:
        self._when.touch()

    def mended(self) -> None:
        self._when.unlink()

    @asynccontextmanager
    async def open(self, path: Path) -> Any:
        async def run(worker: Worker, task: Any, blocks: tuple[Block, ...]) -> Any:
            return await worker.run(task, blocks)

        async with self._readers.open(path, run, self.warnings.append) as reader:
            yield reader

    def play(self, test: Callable[[], Awaitable[None]]) -> None:
        async def closing() -> None:
            try:
                await test()
            finally:
                await self._readers.close()

        asyncio.run(closing())


async def frames_of(reader: Any, plan: Any) -> np.ndarray:
    """Every frame of the clip, by way of its windows."""
    found = []
    for window in windows(plan, steps=1, flows=False):
        with Block.create(window.layout()) as block:
            await reader.read(plan, window, block)
            found.append(block["frames"][window.new_frames].copy())
    return np.concatenate(found)


@pytest.mark.parametrize("how", ["hangs", "aborts"])
class TestBroken:
    def test_while_planning(self, tmp_path: Path, clip: Path, how: str) -> None:
        """The second decoder does it alone; PyAV, which is broken throughout, decodes nothing."""
        broken = Broken(tmp_path, "pyav", how=how, after=7)
        broken.now()

        async def test() -> None:
            async with broken.open(clip) as reader:
                plan = await reader.plan(OPTIONS)
                assert (plan.info.engine, plan.info.frame_count) == ("decord", FRAMES)
                assert "decord alone" in plan.info.warnings[0]
                assert difference(await frames_of(reader, plan), np.array(read(clip))) < 2.5

        broken.play(test)

    @pytest.mark.parametrize("decoder", ["pyav", "decord"])
    def test_while_reading(self, tmp_path: Path, clip: Path, how: str, decoder: str) -> None:
        """The other decoder goes on where this one stopped, both ways."""
        broken = Broken(tmp_path, decoder, how=how, after=12, decoder=decoder)

        async def test() -> None:
            async with broken.open(clip) as reader:
                plan = await reader.plan(OPTIONS)
                assert (plan.info.engine, plan.info.warnings) == (decoder, ())
                broken.now()
                found, expected = await frames_of(reader, plan), np.array(read(clip))
                assert found.shape == expected.shape
                assert difference(found, expected) < 2.5

        broken.play(test)
        assert broken.warnings

    def test_both(self, tmp_path: Path, clip: Path, how: str) -> None:
        """That clip fails, with a reason; the readers go on with the next."""
        broken = Broken(tmp_path, "pyav", "decord", how=how, after=3)
        broken.now()

        async def test() -> None:
            async with broken.open(clip) as reader:
                with pytest.raises(ClipError, match=r"a\.mp4: no decoder can read it"):
                    await reader.plan(OPTIONS)
            broken.mended()
            async with broken.open(clip) as reader:
                plan = await reader.plan(OPTIONS)
                assert np.array_equal(await frames_of(reader, plan), read(clip))

        broken.play(test)


def test_only_the_broken_process_ends(tmp_path: Path, clip: Path) -> None:
    """The deadline is for silence: a clip that takes longer is left alone."""
    (tmp_path / "broken").touch()
    hanging = BrokenDecoders(STAGE, ("pyav",), "hangs", 3, tmp_path / "broken")

    async def test() -> None:
        bad, good = (
            Worker(f"reader {i}", s, deadlines=DEADLINES) for i, s in ((1, hanging), (2, STAGE))
        )
        try:
            await asyncio.gather(bad.start(), good.start())
            before = good.pid
            with pytest.raises(WorkerTimeout, match="decode made no progress"):
                await bad.run(PlanClip(clip, "auto", OPTIONS))
            assert not bad.alive
            plan = await good.run(PlanClip(clip, "auto", OPTIONS))
            window = next(windows(plan, steps=1, flows=False))
            with Block.create(window.layout()) as block:
                await good.run(ReadWindow(window), (block,))
            assert good.pid == before
        finally:
            await asyncio.gather(bad.stop(), good.stop())

    asyncio.run(test())


def test_an_abort_says_so(tmp_path: Path, clip: Path) -> None:
    (tmp_path / "broken").touch()
    stage = BrokenDecoders(STAGE, ("pyav",), "aborts", 3, tmp_path / "broken")

    async def test() -> None:
        worker = Worker("reader 1", stage, deadlines=DEADLINES)
        try:
            await worker.start()
            with pytest.raises(WorkerDied, match="SIGABRT"):
                await worker.run(PlanClip(clip, "auto", OPTIONS))
        finally:
            await worker.stop()

    asyncio.run(test())


def test_a_damaged_clip_costs_no_process(tmp_path: Path, clip: Path) -> None:
    """It is refused by the first decoder that sees the damage; the second one would not."""
    damaged = flip_bytes(make_clip(tmp_path / "b.mp4", frames=40, width=160, height=120))

    async def test() -> None:
        worker = Worker("reader 1", STAGE, deadlines=DEADLINES)
        try:
            await worker.start()
            before = worker.pid
            with pytest.raises(ClipError, match=r"b\.mp4: damaged near frame"):
                await worker.run(PlanClip(damaged, "auto", OPTIONS))
            assert (await worker.run(PlanClip(clip, "auto", OPTIONS))).info.frame_count == FRAMES
            assert worker.pid == before
        finally:
            await worker.stop()

    asyncio.run(test())


class Silent(list[Any]):
    def __call__(self, *_: Any) -> None:
        pass


@settings(max_examples=12, deadline=None)
@given(width=st.integers(1, 130), height=st.integers(1, 130), frames=st.integers(1, 8))
def test_any_size_and_length(
    tmp_path_factory: pytest.TempPathFactory, width: int, height: int, frames: int
) -> None:
    path = tmp_path_factory.mktemp("clip") / "a.mp4"
    make_clip(path, width=width, height=height, frames=frames)
    reader = STAGE.load(Silent())
    plan = reader(PlanClip(path, "auto", OPTIONS), (), Silent())
    found = []
    for window in windows(plan, steps=1, flows=False):
        with Block.create(window.layout()) as block:
            reader(ReadWindow(window), (block,), Silent())
            found.append(block["frames"][window.new_frames].copy())
    assert np.array_equal(np.concatenate(found), [resize_frame(frame, 64) for frame in read(path)])


@pytest.mark.parametrize(("width", "height", "frames"), [(1, 1, 1), (1, 1, 3), (853, 479, 2)])
def test_odd_clips(
    tmp_path_factory: pytest.TempPathFactory, width: int, height: int, frames: int
) -> None:
    test_any_size_and_length.hypothesis.inner_test(tmp_path_factory, width, height, frames)
