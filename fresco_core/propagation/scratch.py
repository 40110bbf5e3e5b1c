"""Folders for files of a moment, in the system's temporary folder (TMPDIR)."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

_PREFIX = "frescod-propagate-"
# Seconds in which a folder may be made that nobody has locked yet.
_YOUNG = 60.0


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A new folder, removed afterwards with all in it.

    Where the process is killed it stays, for the next process that wants one to remove: whose
    folder it is holds a lock on it.

    Raises:
        OSError: it cannot be made.
    """
    _remove_left()
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    try:
        descriptor = _lock(folder)
        try:
            yield folder
        finally:
            os.close(descriptor)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _lock(folder: Path) -> int:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


@cache
def _remove_left() -> None:
    """Remove what killed processes have left; once in a process."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError):  # somebody's own, in use, or just gone
            found = folder.lstat()
            ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
            if ours and time.time() - found.st_mtime > _YOUNG:
                os.close(_lock(folder))
                shutil.rmtree(folder, ignore_errors=True)
