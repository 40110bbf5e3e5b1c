"""Who draws a window's control maps; what is left of a clip."""

import asyncio
from collections.abc import Coroutine, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from daemon.config import Layer, merge
from daemon.work import MapTask, WindowWork
from fresco_core.keyframes import Batch
from io_pipeline.blocks import Block
from io_pipeline.window import BY_CPU, BY_DEVICE, Window
from tests.daemon.shops import clip_work

WINDOW = Window(0, 1, 0, (0, 4, 8), 64, 64, 5, controls=1, flows=False)
WITHOUT = Window(0, 1, 0, (0, 4, 8), 64, 64, 5, controls=0, flows=False)


def run(test: Coroutine[Any, Any, None]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(10):
            await test

    asyncio.run(limited())


class Drawings:
    """A window's maps: each drawn when the test says so."""

    def __init__(self) -> None:
        self.drawn = [asyncio.Event() for _ in WINDOW.key_numbers]
        self.work = WindowWork(WINDOW, Block.create(WINDOW.layout()))
        self.work.maps = [MapTask(asyncio.ensure_future(event.wait())) for event in self.drawn]

    async def finish(self, *keys: int) -> None:
        for key in keys:
            self.work.maps[key].begin()
            self.drawn[key].set()
            await self.work.maps[key].task

    def __enter__(self) -> "Drawings":
        return self

    def __exit__(self, *error: object) -> None:
        self.work.block.close()


def test_a_device_that_does_not_draw_waits_for_all() -> None:
    async def test() -> None:
        with Drawings() as drawings:
            maps = asyncio.ensure_future(drawings.work.maps_for(False))
            await drawings.finish(0, 2)
            await asyncio.sleep(0)
            assert not maps.done()
            await drawings.finish(1)
            assert await maps == drawings.work.drawn == (BY_CPU,) * 3

    run(test())


def test_a_device_that_draws_waits_for_none() -> None:
    async def test() -> None:
        with Drawings() as drawings:
            await drawings.finish(0)
            drawings.work.maps[1].begin()
            assert await drawings.work.maps_for(True) == (BY_CPU, BY_DEVICE, BY_DEVICE)
            await asyncio.sleep(0)
            assert not drawings.work.maps[1].task.done()  # a worker draws it: to no avail
            assert drawings.work.maps[2].task.cancelled()
            drawings.drawn[1].set()
            await drawings.work.settle()

    run(test())


@pytest.mark.parametrize("draws", [False, True])
def test_asked_again_for_another_device(draws: bool) -> None:
    """What was taken over from the CPU nobody there draws any more."""

    async def test() -> None:
        with Drawings() as drawings:
            await drawings.finish(0)
            drawings.work.maps[1].begin()
            await drawings.work.maps_for(True)
            await drawings.finish(1)
            expected = (BY_CPU, BY_CPU, BY_DEVICE)
            assert await drawings.work.maps_for(draws) == drawings.work.drawn == expected

    run(test())


def test_a_map_that_cannot_be_drawn_fails_the_window() -> None:
    async def test() -> None:
        async def fail() -> None:
            raise ValueError("no weights")

        with Drawings() as drawings:
            drawings.work.abandon()
            drawings.work.maps[0] = MapTask(asyncio.create_task(fail()))
            await drawings.work.settle()
            with pytest.raises(ValueError, match="no weights"):
                await drawings.work.maps_for(False)

    run(test())


def test_without_control_or_without_drawings() -> None:
    async def test() -> None:
        with Block.create(WITHOUT.layout()) as block:
            assert await WindowWork(WITHOUT, block).maps_for(True) == ()
        with Block.create(WINDOW.layout()) as block:
            assert await WindowWork(WINDOW, block).maps_for(True) == (BY_DEVICE,) * 3

    run(test())


class TestLeft:
    def clip(self, batches: Sequence[Batch]) -> Any:
        clip: Any = clip_work()
        clip.plan = SimpleNamespace(batches=batches, working_size=(4, 8))
        return clip

    def test_is_what_windows_are_made_of(self) -> None:
        clip = self.clip((Batch((0, 5, 10)), Batch((15, 20)), Batch((25, 27))))
        assert clip.left == (7 * 32, 21 * 32)
        clip.batches[0] = ()
        assert clip.left == (4 * 32, 13 * 32)
        clip.translated = frozenset({1})
        assert clip.left == (2 * 32, 5 * 32)
        clip.published = frozenset({2})
        assert clip.left == (0, 0)

    def test_nothing_is_propagated_for_key_frames_alone(self) -> None:
        clip = self.clip((Batch((0, 5, 10)),))
        clip.settings = merge(Layer("test", {"output.frames": "keys"}))
        assert clip.left == (3 * 32, 0)

    def test_nobody_knows_before_it_is_planned(self) -> None:
        clip = clip_work()
        del clip.plan
        assert clip.left is None
