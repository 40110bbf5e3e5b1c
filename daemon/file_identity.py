"""What a file is at one moment: by what a change is noticed, and why it may not be taken."""

import errno
import hashlib
import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from daemon.printable import printable
from io_pipeline.control_source import control_name

MANY = 100_000  # files in a folder, at most


class FileIdentity(NamedTuple):
    """A file, or a folder of pictures, at one moment.

    Attributes:
        size: in bytes; of a folder those of its files.
        mtime_ns: when it was last written to, Unix time in nanoseconds; of a folder its newest
            file.
        inode: its number on its file system.
        refused: why it is not taken, to be read after its name; empty where it is.
        within: of a folder one word for its files' names, sizes, times and inodes; else empty.
    """

    size: int
    mtime_ns: int
    inode: int
    refused: str = ""
    within: str = ""


def identify(folder: str, name: str, found: os.stat_result | None = None) -> FileIdentity:
    """The identity of a file in a folder; nothing is opened, because a FIFO would not return.

    Where the name is that of a folder of control maps it is a folder's; one that is none counts as
    absent. ``found``: of the file itself where it is known, links not followed.

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
    if control_name(os.path.basename(name), folder=True):
        if not stat.S_ISDIR(found.st_mode):
            raise FileNotFoundError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        return folder_identity(path, found.st_ino)
    if not stat.S_ISREG(found.st_mode):
        # Its times and size are not those of a file: a folder's change with what is put into it.
        return FileIdentity(0, 0, found.st_ino, f"is a {_kind(found.st_mode)}, not a file")
    return FileIdentity(found.st_size, found.st_mtime_ns, found.st_ino)


def folder_identity(folder: str | int, inode: int) -> FileIdentity:
    """The identity of a folder of pictures, by its path or a descriptor; hidden files are left out.

    Nothing but files may be in it: a link could be exchanged for another one at any time.
    """
    files: list[tuple[str, os.stat_result]] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                with suppress(FileNotFoundError):  # gone in between
                    files.append((entry.name, entry.stat(follow_symlinks=False)))
                if len(files) > MANY:
                    return FileIdentity(0, 0, inode, f"has more than {MANY} files")
    except OSError as error:
        return FileIdentity(0, 0, inode, cannot_be_read(error))
    digest = hashlib.blake2b(digest_size=12)
    for name, found in sorted(files):
        if not stat.S_ISREG(found.st_mode):
            kind = _kind(found.st_mode)
            return FileIdentity(0, 0, inode, f"has {printable(name)}, a {kind}, in it")
        word = "\0".join(map(str, (name, found.st_size, found.st_mtime_ns, found.st_ino, "")))
        digest.update(os.fsencode(word))
    return FileIdentity(
        sum(found.st_size for _, found in files),
        max((found.st_mtime_ns for _, found in files), default=0),
        inode,
        within=digest.hexdigest(),
    )


def cannot_be_read(error: OSError) -> str:
    """The reason to refuse a file that the system does not let us read."""
    return f"cannot be read: {error.strerror}"


def seen(files: Iterable[tuple[str, FileIdentity] | None]) -> str:
    """One word for a clip, its prompt, settings and control files: names and identities."""
    text = "\0".join("\0".join(_words(*file)) if file else "" for file in files)
    return hashlib.blake2b(os.fsencode(text), digest_size=12).hexdigest()


def _words(name: str, identity: FileIdentity) -> list[str]:
    # A file's are those of the first version, so that what its store has seen stays seen.
    of_folder = [identity.within] if identity.within else []
    return [os.path.basename(name), *map(str, identity[:4]), *of_folder]


def seen_now(folder: Path, *files: Path | None) -> str:
    """`seen` of a job's files as they are now: the clip, its prompt, settings and control files.

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
    if stat.S_ISLNK(mode):
        return "link"
    return "socket" if stat.S_ISSOCK(mode) else "device"
