"""What every stage that writes files shares: disk errors that speak to the user, durable files."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av.error

from fresco_core.errors import FrescodError


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a failed write into a FrescodError that names the file and the remedy."""
    try:
        yield
    except (av.error.FFmpegError, OSError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise FrescodError(
            f"{path}: cannot be written ({reason}); free some space or check the output folder, "
            "then run again"
        ) from error


def sync(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
