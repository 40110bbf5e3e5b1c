"""The daemon's state folder: made, and owned by one process."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from daemon.printable import printable
from fresco_core.errors import ConfigError

LOCK = "lock"


@contextmanager
def owned(folder: Path) -> Iterator[None]:
    """Own the folder for as long as this lasts; the lock goes with the process, however that ends.

    Raises:
        ConfigError: it cannot be written, has no locks, or another daemon owns it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
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
