"""What the daemon's status tells of the store, in memory: whoever looks waits for no disk."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from daemon.job_store import JobStore
from daemon.jobs import JobRecord, JobState
from fresco_core.errors import FrescodError

EVERY = 0.5  # seconds between looks for changes while nobody asks
WAIT = 0.2  # seconds for which somebody is kept waiting
SHARE = 0.2  # of the time may be spent with reading


class StoreView:
    """Counts and last failures as they were less than a second ago, if the store answers.

    Args:
        ask: calls a method of the store in another thread.
    """

    def __init__(self, store: JobStore, ask: Callable[..., Awaitable[Any]]) -> None:
        self.counts: Mapping[JobState, int] = dict.fromkeys(JobState, 0)
        self.failures: Sequence[JobRecord] = ()
        self._store = store
        self._ask = ask
        self._seen = -1  # of the store's changes
        self._due = 0.0
        self._reading: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Follow the store until cancelled."""
        while True:
            await self.refresh()
            await asyncio.sleep(EVERY)

    async def refresh(self) -> None:
        """Bring it up to date; what takes longer than ``WAIT`` is left to be done meanwhile."""
        wanted = self._store.changes
        with suppress(TimeoutError):
            async with asyncio.timeout(WAIT):
                for _ in range(2):  # a reading that is under way may have begun too early
                    if self._seen >= wanted:
                        return
                    if self._reading is None or self._reading.done():
                        self._reading = asyncio.create_task(self._read())
                    await asyncio.shield(self._reading)

    async def _read(self) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(0.0, self._due - loop.time()))
        begun, seen = loop.time(), self._store.changes
        with suppress(FrescodError):  # whoever writes will tell
            self.counts, self.failures = await self._ask(self._both)
            self._seen = seen
        self._due = loop.time() + (loop.time() - begun) / SHARE

    def _both(self) -> tuple[Mapping[JobState, int], Sequence[JobRecord]]:
        return self._store.counts(), self._store.failures()
