"""What a result was made from, as hashes: what is done is known by them."""

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path

from daemon.job_files import JobFiles
from daemon.jobs import Job
from daemon.printable import printable
from daemon.settings import Settings
from fresco_core.errors import ClipError
from io_pipeline.regular_file import open_regular


@dataclass(frozen=True)
class Fingerprints:
    """SHA-256 (hex) of all that decides what a result looks like."""

    clip: str
    prompt: str
    settings: str


def fingerprints(files: Job | JobFiles, settings: Settings) -> Fingerprints:
    """Read the clip and its prompt once, in pieces.

    Raises:
        ClipError: a file cannot be read.
    """
    return Fingerprints(_sha256(files.clip), _sha256(files.prompt_file), settings.fingerprint())


def _sha256(path: Path) -> str:
    try:
        with open_regular(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ClipError(f"{printable(path)}: cannot be read: {error.strerror}") from error


def is_done(folder: Path, prints: Fingerprints) -> bool:
    """Whether the result folder was made from the same clip, prompt and settings.

    A folder appears under its name only when complete, so its manifest speaks for all of it.
    """
    from io_pipeline.publish import read_manifest  # imports the decoder

    manifest = read_manifest(folder) or {}
    return bool(manifest.get("fingerprints") == asdict(prints))
