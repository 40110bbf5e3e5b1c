"""Opening what somebody dropped: nothing but a file, and without waiting for it."""

import errno
import os
import stat
from io import BufferedReader


def open_regular(path: str | os.PathLike[str], *, follow: bool = True) -> BufferedReader:
    """Open a regular file to read; ``follow``: also where a symbolic link leads to one.

    Raises:
        OSError: there is none; opening a pipe or a device does not wait for its other end.
    """
    return os.fdopen(regular_descriptor(path, follow=follow), "rb")


def regular_descriptor(
    path: str | os.PathLike[str], *, follow: bool = True, folder: int | None = None
) -> int:
    """As `open_regular`; ``folder`` is a descriptor of the one that ``path`` is relative to."""
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    try:
        descriptor = os.open(path, flags, dir_fd=folder)
    except OSError as error:
        if error.errno == errno.ELOOP and not follow and _is_link(path, folder):
            raise OSError(errno.ELOOP, "it is a symbolic link", str(path)) from None
        if error.errno == errno.ENXIO:  # a socket
            raise OSError(errno.ENXIO, "it is no regular file", str(path)) from None
        raise
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", str(path))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _is_link(path: str | os.PathLike[str], folder: int | None) -> bool:
    try:
        return stat.S_ISLNK(os.stat(path, dir_fd=folder, follow_symlinks=False).st_mode)
    except OSError:
        return False
