"""What the CPU pool does for a window as soon as its frames are read: nobody should wait for it."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from daemon.runner import DRAW, MATCH, SEARCH
from daemon.stages import map_options
from daemon.work import ClipWork, MapTask, WindowWork
from io_pipeline.tasks import DrawMap, MatchPair, SearchFlows
from io_pipeline.window import Window

# Has the pool do a task of a stage, of a priority; calls the last argument when it is begun.
OnCpu = Callable[
    [ClipWork, str, Any, tuple[int, ...], WindowWork, Callable[[], None]], Awaitable[Any]
]


def fitting(window: Window, most: int, *, matched: bool) -> Window:
    """The window without what would take more than so many bytes to be found ahead.

    What is needed for translating the device finds then, and for propagating the cores. The latter
    has room before the former: without it cores propagate, minutes of theirs a window, and a GPU
    finds the former in less than a second.
    """
    ways = itertools.product((window.searched, False), (matched and window.matched, False))
    all_ways = [replace(window, matched=match, searched=search) for search, match in ways]
    return next((each for each in all_ways if each.layout().nbytes <= most), all_ways[-1])


def _nothing() -> None:
    pass


class Ahead:
    """Begins tasks that go on beside everything else; `WindowWork` holds them."""

    def __init__(self, on_cpu: OnCpu) -> None:
        self._on_cpu = on_cpu

    def begin(self, clip: ClipWork, work: WindowWork, *, draws: bool) -> None:
        """Begin what a window needs: of its control maps only where the pool ``draws`` them."""
        window = work.window
        work.matches = [self._match(clip, work, pair) for pair in range(window.ring_pairs)]
        if window.to_draw and draws:
            work.maps = [self.draw(clip, work, key) for key in range(len(window.key_numbers))]
        if window.searched:
            segments = range(len(window.segments))
            work.searches = [self._search(clip, work, segment) for segment in segments]

    def draw(self, clip: ClipWork, work: WindowWork, key: int) -> MapTask:
        """Begin to draw a key frame's control maps."""
        task = DrawMap(work.window, key, map_options(clip.settings))
        priority = (DRAW, clip.number, work.window.index)

        async def draw() -> None:
            await self._on_cpu(clip, "prepare", task, priority, work, drawing.begin)

        drawing = MapTask(asyncio.create_task(draw()))
        return drawing

    def _match(self, clip: ClipWork, work: WindowWork, pair: int) -> asyncio.Task[Any]:
        task = MatchPair(work.window, pair)
        return self._task(clip, "match", task, (MATCH, clip.number, work.window.index), work)

    def _search(self, clip: ClipWork, work: WindowWork, segment: int) -> asyncio.Task[Any]:
        task = SearchFlows(work.window, segment)
        return self._task(clip, "prepare", task, (SEARCH, clip.number, work.window.index), work)

    def _task(
        self, clip: ClipWork, stage: str, task: Any, priority: tuple[int, ...], work: WindowWork
    ) -> asyncio.Task[Any]:
        async def run() -> Any:
            return await self._on_cpu(clip, stage, task, priority, work, _nothing)

        return asyncio.create_task(run())
