"""A result's staging folder: built out of sight, continued after an interruption, shown complete.

Legend of the folders under an output folder: ``.staging/<name>`` is what is being built,
``.replaced/<name>`` an older result for the moment in which a newer one takes its name.
"""

import itertools
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fresco_core.errors import FrescodError
from fresco_core.keyframes import Batch
from io_pipeline import checkpoint
from io_pipeline.staged import (
    BATCHES,
    CHECKPOINTS,
    IDENTITY,
    WINDOWS,
    keys_folder,
    result_folder,
    window_folder,
)
from io_pipeline.writing import TEMPORARY, appearing, remove, sync, writing

STAGING = ".staging"
REPLACED = ".replaced"
MANIFEST = "manifest.json"
KEPT_FRAMES = "frames"
FRAMES = ("preview", "keys", "all")  # what a result may have, from less to more


@dataclass(frozen=True)
class Progress:
    """Indices of the windows that need not be done again.

    Attributes:
        published: encoded, with all before it either published or translated as well.
        translated: with a complete checkpoint. The first window that is neither can be translated:
            the checkpoint of the one before it is there.
        batches: in which published windows were translated, by window; empty where not known.
    """

    published: frozenset[int]
    translated: frozenset[int]
    batches: Mapping[int, tuple[Batch, ...]] = field(default_factory=dict, compare=False)


