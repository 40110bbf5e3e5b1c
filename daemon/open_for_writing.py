"""Whether somebody has a file, or one in a folder, open for writing."""

import fcntl
import os
import signal
from contextlib import suppress


def any_open_for_writing(folder: str) -> bool | None:
    """As `open_for_writing`, of the files in a folder that are not hidden: True where one is.

    Raises:
        OSError: one cannot be read.
    """
    answers = set()
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.name.startswith("."):
                with suppress(FileNotFoundError):  # gone in between: another folder than before
                    answers.add(open_for_writing(entry.path))
            if True in answers:
                return True
    return None if None in answers else False


def open_for_writing(path: str) -> bool | None:
    """Whether any process has a regular file open for writing; None: the kernel does not tell.

    It tells of files that belong to this process's user, or all of them to one with CAP_LEASE, on
    local file systems.

    Raises:
        OSError: the file cannot be read.
    """
    try:
        # Without O_NONBLOCK this would wait for whoever holds a lease, such as a file server.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except BlockingIOError:
        return True
    try:
        # Whoever opens the file while it is leased makes the kernel send a signal. SIGIO, the
        # usual one, would end the process; SIGURG is ignored.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except BlockingIOError:
        return True
    except OSError:  # somebody else's file, or a file system without leases
        return None
    finally:
        os.close(descriptor)
    return False
