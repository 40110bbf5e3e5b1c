"""Putting a clip into the inbox: its settings and its prompt first, the clip last, each whole.

Everything is copied under hidden names, which the daemon leaves alone, written to disk, and then
given its name without replacing anything.
"""

import errno
import json
import os
import shutil
import tempfile
import time
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from daemon.config import Layer, checked, toml_value
from daemon.folder_scan import CLIP_SUFFIXES, PROMPT_SUFFIX, SETTINGS_SUFFIX, Ignored
from daemon.job_settings import PRESET, PRIORITY, job_settings
from daemon.printable import printable
from daemon.settings import Settings
from fresco_core.errors import ClipError, ConfigError, FrescodError
from io_pipeline.control_source import control_name
from io_pipeline.prompt import MAX_BYTES, read_prompt
from io_pipeline.regular_file import open_regular

# The daemon may be another user; the folder says who gets that far.
_MODE = 0o644
_PIECE = 1 << 20
_OPTION = "--set"
_TEMPORARY = ".submit-"
_ABANDONED_SECONDS = 86400.0


class SubmitError(FrescodError):
    """The clip cannot be put into the inbox; nothing of it is there."""


@dataclass(frozen=True)
class Submission:
    """A clip and what goes with it.

    Attributes:
        name: file name in the inbox.
        prompt: text of the prompt file; None where that is in the inbox already.
        values: the clip's own settings, by dotted key.
        presets: names, a later one going before an earlier one.
    """

    clip: Path
    name: str
    prompt: bytes | None
    values: Mapping[str, Any]
    priority: int | None = None
    presets: Sequence[str] = ()

    def check(self, settings: Settings, inside: str | None = None) -> None:
        """Refuse what the daemon would refuse, before anything is copied.

        ``inside``: path of a clip below the inbox that lies there already.

        Raises:
            FrescodError: with what is wrong.
        """
        ignored = Ignored(settings.inbox.ignore)
        if inside and any(folder in ignored for folder in Path(inside).parts[:-1]):
            raise SubmitError(
                f"{printable(inside)}: lies where the inbox looks at nothing: move it"
            )
        _check_name(self.name, ignored)
        with tempfile.TemporaryDirectory() as folder:
            if self.prompt is not None:
                file = Path(folder, Path(self.name).stem + PROMPT_SUFFIX)
                file.write_bytes(self.prompt)
                try:
                    read_prompt(file)
                except ClipError as error:
                    raise SubmitError(str(error).replace(f"{folder}/", "")) from error
                _check_text(file.name, self.prompt.decode("utf-8-sig"))
            if (sidecar := self.sidecar()) is not None:
                file = Path(folder, _OPTION)  # as messages name it
                file.write_bytes(sidecar)
                try:
                    job_settings(settings, file)
                except ClipError as error:
                    raise ConfigError(str(error)) from error

    def sidecar(self) -> bytes | None:
        """The clip's settings file; None where it needs none.

        Raises:
            ConfigError: an unknown key or a bad value.
        """
        values = dict(self.values)
        checked(Layer(_OPTION, values, typed=False))
        lines = [] if self.priority is None else [f"{PRIORITY} = {self.priority}"]
        if self.presets:
            lines.append(f"{PRESET} = {json.dumps(list(self.presets))}")
        for key, value in values.items():
            # What the command line has is text; in the file it has the type of its key.
            lines.append(f"{key} = {json.dumps(toml_value(key, value), ensure_ascii=False)}")
        return "".join(f"{line}\n" for line in lines).encode() if lines else None

    def put(self, inbox: Path) -> str:
        """Put it into the inbox, if it does not lie there; answers its name below the inbox.

        Raises:
            SubmitError: something of that name is there, or it cannot be written.
        """
        inside = below(inbox, self.clip)
        name = inside or self.name
        target = inbox / name
        contents: list[tuple[Path, Callable[[BinaryIO], None]]] = []
        if (sidecar := self.sidecar()) is not None:
            contents.append((target.with_suffix(SETTINGS_SUFFIX), _writer(sidecar)))
        if self.prompt is not None:
            contents.append((target.with_suffix(PROMPT_SUFFIX), _writer(self.prompt)))
        if inside is None:
            contents.append((target, self._copy))
        try:
            _put_all(contents)
        except FileExistsError as error:
            remedy = "choose another name with --name" if inside is None else "change that one"
            raise SubmitError(f"{printable(error.filename)}: is there already: {remedy}") from None
        except OSError as error:
            raise SubmitError(
                f"{printable(target)}: cannot be written ({error.strerror}): free some space or "
                "correct the permissions of the inbox"
            ) from error
        return name

    def _copy(self, file: BinaryIO) -> None:
        with open_clip(self.clip) as source:
            shutil.copyfileobj(source, file, _PIECE)


