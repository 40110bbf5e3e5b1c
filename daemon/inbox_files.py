"""The files in the inbox, and which of them are complete."""

import heapq
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daemon.file_identity import FileIdentity, cannot_be_read, identify
from daemon.folder_scan import (
    CLIP_SUFFIXES,
    PROMPT_SUFFIX,
    SETTINGS_SUFFIX,
    Ignored,
    composed,
    control_of,
    stem_of,
    suffix_of,
)
from daemon.misspellings import Misspellings
from daemon.open_for_writing import any_open_for_writing, open_for_writing
from daemon.printable import printable
from daemon.settings import Inbox as InboxSettings
from io_pipeline.control_source import control_name, meant
from io_pipeline.natural_order import natural_order

SUFFIXES = CLIP_SUFFIXES | {PROMPT_SUFFIX, SETTINGS_SUFFIX}
PORTION = 500  # files sorted at once
LOST = 60.0  # seconds of quiet after which the event that a file was closed counts as lost
AGAIN = 1.0  # seconds until a file is looked at again that somebody has open


@dataclass(slots=True)
class _Incomplete:
    """A file that may still be copied: unchanged ``since``, to be looked at when ``due``."""

    since: float
    due: float


class InboxFiles:
    """Clips and what belongs to them, by their names relative to the folder.

    A folder of control maps counts as one file: it is complete when all in it are.

    Works on the disk. Not thread-safe: one call at a time.

    Args:
        on_warning: one line for the user.
        clock: monotonic seconds.

    Attributes:
        changed: groups (`group_of`) to which something has happened, in natural order of their
            files; whoever has looked at one takes it out.
    """

    def __init__(
        self,
        folder: Path,
        settings: InboxSettings,
        on_warning: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.root = str(folder)
        self.changed: dict[str, None] = {}
        self._settings = settings
        self._ignored = Ignored(settings.ignore)
        self._warn = on_warning
        self._clock = clock
        self._files: dict[str, FileIdentity] = {}
        self._groups: dict[str, list[str]] = {}
        self._misspellings = Misspellings(self.root, self.group, on_warning)
        self._incomplete: dict[str, _Incomplete] = {}
        self._written: dict[str, float] = {}  # by events: written to and not closed since
        self._closed_folders: set[str] = set()
        self._device: int | None = None

    def __getitem__(self, name: str) -> FileIdentity:
        return self._files[name]

    def __contains__(self, name: str) -> bool:
        """Whether it is there, or in a sub-folder that cannot be read, where nobody knows."""
        return name in self._files or name.startswith(tuple(self._closed_folders))

    def group(self, group: str) -> Sequence[str]:
        """Names with one folder and one clip's stem."""
        return self._groups.get(group, ())

    def complete(self, name: str) -> bool:
        """Whether it was quiet for long enough and nobody writes to it."""
        return name not in self._incomplete

    @property
    def due(self) -> float:
        """When `look` is to be called though no event comes; infinite: not at all."""
        return min((file.due for file in self._incomplete.values()), default=float("inf"))

    # --- looking ---------------------------------------------------------------------------------

    def scan(self) -> str:
        """Look through the folder; answers why that cannot be done, "" where it was done."""
        now = self._clock()
        present: set[str] = set()
        changed: list[tuple[str, FileIdentity]] = []
        closed: set[str] = set()
        try:
            device = os.stat(self.root).st_dev
            for name, found in self._entries(closed):
                present.add(name)
                # For most files in most scans that is all.
                before = self._files.get(name)
                if found is None or before != (
                    found.st_size,
                    found.st_mtime_ns,
                    found.st_ino,
                    "",
                    "",
                ):
                    identity = self._identify(name, found)
                    if identity is not None and identity != before:
                        changed.append((name, identity))
        except OSError as error:
            return f"{printable(self.root)} {cannot_be_read(error)}: mount it, or make it"
        if not present and self._files and self._device not in (None, device):
            return f"{printable(self.root)} is empty, and another disk than before: mount it"
        self._device = device
        for folder in sorted(closed - self._closed_folders):
            self._warn(f"{printable(self.path(folder))} cannot be read: what is in it is left out")
        self._closed_folders = closed
        for name, identity in _in_order(changed):
            self._note(name, identity, now)
        for name in self._files.keys() - present:
            if not name.startswith(tuple(closed)):
                self._forget(name)
        self._misspellings.tell()
        return ""

    def look(self, hints: Mapping[str, bool | None]) -> None:
        """Look at the files that are due, and at those that events are about.

        ``hints``: names; True: somebody writes to it; False: who has written to it has closed it.
        """
        now = self._clock()
        for name, written in self._outermost(hints).items():
            identity = self._identify(name) if not self.why_ignored(name) else None
            if identity is not None:  # whether one is gone is for a whole scan to say
                if identity != self._files.get(name):
                    self._note(name, identity, now)
                self._hint(name, written, now)
        for name in [name for name, file in self._incomplete.items() if file.due <= now]:
            identity = self._identify(name)
            if identity is None:
                self._incomplete[name].due = float("inf")
            elif identity != self._files[name]:
                self._note(name, identity, now)
            else:
                self._complete(name, now)

    def take(self, name: str) -> None:
        """Look at a file that somebody says is complete.

        Raises:
            FileNotFoundError: it is not there.
        """
        identity = self._identify(name)
        if identity is None:
            raise FileNotFoundError(name)
        if identity != self._files.get(name):
            self._note(name, identity, self._clock())
        self._check_readable(name)
        self.settle(name)

    def settle(self, name: str) -> None:
        """A file is complete."""
        if name in self._incomplete:
            del self._incomplete[name]
            self._written.pop(name, None)
            self.changed[group_of(name)] = None

    def why_ignored(self, name: str) -> str:
        """Why a file of this name would not be looked at; "" where it would."""
        *folders, file = name.split("/")
        if not is_named_as_file(file):
            return "is no clip by its name"
        if any(part in self._ignored for part in (*folders, file)):
            return "is hidden, or left alone by inbox.ignore"
        if folders and not self._settings.recursive:
            return "is in a sub-folder, and inbox.recursive is off"
        if any(map(is_named_as_file, folders)):
            return "is in a folder that is named as a file"
        return ""

    def path(self, name: str) -> str:
        """Where a file is."""
        return os.path.join(self.root, name)

    def _entries(self, closed: set[str]) -> Iterator[tuple[str, os.stat_result | None]]:
        """Files that count, with what they are themselves, links not followed.

        None in place of that: it fails, or it is a folder of control maps.

        Sub-folders that cannot be read are put into ``closed``.

        Raises:
            OSError: the folder cannot be read.
        """
        folders = [""]
        while folders:
            below = folders.pop()
            try:
                with os.scandir(self.path(below)) as entries:
                    for entry in entries:
                        if entry.name in self._ignored:
                            continue
                        name = below + entry.name
                        if suffix_of(entry.name) in SUFFIXES:
                            try:
                                yield name, entry.stat(follow_symlinks=False)
                            except FileNotFoundError:  # gone in between
                                pass
                            except OSError:
                                yield name, None
                            continue
                        try:
                            if meant(entry.name, folder=True) and entry.is_dir():
                                self._misspellings.see(name, folder=True)
                            if control_name(entry.name, folder=True):
                                if entry.is_dir():
                                    yield name, None
                            elif self._settings.recursive and entry.is_dir(follow_symlinks=False):
                                folders.append(f"{name}/")
                        except OSError:  # it may be one
                            closed.add(f"{name}/")
            except OSError as error:
                if not below:
                    raise
                if not isinstance(error, FileNotFoundError | NotADirectoryError):
                    closed.add(below)

    def _identify(self, name: str, found: os.stat_result | None = None) -> FileIdentity | None:
        """What a file is now; None where it is not there."""
        try:
            identity = identify(self.root, name, found)
        except FileNotFoundError:
            return None
        before = self._files.get(name)
        was_refused = before is not None and before.refused and before[:3] == identity[:3]
        if was_refused and not identity.refused:
            # It could not be read. Permissions change without a trace in size and times.
            try:
                self._is_written(name)
            except OSError as error:
                return identity._replace(refused=cannot_be_read(error))
        return identity

    # --- complete or not -------------------------------------------------------------------------

    def _note(self, name: str, identity: FileIdentity, now: float) -> None:
        """A file is new, or another one than before."""
        if name not in self._files:
            self._groups.setdefault(group_of(name), []).append(name)
            self._misspellings.see(name)
        self._files[name] = identity
        self._incomplete[name] = _Incomplete(now, now + self._settings.quiet_seconds)
        self.changed[group_of(name)] = None

    def _hint(self, name: str, written: bool | None, now: float) -> None:
        """An event tells whether somebody is writing; what is complete stays so."""
        file = self._incomplete.get(name)
        if file is None:
            return
        if written is None:  # made, linked or moved here
            written = self._files[name].size == 0
        elif written:
            # Older watchers mix up writing with setting the mode or the times, which is often done
            # after closing. A write sets both times to the same moment.
            try:
                found = os.stat(self.path(name))
            except OSError:
                return
            written = found.st_mtime_ns == found.st_ctime_ns
        if written:
            self._written[name] = file.since = now
        else:
            self._written.pop(name, None)
        file.due = file.since + self._settings.quiet_seconds

    def _complete(self, name: str, now: float) -> None:
        """A file has been quiet: it is complete, unless somebody has it open."""
        file = self._incomplete[name]
        try:
            is_open = self._check_readable(name)
        except FileNotFoundError:
            file.due = float("inf")
            return
        lost = self._written.get(name, -LOST) + LOST
        if is_open:
            file.due = now + min(AGAIN, self._settings.quiet_seconds)
        elif is_open is None and now < lost:
            file.due = lost
        else:
            self.settle(name)

    def _check_readable(self, name: str) -> bool | None:
        """Refuse a file that cannot be read; answers whether somebody has it open for writing."""
        identity = self._files[name]
        if identity.refused:
            return False
        try:
            return self._is_written(name)
        except FileNotFoundError:
            raise
        except OSError as error:
            self._files[name] = identity._replace(refused=cannot_be_read(error))
            return False

    def _is_written(self, name: str) -> bool | None:
        """As `daemon.open_for_writing.open_for_writing`, of a file or of any in a folder."""
        if control_name(os.path.basename(name), folder=True):
            return any_open_for_writing(self.path(name))
        return open_for_writing(self.path(name))

    def _outermost(self, hints: Mapping[str, bool | None]) -> Mapping[str, bool | None]:
        """Hints, with the folder of control maps in place of what is in it.

        Thousands of pictures make thousands of events: while it is not complete, it is looked at
        when it is due.
        """
        outermost: dict[str, bool | None] = {}
        for name, written in hints.items():
            parts = name.split("/")
            for count, part in enumerate(parts, 1):
                if control_name(part, folder=True):
                    folder = "/".join(parts[:count])
                    if folder not in self._incomplete:
                        outermost[folder] = None
                    break
            else:
                outermost[name] = written
        return outermost

    def _forget(self, name: str) -> None:
        """A file is not there any more."""
        group = group_of(name)
        self._groups[group].remove(name)
        if not self._groups[group]:
            del self._groups[group]
        for known in (self._files, self._incomplete, self._written):
            known.pop(name, None)
        self.changed[group] = None


def _in_order(files: list[tuple[str, FileIdentity]]) -> Iterator[tuple[str, FileIdentity]]:
    """By their names, in natural order."""

    def order(file: tuple[str, FileIdentity]) -> Any:
        return natural_order(file[0])

    # While a list is sorted all other threads wait: thousands are sorted in portions.
    starts = range(0, len(files), PORTION)
    return heapq.merge(*(sorted(files[at : at + PORTION], key=order) for at in starts), key=order)


def group_of(name: str) -> str:
    """What the files of one clip have in common: their folder and their stem."""
    folder, slash, file = name.rpartition("/")
    control = control_of(file)
    return folder + slash + composed(stem_of(file) if control is None else control[0])


def is_named_as_file(name: str) -> bool:
    """Whether something of this name, be it a file or a folder of control maps, is looked at."""
    return suffix_of(name) in SUFFIXES or control_name(name, folder=True) is not None
