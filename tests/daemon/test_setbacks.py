"""What devices leave to cores once they have failed. How they fail is in `test_propagation`."""

import asyncio
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from daemon.segments import Segment
from daemon.setbacks import Setbacks
from daemon.work import ClipWork, WindowWork
from daemon.workers import WorkerDied
from fresco_core.propagation import PropagationOptions
from io_pipeline.blocks import Block
from io_pipeline.propagate_on_device import propagate_segments
from io_pipeline.tasks import PropagateSegments
from io_pipeline.worker import FatalError, NoMemoryToPropagate, OutOfDeviceMemory, TaskError
from tests.daemon.shops import clip_work, run, window

DEVICE: Any = SimpleNamespace(name="cuda:0")


def segment(clip: ClipWork, height: int = 64) -> Segment:
    block: Any = None
    work = WindowWork(replace(window(), height=height), block)
    done = asyncio.get_running_loop().create_future()
    return Segment(clip, work, 0, PropagationOptions(), done)


class Told:
    """Setbacks, and what comes of them."""

    def __init__(self, deaths: int = 3) -> None:
        self.warnings: list[str] = []
        self.charged: list[Exception] = []
        self.clip = clip_work()
        self.setbacks = Setbacks(deaths, self._charge, self._warn)

    async def _charge(self, clip: ClipWork, device: Any, failure: Exception, text: str) -> None:
        self.charged.append(failure)

    def _warn(self, clip: ClipWork, text: str, action: Any) -> None:
        self.warnings.append(text)

    async def add(self, failure: Exception, height: int = 64) -> None:
        await self.setbacks.add(DEVICE, [segment(self.clip, height)], failure)

    def too_large(self, *heights: int) -> list[bool]:
        return [self.setbacks.too_large(segment(self.clip, height)) for height in heights]


@pytest.mark.parametrize("kind", [NoMemoryToPropagate, OutOfDeviceMemory])
def test_a_size_and_larger_ones_once_there_was_no_memory(kind: type[Exception]) -> None:
    async def test() -> None:
        told = Told()
        await told.add(kind("tried to allocate 3 GiB"))
        assert told.too_large(56, 64, 72) == [False, True, True]
        await told.add(kind("a group that was begun before"), 72)
        assert len(told.warnings) == 1
        await told.add(kind("tried to allocate 2 GiB"), 48)
        assert told.too_large(40, 48) == [False, True]
        assert len(told.warnings) == 2
        assert not told.charged
        assert not told.setbacks.given_up

    run(test())


class TestRemedy:
    def told(self, failure: Exception) -> str:
        told = Told()
        run(told.add(failure))
        (warning,) = told.warnings
        return warning

    def test_the_setting_is_the_limit(self) -> None:
        """As a process says it that may use so little."""
        chosen = replace(window(), flows=True)
        task = PropagateSegments(chosen, (0,), PropagationOptions(), 1 << 20)
        with Block.create(chosen.layout()) as block, pytest.raises(NoMemoryToPropagate) as caught:
            propagate_segments(task, block, torch.device("cpu"), lambda *report: None)
        warning = self.told(caught.value)
        assert "; raise propagation.device_memory or lower key_frames.resolution" in warning
        assert "full" not in warning

    @pytest.mark.parametrize("kind", [NoMemoryToPropagate, OutOfDeviceMemory])
    def test_the_card_is_full(self, kind: type[Exception]) -> None:
        warning = self.told(kind("CUDA out of memory. Tried to allocate 3.00 GiB."))
        assert "; the GPU is full: lower propagation.device_memory" in warning
        assert "raise" not in warning


@pytest.mark.parametrize("kind", [WorkerDied, FatalError])
def test_everything_after_so_many_deaths(kind: type[Exception]) -> None:
    async def test() -> None:
        told = Told(deaths=2)
        failures = [kind("killed") for _ in range(3)]
        for failure, given_up in zip(failures, (False, True, True), strict=True):
            await told.add(failure)
            assert told.setbacks.given_up == given_up
        assert told.charged == failures
        assert told.warnings == [
            "from here on the CPU alone propagates: too many processes died of it"
        ]
        assert told.too_large(64) == [False]

    run(test())


def test_everything_at_once_where_trying_again_is_in_vain() -> None:
    async def test() -> None:
        told = Told()
        await told.add(TaskError("KernelsError", "no C compiler", ""))
        assert told.setbacks.given_up
        assert not told.charged

    run(test())
