"""Machine code ahead of the first segment; the test plays who makes it."""

import asyncio
from typing import Any

import pytest

from daemon.machine_code import MachineCode
from daemon.runner import COMPILE
from fresco_core.propagation import PropagationOptions
from io_pipeline.tasks import CompilePropagation
from tests.daemon.shops import clip_work, run
from tests.daemon.test_memory import turns

USUAL, OTHER = PropagationOptions(), PropagationOptions(patch=7)


class Cores:
    """Do what they are told when the test says so."""

    def __init__(self) -> None:
        self.tasks: list[Any] = []
        self.finish = asyncio.Event()
        self.error: Exception | None = None
        self.made = 0

    async def __call__(self, clip: Any, stage: str, task: Any, priority: tuple[int, ...]) -> None:
        assert priority == (COMPILE, clip.number)
        self.tasks.append(task)
        await self.finish.wait()
        if self.error is not None:
            raise self.error

    def on_made(self) -> None:
        self.made += 1


@pytest.mark.parametrize("error", [None, RuntimeError("no compiler")])
def test_segments_wait_until_it_is_there_or_cannot_be(error: Exception | None) -> None:
    async def test() -> None:
        cores = Cores()
        code = MachineCode(cores, cores.on_made)
        assert not code.is_being_made(USUAL)
        cores.error = error
        code.make(clip_work(), USUAL)
        assert code.is_being_made(USUAL)
        assert not code.is_being_made(OTHER)
        await turns(2)
        assert cores.tasks == [CompilePropagation(USUAL)]
        cores.finish.set()
        await turns(3)
        assert not code.is_being_made(USUAL)
        assert cores.made == 1

    run(test())


def test_once_for_each_patch() -> None:
    async def test() -> None:
        cores = Cores()
        code = MachineCode(cores, cores.on_made)
        for options in (USUAL, OTHER, USUAL, PropagationOptions(votes=3)):
            code.make(clip_work(), options)
        await turns(2)
        assert cores.tasks == [CompilePropagation(USUAL), CompilePropagation(OTHER)]
        await code.close()
        assert not code.is_being_made(USUAL)

    run(test())
