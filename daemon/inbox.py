"""The inbox: a folder that is watched for clips and their prompt files."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from daemon.arrivals import Arrivals, Changes
from daemon.file_identity import seen_now
from daemon.folder_scan import CLIP_SUFFIXES, scan
from daemon.jobs import Arrival
from daemon.printable import printable
from daemon.settings import Inbox as InboxSettings
from daemon.watcher import Watcher
from fresco_core.errors import ConfigError

__all__ = ["CLIP_SUFFIXES", "Changes", "Inbox", "scan", "seen_now"]

T = TypeVar("T")

GATHER = 0.05  # seconds in which events are collected: a copy makes thousands of them
SOON = 1.0  # seconds between scans that events ask for, and of polling
SHARE = 0.1  # of the time may be spent with such scans
SILENT = 60.0  # seconds without an answer from the disk


class Inbox:
    """Tells of complete clips in a folder, of their changes, and of their end.

    Events say at once where to look; a scan every ``rescan_seconds`` finds what they leave out.
    No work on the disk is done in the event loop.

    Args:
        on_change: gets what is new; called again when it has returned. What it raises ends `run`.
        known: clips that have been told earlier, with what was `seen` of them.
        on_warning: one line for the user; may be called from any thread.
    """

    def __init__(
        self,
        folder: Path,
        settings: InboxSettings,
        on_change: Callable[[Changes], Awaitable[None]],
        known: Mapping[Path, str] = {},
        on_warning: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.folder = folder
        self._on_change = on_change
        self._warn = on_warning
        self._arrivals = Arrivals(folder, settings, known, on_warning)
        self._working = asyncio.Lock()  # one step at a time
        self._working_since: float | None = None
        self._due = float("inf")
        self._watcher: Watcher | None = None
        self._interval = settings.rescan_seconds
        if settings.watch == "inotify":
            self._watcher = Watcher(folder, settings.recursive, self._hint, on_warning)
        else:
            self._interval = min(SOON, settings.rescan_seconds)
        self._problem = ""
        self._watcher_problem = ""
        # What the observer's thread has left for the loop's.
        self._lock = threading.Lock()
        self._hints: dict[str, bool | None] = {}
        self._scan_soon = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._hinted = asyncio.Event()

    @property
    def problem(self) -> str:
        """Why not all that is dropped may be found; empty: all is well."""
        since = self._working_since
        if since is not None and (silent := time.monotonic() - since) > SILENT:
            return f"{printable(self.folder)} has not answered for {silent:.0f} s: is it mounted?"
        return self._problem or self._watcher_problem

    def create(self) -> None:
        """Make the folder if it is not there.

        Raises:
            ConfigError: that cannot be done.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"inbox.folder: {printable(self.folder)} cannot be made ({error.strerror}): name "
                "another folder, or make it"
            ) from error

    async def run(self) -> None:
        """Watch until cancelled.

        Raises:
            ConfigError: the folder is not there and cannot be made.
        """
        self._loop = asyncio.get_running_loop()
        await asyncio.to_thread(self.create)
        scanned, took = -float("inf"), 0.0
        try:
            while True:
                start = time.monotonic()
                soon = max(SOON, took / SHARE)
                wait = soon if self._scan_soon else max(self._interval, took / SHARE)
                if start >= scanned + wait:
                    await self._step(self._scan)
                    scanned = time.monotonic()
                    took = scanned - start
                else:
                    await self._step(self._look)
                wait = soon if self._scan_soon else max(self._interval, took / SHARE)
                await self._pause(min(scanned + wait, self._due))
        finally:
            if self._watcher is not None:
                await asyncio.to_thread(self._watcher.stop)

    async def take(self, name: str, priority: int | None = None) -> Arrival:
        """A clip that somebody says is complete, with its prompt and settings as they are now.

        ``name``: relative to the inbox. The clip is not told again unless it changes.

        Raises:
            ClipError: there is no such clip in the inbox, or it is refused.
        """
        async with self._working:
            return await self._work(lambda: self._arrivals.take(name, priority))

    @property
    def away(self) -> bool:
        """Whether the folder cannot be looked through at the moment."""
        return bool(self._problem)

    async def lacks(self, clip: Path) -> bool:
        """Whether the folder could be looked through, and the clip is not in it any more."""
        async with self._working:
            return not self._problem and not self._arrivals.knows(clip)

    async def tell_again(self, clip: Path) -> None:
        """Tell of a clip once more, if it is there: a change came while it could not be used."""
        async with self._working:
            self._arrivals.tell_again(clip)
        self._hinted.set()

    # --- steps -----------------------------------------------------------------------------------

    async def _step(self, work: Callable[[], None]) -> None:
        async with self._working:
            await self._work(work)
            while (changes := await self._work(self._arrivals.changes)) is not None:
                await self._on_change(changes)
            self._due = await self._work(lambda: self._arrivals.due)

    async def _work(self, work: Callable[[], T]) -> T:
        self._working_since = time.monotonic()
        try:
            return await asyncio.to_thread(work)
        finally:
            self._working_since = None

    def _scan(self) -> None:
        # Watched first: what comes after the scan has passed makes an event.
        problem = self._watcher.check() if self._watcher is not None else ""
        if problem and problem != self._watcher_problem:
            self._warn(problem)
        self._watcher_problem = problem
        with self._lock:
            self._scan_soon = False
        problem = self._arrivals.scan()
        if problem and problem != self._problem:
            self._warn(problem)
        self._problem = problem
        self._look()

    def _look(self) -> None:
        with self._lock:
            hints, self._hints = self._hints, {}
        self._arrivals.look(hints)

    async def _pause(self, until: float) -> None:
        """Wait for events, at most until a time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, until - time.monotonic())):
                await self._hinted.wait()
        if self._hinted.is_set():
            await asyncio.sleep(GATHER)
            self._hinted.clear()

    def _hint(self, name: str | None, written: bool | None) -> None:
        """In the observer's thread: something has happened to a file; None: look everywhere."""
        with self._lock:
            if name is None:
                self._scan_soon = True
            elif written is None:
                self._hints.setdefault(name, None)
            else:
                self._hints[name] = written
        # Cleared before hints are taken: one that comes later sets it again.
        if self._loop is not None and not self._hinted.is_set():
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._hinted.set)
