"""A small supervisor with three workers and a block, for tests that kill it.

Prints its workers' process ids and the block's inode, and then waits to be killed.
"""

import asyncio
import os
import signal
import sys
from pathlib import Path

from daemon.worker import Worker
from io_pipeline.blocks import Block, Layout
from tests.faults import stages
from tests.faults.stages import Calls, task


async def main(folder: Path, busy: stages.Task) -> None:
    deadlines = {"task": 600.0}
    block = Block.create(Layout.of(a=((64 << 20,), "u1")))
    working, idle, loading = (
        Worker("working", Calls(), deadlines=deadlines),
        Worker("idle", Calls(), deadlines=deadlines),
        Worker(
            "loading",
            Calls(task(stages.touch_and_sleep, folder / "loading", 600)),
            deadlines=deadlines,
        ),
    )
    await asyncio.gather(working.start(), idle.start())
    await idle.run(task(stages.fill_first, 1), [block])
    waiting = [
        asyncio.create_task(working.run(busy, [block])),
        asyncio.create_task(loading.start()),
    ]
    while not (folder / "loading").exists():
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    inode = os.fstat(block.descriptor).st_ino
    print(working.pid, idle.pid, loading.pid, inode, flush=True)
    await asyncio.gather(*waiting)


if __name__ == "__main__":
    # whoever has started the tests in the background has it ignored
    signal.signal(signal.SIGINT, signal.default_int_handler)
    asyncio.run(
        main(Path(sys.argv[1]), task(getattr(stages, sys.argv[2]), *map(int, sys.argv[3:])))
    )
