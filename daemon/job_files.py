"""A job's files: by their names, or held open, whatever becomes of their names meanwhile."""

import os
import re
import stat
import weakref
from pathlib import Path

from daemon.file_identity import FileIdentity, folder_identity, is_beneath, seen
from daemon.jobs import Job
from daemon.printable import printable
from fresco_core.errors import ClipError
from io_pipeline.control_source import ControlFile, control_name
from io_pipeline.regular_file import regular_descriptor

_HELD = re.compile(r"/proc/\d+/fd/\d+")


class JobFiles:
    """Where the files of a job are to be opened.

    With ``folder`` they are opened beneath it once and held until `close`; then they are read
    through this process's descriptors, by it and by its workers, which run as the same user. What
    takes their names' places is never read. Of a folder of control maps the folder is held: what is
    in it is to be opened without following links.

    Attributes:
        clip, prompt_file, settings_file, control_files: as of the job, or what stands for those
            that are held.
        seen: as `daemon.file_identity.seen`, of what is held.

    Raises:
        ClipError: one cannot be read, or leads out of the folder.
    """

    def __init__(self, job: Job, folder: Path | None = None) -> None:
        self.clip, self.prompt_file, self.settings_file = (
            job.clip,
            job.prompt_file,
            job.settings_file,
        )
        self.control_files = job.control_files
        self.seen = ""
        self._names: dict[str, str] = {}
        self._descriptors: list[int] = []
        # Whoever had it made in a thread may be gone when it is there.
        self._close = weakref.finalize(self, _close, self._descriptors)
        if folder is not None:
            try:
                self._hold(folder)
            except BaseException:
                self.close()
                raise

    def named(self, text: str) -> str:
        """A text with the files' own names in place of what stands for them."""
        return _HELD.sub(lambda found: self._names.get(found[0], found[0]), text)

    def close(self) -> None:
        """Let go of what is held; may be called again."""
        self._close()

    def _hold(self, folder: Path) -> None:
        controls = [file.path for file in self.control_files]
        files = self.clip, self.prompt_file, self.settings_file, *controls
        self.clip = self._held(folder, self.clip)
        self.prompt_file = self._held(folder, self.prompt_file)
        if self.settings_file is not None:
            self.settings_file = self._held(folder, self.settings_file)
        self.control_files = tuple(
            ControlFile(file.kind, self._held(folder, file.path)) for file in self.control_files
        )
        held = iter(self._descriptors)
        self.seen = seen(
            None if file is None else (file.name, _identity(next(held))) for file in files
        )

    def _held(self, folder: Path, file: Path) -> Path:
        try:
            descriptor = open_beneath(folder, file)
        except OSError as error:
            raise ClipError(f"{printable(file)}: cannot be read: {error.strerror}") from error
        self._descriptors.append(descriptor)
        path = Path(f"/proc/{os.getpid()}/fd/{descriptor}")
        self._names[str(path)] = printable(file)
        return path


def open_beneath(folder: Path, path: Path) -> int:
    """A descriptor of a regular file beneath a folder; links are followed that stay there.

    Of a folder of control maps it is that folder's.

    Raises:
        ClipError: it leads out of the folder.
        OSError: it cannot be opened, or its name came to mean something else in this moment.
    """
    top, real = (os.path.realpath(each, strict=True) for each in (folder, path))
    if not is_beneath(top, real):
        raise ClipError(f"{printable(path)}: leads out of the inbox")
    *folders, name = os.path.relpath(real, top).split("/")
    flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    at = os.open(top, flags)
    try:
        for each in folders:
            above, at = at, os.open(each, flags, dir_fd=at)
            os.close(above)
        if control_name(path.name, folder=True):
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            return os.open(name, flags, dir_fd=at)
        return regular_descriptor(name, follow=False, folder=at)
    finally:
        os.close(at)


def _identity(descriptor: int) -> FileIdentity:
    found = os.fstat(descriptor)
    if stat.S_ISDIR(found.st_mode):
        return folder_identity(descriptor, found.st_ino)
    return FileIdentity(found.st_size, found.st_mtime_ns, found.st_ino)


def _close(descriptors: list[int]) -> None:
    while descriptors:
        os.close(descriptors.pop())