class Staging:
    """The staging folder of the result ``<output_root>/<name>``.

    Attributes:
        folder: ``<output_root>/.staging/<name>``, the ``staging`` of tasks.
        result: ``<output_root>/<name>``.

    Raises:
        ValueError: the name cannot be that of a result.
    """

    def __init__(self, output_root: Path, name: str) -> None:
        if name in ("", ".", "..", STAGING, REPLACED) or "/" in name:
            raise ValueError(f"{name!r} cannot be the name of a result folder")
        self.result = output_root / name
        self.folder = output_root / STAGING / name
        self._root = output_root
        self._replaced = output_root / REPLACED / name

    @property
    def is_shown(self) -> bool:
        """Whether the folder is only what was left of a result that has its name already."""
        return self.folder.is_dir() and not keys_folder(self.folder).is_dir()

    def open(
        self, identity: Mapping[str, str], *, fresh: bool = False, frames: str = "all"
    ) -> Progress:
        """Continue what an earlier run with the same identity left here, or begin.

        ``identity`` is all that decides what the result looks like: fingerprints, versions. What
        was begun with another one is removed, and with ``fresh`` everything is. ``frames``: which
        of a clip's the result will have, one of `FRAMES`.

        Raises:
            FrescodError: the folder cannot be written, or something that is no result of an
                earlier run has the result's name: only results are ever replaced, and those of
                more frames only if it is to be ``fresh``.
        """
        with writing(self.folder):
            self._refuse_to_replace()
            if not fresh:
                self._refuse_to_lose_frames(frames)
            self.settle()
            if fresh or not self._continues(identity):
                self._discard()
                self._begin(identity, frames)
            for left in [*self.folder.rglob(f"*{TEMPORARY}")]:
                remove(left)
            return self._progress()

    def show(self) -> None:
        """Let ``result/`` of the staging folder, complete and synced, take its name.

        An older result is replaced, and the staging folder removed. Dead between any two steps,
        the older or the newer result is there, complete, after the next `open` or `remove`.

        Raises:
            FrescodError: it cannot be written, or what has its name is no result.
        """
        with writing(self.result):
            self._follow_no_links()
            self._refuse_to_replace()  # again: it may have come since
            if self.result.exists():
                _make_folder(self._replaced)  # a rename puts an empty folder's place to use
                self.result.rename(self._replaced)
                sync(self._replaced.parent)
            result_folder(self.folder).rename(self.result)
            sync(self._root)
        with suppress(FrescodError):  # it is shown: what is left is removed next time
            self.remove()

    def remove(self) -> None:
        """Forget what was built; an older result is in its place.

        Raises:
            FrescodError: it cannot be removed.
        """
        with writing(self.folder):
            self.settle()
            self._discard()
            with suppress(OSError):
                self.folder.parent.rmdir()

    def settle(self) -> None:
        """Put an older result that was to be replaced back, or away.

        Raises:
            FrescodError: a folder of ours is a link.
            OSError: it cannot be done.
        """
        self._follow_no_links()
        if self._replaced.exists():
            if not os.path.lexists(self.result) and read_manifest(self._replaced) is not None:
                self._replaced.rename(self.result)
                sync(self._root)
            else:
                # Its manifest first: half of a result is none.
                (self._replaced / MANIFEST).unlink(missing_ok=True)
                remove(self._replaced)
        with suppress(OSError):
            self._replaced.parent.rmdir()

    def _continues(self, identity: Mapping[str, str]) -> bool:
        try:
            found = json.loads((self.folder / IDENTITY).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        if any(path.is_symlink() for path in self.folder.rglob("*")):  # none of ours
            return False
        return bool(found == dict(identity)) and not self.is_shown

    def _discard(self) -> None:
        """Remove the staging folder; half of it is not continued."""
        if self.folder.exists():
            identity = self.folder / IDENTITY
            if identity.exists():
                identity.unlink()
                sync(self.folder)
            remove(self.folder)

    def _begin(self, identity: Mapping[str, str], frames: str) -> None:
        new = [folder for folder in (self._root, *self._root.parents) if not folder.exists()]
        _make_folder(keys_folder(self.folder))
        for name in (CHECKPOINTS, WINDOWS):
            (self.folder / name).mkdir()
        for folder in (result_folder(self.folder), self.folder.parent, self._root):
            sync(folder)
        for folder in new:
            sync(folder.parent)
        (self.folder / KEPT_FRAMES).write_text(frames + "\n", encoding="utf-8")
        with appearing(self.folder / IDENTITY) as file:
            file.write_text(json.dumps(dict(identity), indent=2) + "\n", encoding="utf-8")

    def _progress(self) -> Progress:
        published = {int(path.name) for path in (self.folder / WINDOWS).iterdir()}
        translated = {
            int(path.stem)
            for path in (self.folder / CHECKPOINTS).iterdir()
            if checkpoint.is_complete(path)
        }
        known = published | translated
        missing = next(index for index in itertools.count() if index not in known)
        # The first window to translate needs the carry of the one before: where that was not
        # kept, windows are done again from the last one whose carry was.
        carried = max((index for index in translated if index < missing), default=-1)
        for index in range(carried + 1, missing):
            remove(window_folder(self.folder, index))
            published.discard(index)
        batches = {index: self._batches(index) for index in published}
        return Progress(frozenset(published), frozenset(translated), batches)

    def _batches(self, index: int) -> tuple[Batch, ...]:
        file = window_folder(self.folder, index) / BATCHES
        try:
            return checkpoint.batches_of(json.loads(file.read_text(encoding="utf-8")))
        except (OSError, ValueError):
            return ()

    def _follow_no_links(self) -> None:
        """Nothing is built, moved or removed where somebody's link leads to."""
        for own in (self.folder, self._replaced):
            if own.parent.is_symlink():
                raise FrescodError(
                    f"{own.parent}: is a symbolic link; remove it or choose another output folder"
                )
            if own.is_symlink():
                own.unlink()

    def _refuse_to_replace(self) -> None:
        """Anything but an older result stays: an output folder may hold the user's own things."""
        is_result = not self.result.is_symlink() and read_manifest(self.result) is not None
        if os.path.lexists(self.result) and not is_result:
            raise FrescodError(
                f"{self.result}: exists and is no result of frescod; move it or choose another "
                "output folder"
            )

    def _refuse_to_lose_frames(self, frames: str) -> None:
        """A night's frames are not lost to a look at the first few."""
        shown = (read_manifest(self.result) or {}).get("frames", FRAMES[-1])
        if self.result.exists() and shown in FRAMES[FRAMES.index(frames) + 1 :]:
            raise FrescodError(
                f"{self.result}: has all {'frames' if shown == 'all' else 'key frames'} of its "
                f'clip, which output.frames = "{frames}" would replace; choose another output '
                "folder, or move it (--force would throw it away)"
            )
        if self._kept_frames() in FRAMES[FRAMES.index(frames) + 1 :]:
            raise FrescodError(
                f"{self.result}: is half made, with more than the frames that output.frames = "
                f'"{frames}" asks for; finish it, choose another output folder, or throw away what '
                "there is with --force"
            )

    def _kept_frames(self) -> str | None:
        """Which frames a half-made result is to have; None where nothing was done for one."""
        if not any((self.folder / CHECKPOINTS).glob("*")):
            return None
        with suppress(OSError):
            return (self.folder / KEPT_FRAMES).read_text(encoding="utf-8").strip()
        return None


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """A result folder's manifest; None where there is no complete result."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) else None


def _make_folder(path: Path) -> None:
    """Create a folder and those above it, though another worker may just remove an empty one."""
    for _ in range(100):
        with suppress(FileNotFoundError):
            path.mkdir(parents=True, exist_ok=True)
            return
    path.mkdir(parents=True, exist_ok=True)
