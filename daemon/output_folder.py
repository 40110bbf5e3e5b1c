"""The folder that results go to: made, tried and kept from other runs."""

import errno
import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from daemon.printable import printable
from fresco_core.errors import ConfigError, FrescodError

# How file systems say that they have no locks (network shares above all): then there is none.
_NO_LOCKS = frozenset([errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL])


class BusyError(FrescodError):
    """Another run writes to the same folder."""

    exit_code = 75


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Make the folder if need be, and keep other runs out of it while this one lasts.

    The lock is on the folder itself and goes with the process, however that ends.

    Raises:
        ConfigError: nothing can be written there.
        BusyError: another run holds it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise ConfigError(
            f"{printable(folder)}: cannot be written ({error.strerror}): "
            "correct its permissions or choose another output folder"
        ) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(
                f"{printable(folder)}: another frescod writes there: "
                "wait for it or choose another output folder"
            ) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
        yield
    finally:
        os.close(descriptor)
