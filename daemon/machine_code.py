"""The machine code that cores propagate with: made once a machine, ahead of the first segment."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from daemon.runner import COMPILE
from daemon.work import ClipWork
from fresco_core.propagation import PropagationOptions
from io_pipeline.tasks import CompilePropagation

# Has the pool do a task of a stage, of a priority, without a window.
OnCpu = Callable[[ClipWork, str, Any, tuple[int, ...]], Awaitable[Any]]


class MachineCode:
    """Has a core make it, some 20 seconds, where this machine has not got it; ``on_made`` then.

    Whoever began a segment meanwhile would wait for the same, and in the end all cores would.
    """

    def __init__(self, on_cpu: OnCpu, on_made: Callable[[], None]) -> None:
        self._on_cpu = on_cpu
        self._on_made = on_made
        self._tasks: dict[int, asyncio.Task[None]] = {}

    def make(self, clip: ClipWork, options: PropagationOptions) -> None:
        """Begin to, for a clip's options."""
        if options.patch not in self._tasks:
            self._tasks[options.patch] = asyncio.create_task(self._make(clip, options))

    def is_being_made(self, options: PropagationOptions) -> bool:
        """Whether a segment of these options should rather wait."""
        task = self._tasks.get(options.patch)
        return task is not None and not task.done()

    async def _make(self, clip: ClipWork, options: PropagationOptions) -> None:
        try:
            with suppress(Exception):  # whoever propagates finds out, and tells
                task = CompilePropagation(options)
                await self._on_cpu(clip, "prepare", task, (COMPILE, clip.number))
        finally:
            asyncio.get_running_loop().call_soon(self._on_made)

    async def close(self) -> None:
        """Have nothing more made."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