def below(inbox: Path, clip: Path) -> str | None:
    """Path of a clip below the inbox; None where it lies elsewhere."""
    try:
        folder = clip.parent.resolve().relative_to(inbox.resolve())
    except ValueError:
        return None
    return str(folder / clip.name)


def read_text(file: Path) -> bytes:
    """The content of a prompt file, as far as one may go.

    Raises:
        SubmitError: it is no file, or cannot be read.
    """
    with open_clip(file) as content:
        return content.read(MAX_BYTES + 1)


def open_clip(clip: Path) -> BinaryIO:
    """Open a clip to be copied.

    Raises:
        SubmitError: it is no file, or cannot be read.
    """
    try:
        return open_regular(clip)
    except OSError as error:
        raise SubmitError(f"{printable(clip)}: cannot be read: {error.strerror}") from error


def _check_name(name: str, ignored: Ignored) -> None:
    shown = printable(name)
    if Path(name).suffix.lower() not in CLIP_SUFFIXES:
        suffixes = " ".join(sorted(CLIP_SUFFIXES))
        raise SubmitError(f"{shown}: is no clip: its name has to end in one of {suffixes}")
    if control_name(name):
        raise SubmitError(
            f"{shown}: has by its name the control maps of a clip: give another name with --name"
        )
    if name != os.path.basename(name):
        raise SubmitError(f"{shown}: is a path: give a file name with --name")
    if name.startswith("."):
        raise SubmitError(f"{shown}: hidden files are left alone: give another name with --name")
    stem = Path(name).stem
    for file in (name, stem + PROMPT_SUFFIX, stem + SETTINGS_SUFFIX):
        if file in ignored:
            raise SubmitError(
                f"{printable(file)}: is left alone by inbox.ignore: give another name with --name"
            )
    _check_text("the clip's name", name, allowed="")


def _check_text(what: str, text: str, allowed: str = "\t\r\n") -> None:
    for character in text:
        if unicodedata.category(character) == "Cc" and character not in allowed:
            raise SubmitError(
                f"{printable(what)}: contains the control character {printable(character)}: "
                "take it out" + ("" if allowed else ", or give another name with --name")
            )


def _writer(content: bytes) -> Callable[[BinaryIO], None]:
    def write(file: BinaryIO) -> None:
        file.write(content)

    return write


def _put_all(contents: Sequence[tuple[Path, Callable[[BinaryIO], None]]]) -> None:
    """All of it, in order, or nothing."""
    for target, _ in contents:
        if os.path.lexists(target):  # before an hour of copying
            raise FileExistsError(errno.EEXIST, "", str(target))
    for folder in {target.parent for target, _ in contents}:
        _tidy(folder)
    with ExitStack() as temporaries, ExitStack() as placed:
        copies = []
        for target, write in contents:
            descriptor, name = tempfile.mkstemp(prefix=_TEMPORARY, dir=target.parent)
            temporaries.callback(_remove, name)
            with os.fdopen(descriptor, "wb") as file:
                write(file)
                os.fchmod(descriptor, _MODE)
                file.flush()
                os.fsync(descriptor)
            copies.append((name, target))
        for name, target in copies:
            _name(name, target)
            placed.callback(_remove, target)
        placed.pop_all()
    for folder in {target.parent for target, _ in contents}:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _tidy(folder: Path) -> None:
    """Remove what this user's submissions have left that were killed.

    One that is still being copied was written to just now, by the clock that files have.
    """
    old = time.time() - _ABANDONED_SECONDS
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(_TEMPORARY):
                with suppress(OSError):  # gone already, or not to be removed
                    status = entry.stat(follow_symlinks=False)
                    if status.st_uid == os.geteuid() and status.st_mtime < old:
                        os.unlink(entry.path)


def _name(temporary: str, target: Path) -> None:
    """Give a file its name; FileExistsError where something has it."""
    try:
        os.link(temporary, target)
    except FileExistsError:
        raise FileExistsError(errno.EEXIST, "", str(target)) from None
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
            raise
        # A file system without links: the name is taken by an empty file first.
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _MODE))
        try:
            os.rename(temporary, target)
        except OSError:
            _remove(target)
            raise


def _remove(path: str | Path) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)
