"""Clips in the inbox with what belongs to them, and what has been told of them."""

import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from daemon.file_identity import seen
from daemon.folder_scan import (
    CLIP_SUFFIXES,
    PROMPT_SUFFIX,
    SETTINGS_SUFFIX,
    best_match,
    control_of,
    is_clip,
    stem_of,
    suffix_of,
)
from daemon.inbox_files import InboxFiles, group_of, is_named_as_file
from daemon.jobs import Arrival
from daemon.printable import printable
from daemon.settings import Inbox as InboxSettings
from fresco_core.errors import ClipError
from io_pipeline.control_source import ControlFile, control_name
from io_pipeline.natural_order import natural_order

PORTION = 500  # groups told at once, so that thousands take little memory and keep nobody waiting


class _Names(NamedTuple):
    """A clip and what belongs to it, by names relative to the inbox."""

    clip: str
    prompt: str | None = None
    settings: str | None = None
    controls: tuple[str, ...] = ()

    @property
    def others(self) -> list[str]:
        """All that there are but the clip."""
        return [name for name in (self.prompt, self.settings, *self.controls) if name is not None]


@dataclass(frozen=True)
class Changes:
    """What is new in the inbox: clips as they are now, and known ones that are not there."""

    arrived: tuple[Arrival, ...] = ()
    gone: tuple[Path, ...] = ()


class Arrivals:
    """Tells of every clip when it is complete, and again when it or its files have changed.

    Works on the disk. Not thread-safe: one call at a time.

    Args:
        known: clips that have been told earlier, with what was `seen` of them.
        on_warning: one line for the user.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        folder: Path,
        settings: InboxSettings,
        known: Mapping[Path, str],
        on_warning: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder = folder
        self._files = InboxFiles(folder, settings, on_warning, clock)
        self._told = {
            str(clip.relative_to(folder)): word
            for clip, word in known.items()
            if clip.is_relative_to(folder)
        }
        self._gone: list[str] = []

    @property
    def due(self) -> float:
        """When `look` is to be called though no event comes; infinite: not at all."""
        return self._files.due

    def scan(self) -> str:
        """Look through the folder; answers why that cannot be done, "" where it was done."""
        problem = self._files.scan()
        if not problem:
            gone = [name for name in self._told if name not in self._files]
            self._gone += sorted(gone, key=natural_order)
            for name in gone:
                del self._told[name]
        return problem

    def look(self, hints: Mapping[str, bool | None]) -> None:
        """Look at the files that are due, and at those that events are about.

        ``hints``: names; True: somebody writes to it; False: who has written to it has closed it.
        """
        self._files.look(hints)

    def changes(self) -> Changes | None:
        """What has changed and was not told, some of it at a time; None: nothing is left."""
        arrived: list[Arrival] = []
        changed = self._files.changed
        while changed and not arrived:
            for group in list(islice(changed, PORTION)):
                del changed[group]
                for name in self._files.group(group):
                    if is_clip(name) and (arrival := self._arrival(name)):
                        arrived.append(arrival)
        gone, self._gone = self._gone, []
        if not arrived and not gone:
            return None
        return Changes(tuple(arrived), tuple(self._folder / name for name in gone))

    def knows(self, clip: Path) -> bool:
        """Whether the clip was there when the folder was looked through, and was told."""
        return os.path.relpath(clip, self._folder) in self._told

    def tell_again(self, clip: Path) -> None:
        """Tell of a clip once more, if it is there: whoever was told had no use for it then."""
        name = os.path.relpath(clip, self._folder)
        if name in self._told:
            self._told[name] = ""
            self._files.changed[group_of(name)] = None

    def take(self, name: str, priority: int | None) -> Arrival:
        """A clip that somebody says is complete, and its files, as they are now.

        Raises:
            ClipError: there is no such clip in the inbox, or it is refused.
        """
        shown = printable(name)
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in name:
            raise ClipError(f"{shown!r} is no clip in the inbox: give its name as the inbox has it")
        name = str(path)
        if suffix_of(name) not in CLIP_SUFFIXES:
            endings = " ".join(sorted(CLIP_SUFFIXES))
            raise ClipError(f"{shown} is no clip by its name: it is to end in one of {endings}")
        if control := control_name(path.name):
            of = printable(control[0])
            raise ClipError(f"{shown} has by its name the control maps of a clip {of}: rename it")
        if reason := self._files.why_ignored(name):
            raise ClipError(f"{shown} {reason}: move it, or rename it")
        try:
            files = self._take(name)
        except (OSError, ValueError) as error:  # ValueError: a name that no file can have
            raise ClipError(f"{shown} is not in the inbox: copy it there first") from error
        arrival = self._as_told(files, self._seen(files), priority)
        if arrival.refused:
            raise ClipError(f"{shown}: {arrival.refused}")
        self._told[name] = arrival.seen
        return arrival

    def _take(self, name: str) -> _Names:
        folder = os.path.dirname(name)
        real = os.path.join(os.path.realpath(self._folder), folder)
        if os.path.realpath(self._files.path(folder)) != real.rstrip("/"):
            raise FileNotFoundError(name)  # a link, as which it would not be found again
        self._files.take(name)
        for other in os.listdir(self._files.path(folder)):
            other = os.path.join(folder, other)
            mate = is_named_as_file(os.path.basename(other)) and not is_clip(other)
            if mate and group_of(other) == group_of(name) and not self._files.why_ignored(other):
                with suppress(FileNotFoundError):  # a file that is named as a folder
                    self._files.take(other)
        return self._names(name)

    def _arrival(self, name: str) -> Arrival | None:
        """A clip with its files; None while it is incomplete, and where that has been told."""
        files = self._names(name)
        word = self._seen(files)
        if word == self._told.get(name):  # all as it was, and then it was complete
            for file in (name, *files.others):
                self._files.settle(file)
            return None
        if not self._files.complete(name):
            return None
        if not all(map(self._files.complete, files.others)):
            # Nobody is to begin with half a prompt, half of its settings or of its control maps.
            files = _Names(name)
            word = self._seen(files)
            if word == self._told.get(name):
                return None
        self._told[name] = word
        return self._as_told(files, word)

    def _as_told(self, files: _Names, word: str, priority: int | None = None) -> Arrival:
        refused = self._files[files.clip].refused
        for file in files.others:
            if not refused and self._files[file].refused:
                refused = f"{printable(os.path.basename(file))} {self._files[file].refused}"
        return Arrival(
            self._folder / files.clip,
            None if files.prompt is None else self._folder / files.prompt,
            None if files.settings is None else self._folder / files.settings,
            word,
            refused,
            priority,
            control_files=tuple(
                ControlFile(control[1], self._folder / file)
                for file in files.controls
                if (control := control_of(os.path.basename(file)))
            ),
        )

    def _names(self, clip: str) -> _Names:
        group, stem = self._files.group(group_of(clip)), stem_of(clip)
        prompts = (name for name in group if suffix_of(name) == PROMPT_SUFFIX)
        settings = (name for name in group if suffix_of(name) == SETTINGS_SUFFIX)
        controls = sorted(
            (name for name in group if control_of(os.path.basename(name))), key=natural_order
        )
        return _Names(clip, best_match(stem, prompts), best_match(stem, settings), tuple(controls))

    def _seen(self, files: _Names) -> str:
        names = files.clip, files.prompt, files.settings, *files.controls
        return seen(None if name is None else (name, self._files[name]) for name in names)
