"""``<output>/<name>.failed.txt``: why a clip has no result, for whoever looks for one."""

import asyncio
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from daemon.jobs import Outcome
from daemon.printable import printable
from fresco_core.errors import FrescodError
from io_pipeline.writing import DiskFullError, appearing

SUFFIX = ".failed.txt"
FIRST_WORD = "failed: "
AGAIN = 2.0  # seconds until a note that found no space is tried once more
_LONGEST = 200  # bytes of its name, which is longer while it is being written


def note_path(folder: Path) -> Path:
    """The note of what would have been the result ``folder``."""
    name = folder.name + SUFFIX
    if len(name.encode(errors="surrogateescape")) > _LONGEST:
        digest = hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()
        name = digest[:32] + SUFFIX
    return folder.with_name(name)


class FailureNotes:
    """The notes of an output folder. One that finds the disk full is written when there is space.

    Until then it is owed. Nothing of that is on a disk: who begins anew tells it what has failed.
    """

    def __init__(self, output: Path) -> None:
        self._output = output
        self._owed: dict[str, str] = {}  # reasons by a result's name
        self._lock = asyncio.Lock()  # what was owed is not to come after what is newer

    def owe(self, reasons: Mapping[str, str]) -> None:
        """Have `run` write these where they are missing: reasons of failures by a result's name."""
        self._owed |= reasons

    async def settle(self, name: str, outcome: Outcome, reason: str) -> None:
        """As the function `settle`, of the result ``name``; what was owed for it no longer is."""
        async with self._lock:
            self._owed.pop(name, None)
            await self._settle(name, outcome, reason)

    async def run(self) -> None:
        """Write what is owed, until it is cancelled."""
        while True:
            for name in [*self._owed]:
                async with self._lock:
                    if name in self._owed:
                        await self._settle(name, Outcome.FAILED, self._owed.pop(name))
            await asyncio.sleep(AGAIN)

    async def _settle(self, name: str, outcome: Outcome, reason: str) -> None:
        try:
            await asyncio.to_thread(settle, self._output / name, outcome, reason)
        except DiskFullError:
            self._owed[name] = reason


def settle(folder: Path, outcome: Outcome, reason: str) -> None:
    """Leave a note for a failed clip, remove that of any other. A user's own file stays.

    Where it cannot be written at all, the reason is in the job store and the log as well.

    Raises:
        DiskFullError: there is no space for it, and there may be some later.
    """
    path = note_path(folder)
    note = f"{FIRST_WORD}{printable(reason)}\n".encode()
    try:
        before = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        if os.path.lexists(path) and not before.startswith(FIRST_WORD.encode()):
            return
        if outcome is not Outcome.FAILED:
            path.unlink(missing_ok=True)
        elif before != note:
            _write(path, note)
    except DiskFullError:
        raise
    except (FrescodError, OSError):
        pass


def _write(path: Path, note: bytes) -> None:
    with appearing(path) as file:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(note)
