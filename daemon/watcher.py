"""Events about a folder: hints where to look, none of which is guaranteed to come."""

import errno
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from watchdog.events import (
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver
from watchdog.utils import BaseThread

from daemon.printable import printable

# Not who opens or reads a file: the program's own readers do.
_EVENTS: list[type[FileSystemEvent]] = [
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileModifiedEvent,
    FileMovedEvent,
]
# Whether somebody writes to the file now.
_WRITTEN = {FileModifiedEvent: True, FileClosedEvent: False}
JOIN = 5.0  # seconds

Hint = Callable[[str | None, bool | None], None]


class Watcher:
    """Watches a folder with inotify. May be called from any thread.

    Args:
        on_hint: called in the observer's thread with a name relative to the folder, and True: it
            is written to; False: it was closed after that; None: made, linked or moved there. The
            name is None where something is gone, or a folder is new.
        on_warning: one line for the user.
    """

    def __init__(
        self, folder: Path, recursive: bool, on_hint: Hint, on_warning: Callable[[str], None]
    ) -> None:
        self._folder = folder
        self._recursive = recursive
        self._handler = _Handler(str(folder) + "/", on_hint)
        self._warn = on_warning
        self._lock = threading.Lock()
        self._observer: BaseObserver | None = None
        self._threads: list[threading.Thread] = []
        self._watched: tuple[int, int] | None = None  # which folder has had that name
        self._warned = ""
        self._ended = False

    def check(self) -> str:
        """Start watching unless that goes on; answers what was found to be wrong, "" for nothing.

        What is wrong has been put right then, if it can be.
        """
        with self._lock:
            if self._ended:
                return ""
            try:
                found = os.stat(self._folder)
            except OSError:  # whoever scans it tells
                self._close()
                return ""
            folder, problem = (found.st_dev, found.st_ino), ""
            if self._observer is not None:
                alive = all(thread.is_alive() for thread in self._threads)
                if alive and folder == self._watched:
                    return ""
                if not alive and folder == self._watched:
                    problem = "the inbox's watcher had ended; it is started again"
                self._close()
            self._watched = folder
            return self._open() or problem

    def stop(self) -> None:
        """Stop watching, for good."""
        with self._lock:
            self._ended = True
            self._close()

    def _open(self) -> str:
        before = set(threading.enumerate())
        observer: BaseObserver | None = None
        try:
            observer = Observer()
            observer.schedule(
                self._handler, str(self._folder), recursive=self._recursive, event_filter=_EVENTS
            )
            observer.start()
        except OSError as error:
            failure: OSError | None = error
        else:
            failure = None
        self._observer = observer
        # How many threads it has, and where it keeps them, is different in each version.
        self._threads = [
            thread
            for thread in threading.enumerate()
            if isinstance(thread, BaseThread) and thread not in before
        ]
        if failure is None:
            self._warned = ""
            return ""
        self._close()
        if failure.errno in (errno.ENOSPC, errno.EMFILE):
            self._warn_once(
                "the inbox is not watched, only looked through now and then: raise "
                f"fs.inotify.max_user_watches and max_user_instances ({failure.strerror})"
            )
            return ""
        return f"{printable(self._folder)} cannot be watched: {failure.strerror}"

    def _close(self) -> None:
        observer, self._observer = self._observer, None
        if observer is not None:
            with suppress(OSError, RuntimeError):  # parts of it may be dead
                observer.stop()
        for thread in self._threads:
            if thread.is_alive():
                assert isinstance(thread, BaseThread)
                with suppress(OSError, RuntimeError):
                    thread.stop()
                thread.join(JOIN)
        self._threads = []

    def _warn_once(self, text: str) -> None:
        if text != self._warned:
            self._warn(text)
        self._warned = text


class _Handler(FileSystemEventHandler):
    def __init__(self, folder: str, on_hint: Hint) -> None:
        self._folder = folder
        self._on_hint = on_hint

    def dispatch(self, event: FileSystemEvent) -> None:
        source, target = os.fsdecode(event.src_path), os.fsdecode(event.dest_path)
        if event.is_directory or isinstance(event, FileDeletedEvent | FileMovedEvent):
            self._on_hint(None, None)
        if not event.is_directory and not isinstance(event, FileDeletedEvent):
            path = target or source
            if path.startswith(self._folder):
                self._on_hint(path.removeprefix(self._folder), _WRITTEN.get(type(event)))
