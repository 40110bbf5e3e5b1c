"""What a result was made from, as hashes: what is done is known by them."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from daemon.folder_scan import is_hidden
from daemon.job_files import JobFiles
from daemon.jobs import Job
from daemon.printable import printable
from daemon.settings import Settings
from fresco_core.errors import ClipError
from io_pipeline.control_source import ControlFile
from io_pipeline.regular_file import open_regular


@dataclass(frozen=True)
class Fingerprints:
    """SHA-256 (hex) of all that decides what a result looks like.

    ``control``: of the control files beside the clip; empty where there are none.
    """

    clip: str
    prompt: str
    settings: str
    control: str = ""

    def to_json(self) -> dict[str, str]:
        """Those that there are: results of before there were control files are still known."""
        return {name: value for name, value in asdict(self).items() if value}


def fingerprints(files: Job | JobFiles, settings: Settings) -> Fingerprints:
    """Read the clip, its prompt and its control files once, in pieces.

    Raises:
        ClipError: a file cannot be read.
    """
    return Fingerprints(
        _sha256(files.clip),
        _sha256(files.prompt_file),
        settings.fingerprint(),
        _of_controls(files.control_files),
    )


def _of_controls(files: Sequence[ControlFile]) -> str:
    """Of a folder names count too: they say which frame a picture is for."""
    if not files:
        return ""
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.kind}\0".encode())
        if not file.path.is_dir():
            digest.update(f"{_sha256(file.path)}\0".encode())
            continue
        try:
            names = sorted(os.listdir(file.path))
        except OSError as error:
            raise ClipError(f"{printable(file.path)}: cannot be read: {error.strerror}") from error
        for name in names:
            if not is_hidden(name):
                content = _sha256(file.path / name, follow=False)
                digest.update(os.fsencode(name) + f"\0{content}\0".encode())
    return digest.hexdigest()


def _sha256(path: Path, *, follow: bool = True) -> str:
    try:
        with open_regular(path, follow=follow) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ClipError(f"{printable(path)}: cannot be read: {error.strerror}") from error


def is_done(folder: Path, prints: Fingerprints) -> bool:
    """Whether the result folder was made from the same clip, prompt and settings.

    A folder appears under its name only when complete, so its manifest speaks for all of it.
    """
    from io_pipeline.publish import read_manifest  # imports the decoder

    manifest = read_manifest(folder) or {}
    return bool(manifest.get("fingerprints") == prints.to_json())
