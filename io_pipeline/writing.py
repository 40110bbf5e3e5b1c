"""What every stage that writes files shares: disk errors that speak to the user, durable files."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av.error

from fresco_core.errors import FrescodError

# How file systems say that they cannot sync folders (network shares above all), or the system
# that a folder may be written to but not opened: names are then as durable as they can be.
_FOLDERS_CANNOT = frozenset([errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EACCES])


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a failed write into a FrescodError that names the file and the remedy."""
    try:
        yield
    except (av.error.FFmpegError, OSError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        remedy = "check the output folder"
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            remedy = "free some space"
        raise FrescodError(
            f"{path}: cannot be written ({reason}); {remedy}, then run again"
        ) from error


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
