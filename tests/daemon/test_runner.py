"""What becomes of a worker's call when nobody waits for it any more."""

import asyncio
import gc

import pytest

from daemon.work import ClipWork, WindowWork
from daemon.workshop import Workshop
from io_pipeline.blocks import Block
from tests.daemon.shops import Pool, clip_work, run, shop, window
from tests.daemon.test_memory import turns


class Drawing:
    """One control map that is drawn by a pool of the test's."""

    def __init__(self) -> None:
        self.pool = Pool()
        made, _ = shop(self.pool)
        self.shop: Workshop = made
        self.clip: ClipWork = clip_work()
        self.work = WindowWork(window(controls=1), Block.create(window(controls=1).layout()))
        self.clip.windows.add(self.work)
        self.shop._windows[self.work] = self.clip.account
        self.work.maps = [self.shop.ahead.draw(self.clip, self.work, 0)]

    async def drop(self) -> asyncio.Task[None]:
        self.shop.memory._add(self.clip.account, self.work.block.nbytes)
        task = asyncio.create_task(self.shop.drop(self.clip, self.work))
        await turns(20)
        return task


def test_called_off_while_its_worker_starts() -> None:
    """A device takes the map over, and the block is closed: the worker must never see it."""

    async def test() -> None:
        drawing = Drawing()
        await turns()
        assert drawing.shop.cores.free == 0  # it has its core, and waits for its worker
        await drawing.work.maps_for(True)
        await (await drawing.drop())
        drawing.pool.start.set()
        await turns()
        assert drawing.pool.seen == ["dropped"]
        assert drawing.shop.cores.free == 1
        assert not drawing.clip.running

    run(test())


@pytest.mark.parametrize("error", [None, ValueError("no map")])
def test_begun_in_the_moment_in_which_it_is_called_off(
    error: Exception | None, caplog: pytest.LogCaptureFixture
) -> None:
    """It goes on: whoever wants to close the block waits for it."""

    async def test() -> None:
        drawing = Drawing()
        drawing.pool.error = error
        await turns()
        drawing.pool.start.set()  # it will be begun in this turn, after it is called off
        await drawing.work.maps_for(True)
        dropping = await drawing.drop()
        assert drawing.pool.seen == ["begun"]
        assert drawing.work.maps[0].task.cancelled()
        assert not dropping.done()
        assert drawing.shop.cores.free == 0
        drawing.pool.finish.set()
        await dropping
        assert drawing.pool.seen == ["begun", "done"]
        assert drawing.shop.cores.free == 1
        gc.collect()

    run(test())
    assert "never retrieved" not in caplog.text


def test_a_call_that_fails_is_heard_by_its_caller() -> None:
    async def test() -> None:
        drawing = Drawing()
        drawing.pool.error = ValueError("no map")
        drawing.pool.start.set()
        drawing.pool.finish.set()
        with pytest.raises(ValueError, match="no map"):
            await drawing.work.maps_for(False)
        await (await drawing.drop())

    run(test())


def test_calls_that_wait_for_cores_are_counted() -> None:
    async def test() -> None:
        drawing = Drawing()
        others = [drawing.shop.ahead.draw(drawing.clip, drawing.work, 0) for _ in range(2)]
        await turns()
        assert (drawing.shop.waiting("cpu"), drawing.shop.waiting("reader")) == (2, 0)
        others[0].task.cancel()
        await turns()
        assert drawing.shop.waiting("cpu") == 1
        drawing.pool.start.set()
        drawing.pool.finish.set()
        await asyncio.gather(drawing.work.maps[0].task, others[1].task)
        assert drawing.shop.waiting("cpu") == 0
        drawing.work.block.close()

    run(test())
