"""No memory for a block; processes that die with blocks in their hands."""

import asyncio
import errno
import os
import signal
import subprocess
import sys

import pytest

from daemon.worker import Worker, WorkerDied
from io_pipeline.blocks import Block, BlockError, Layout, available_memory
from tests.faults import stages
from tests.faults.stages import Calls, task
from tests.io_pipeline.test_blocks import holders


def test_no_memory_for_a_block_is_an_error_with_the_memory_needed(monkeypatch):
    def no_memory(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", no_memory)
    with (
        Block.create(Layout.of(a=((3 << 20,), "u1"))) as block,
        pytest.raises(BlockError, match="no memory for a block of 3 MiB: No space left on device"),
    ):
        block.allocate()


def test_no_memory_in_a_worker_is_an_error_of_its_task_and_costs_nothing_else():
    async def test() -> None:
        worker = Worker("test-0", Calls(), deadlines={"task": 30})
        await worker.start()
        pid = worker.pid
        size = available_memory() + (1 << 30)
        with Block.create(Layout.of(a=((size,), "u1"))) as block:
            with pytest.raises(BlockError, match=f"a block of {-(-size >> 20)} MiB"):
                await worker.run(task(stages.fill_first, 1), [block])
            assert os.fstat(block.descriptor).st_blocks == 0
        with Block.create(Layout.of(a=((100,), "u1"))) as block:
            await worker.run(task(stages.fill_first, 1), [block])
            assert block["a"].all()
        assert worker.pid == pid
        await worker.stop()

    asyncio.run(test())


def test_a_worker_that_dies_with_a_block_takes_nothing_with_it():
    async def test() -> None:
        worker = Worker("test-0", Calls(), deadlines={"task": 30})
        await worker.start()
        with Block.create(Layout.of(a=((1 << 20,), "u1"))) as block:
            inode = os.fstat(block.descriptor).st_ino
            await worker.run(task(stages.fill_first, 7), [block])
            with pytest.raises(WorkerDied):
                await worker.run(task(stages.die, signal.SIGKILL), [block])
            assert holders(inode) == 1
            await worker.start()
            assert (block["a"] == 7).all()
            await worker.run(task(stages.fill, 8), [block])
            assert (block["a"] == 8).all()
        assert holders(inode) == 0
        await worker.stop()

    asyncio.run(test())


def test_a_file_size_limit_is_an_error_and_not_a_signal():
    code = """if True:
        import resource
        from io_pipeline.blocks import Block, BlockError, Layout
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
        try:
            Block.create(Layout.of(a=((2 << 20,), "u1")))
        except BlockError as error:
            print(error)
    """
    command = [sys.executable, "-c", code]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert output.startswith("no memory for a block of 2 MiB: File too large")
