"""What a file is at one moment: by what a change is noticed, and why it may not be taken."""

import hashlib
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple


class FileIdentity(NamedTuple):
    """A file at one moment.

    Attributes:
        size: in bytes.
        mtime_ns: when it was last written to, Unix time in nanoseconds.
        inode: its number on its file system.
        refused: why it is not taken, to be read after its name; empty where it is.
    """

    size: int
    mtime_ns: int
    inode: int
    refused: str = ""


def identify(folder: str, name: str, found: os.stat_result | None = None) -> FileIdentity:
    """The identity of a file in a folder; nothing is opened, because a FIFO would not return.

    ``found``: of the file itself where it is known, links not followed.

    Raises:
        FileNotFoundError: there is no such name.
    """
    path = os.path.join(folder, name)
    try:
        if found is None:
            found = os.lstat(path)
        if stat.S_ISLNK(found.st_mode):
            if not is_beneath(folder, os.path.realpath(path)):
                return FileIdentity(0, 0, found.st_ino, "is a link that leads out of the inbox")
            try:
                found = os.stat(path)
            except OSError:
                return FileIdentity(0, 0, found.st_ino, "is a link that leads to no file")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(error.errno, os.strerror(error.errno or 0), path) from None
    except OSError as error:
        return FileIdentity(0, 0, 0, cannot_be_read(error))
    if not stat.S_ISREG(found.st_mode):
        # Its times and size are not those of a file: a folder's change with what is put into it.
        return FileIdentity(0, 0, found.st_ino, f"is a {_kind(found.st_mode)}, not a file")
    return FileIdentity(found.st_size, found.st_mtime_ns, found.st_ino)


def cannot_be_read(error: OSError) -> str:
    """The reason to refuse a file that the system does not let us read."""
    return f"cannot be read: {error.strerror}"


def seen(files: Iterable[tuple[str, FileIdentity] | None]) -> str:
    """One word for a clip, its prompt file and its settings file: names and identities."""
    text = "\0".join(
        "\0".join(map(str, (os.path.basename(file[0]), *file[1]))) if file else "" for file in files
    )
    return hashlib.blake2b(os.fsencode(text), digest_size=12).hexdigest()


def seen_now(folder: Path, *files: Path | None) -> str:
    """`seen` of a clip, its prompt file and its settings file as they are now.

    Whoever takes a job compares it with the arrival's: where they differ, the files are being
    changed or gone, and the inbox tells of it soon. "" where one of them is not there.
    """
    try:
        return seen(
            None if file is None else (file.name, identify(str(folder), str(file)))
            for file in files
        )
    except FileNotFoundError:
        return ""


def is_beneath(folder: str | Path, real: str) -> bool:
    """Whether a path without any links is that of something beneath a folder."""
    return real.startswith(os.path.realpath(folder).rstrip("/") + "/")


def _kind(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "folder"
    if stat.S_ISFIFO(mode):
        return "FIFO"
    return "socket" if stat.S_ISSOCK(mode) else "device"
