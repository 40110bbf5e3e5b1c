"""The daemon's state folder: made, and owned by one process."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from daemon.printable import printable
from fresco_core.errors import ConfigError

LOCK = "lock"
_MODE = 0o755


def make(folder: Path) -> None:
    """Make the folder if it is not there, for everyone to enter: the control socket may lie in it.

    Whoever may look there is for the files in it to say. OSError where it cannot be made.
    """
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        if not folder.is_dir():
            raise
    else:
        folder.chmod(_MODE)  # whatever the umask


@contextmanager
def owned(folder: Path) -> Iterator[None]:
    """Own the folder for as long as this lasts; the lock goes with the process, however that ends.

    Raises:
        ConfigError: it cannot be written, has no locks, or another daemon owns it.
    """
    try:
        make(folder)
        # What is there is cut: never what a link leads to.
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(folder / LOCK, flags, 0o644)
    except OSError as error:
        raise ConfigError(
            f"{printable(folder)}: cannot be written ({error.strerror}): correct its permissions, "
            "or set service.state to another folder"
        ) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
            raise ConfigError(
                f"{printable(folder)}: the frescod of process {owner or 'unknown'} uses it: stop "
                "that one, or set service.state to another folder"
            ) from None
        except OSError as error:
            raise ConfigError(
                f"{printable(folder)}: files there cannot be locked ({error.strerror}): set "
                "service.state to a folder on a local disk"
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)
