"""What every stage that writes files shares: disk errors that speak to the user, durable files."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import av.error

from fresco_core.errors import FrescodError

# What a file or folder is called until it is complete.
TEMPORARY = ".tmp"

_FULL = frozenset([errno.ENOSPC, errno.EDQUOT])
# How file systems say that they cannot sync folders (network shares above all), or the system
# that a folder may be written to but not opened: names are then as durable as they can be.
_FOLDERS_CANNOT = frozenset([errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EACCES])


class DiskFullError(FrescodError):
    """There is no space left, or none that this user may use; the same step may succeed later."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a failed write into a FrescodError that names the file and the remedy."""
    try:
        yield
    except (av.error.FFmpegError, OSError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        if error.errno in _FULL:
            raise DiskFullError(
                f"{path}: cannot be written ({reason}); free some space, then run again"
            ) from error
        raise FrescodError(
            f"{path}: cannot be written ({reason}); check the output folder, then run again"
        ) from error


@contextmanager
def appearing(path: Path) -> Iterator[Path]:
    """A name beside ``path`` to write to; what is written becomes ``path`` when it is complete.

    Everything written is on the disk before it is renamed, and the new name before this returns.
    A file or a folder of files; an older one under ``path`` is replaced if it is a file. Left by
    an exception, nothing of it remains.

    Raises:
        FrescodError: it cannot be written; `DiskFullError` where there is no space.
    """
    temporary = path.with_name(path.name + TEMPORARY)
    try:
        with writing(path):
            remove(temporary)  # a crash may have left one
            yield temporary
            for part in sorted(temporary.rglob("*")):
                sync(part)
            sync(temporary)
            temporary.rename(path)
            sync(path.parent)
    except BaseException:
        with suppress(OSError):
            remove(temporary)
        raise


def remove(path: Path) -> None:
    """Remove a file or a folder and what is in it, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names where that can be, is on the disk.

    Raises OSError.
    """
    try:
        _sync(path)
    except OSError as error:
        if error.errno not in _FOLDERS_CANNOT or not path.is_dir():
            raise


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
