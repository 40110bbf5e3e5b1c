"""Jobs: one clip, its prompt and the settings; what became of it."""

import hashlib
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from daemon.settings import Settings
from fresco_core.errors import ClipError


@dataclass(frozen=True)
class Job:
    """A clip, its prompt file and the name of its result folder."""

    clip: Path
    prompt_file: Path
    name: str


class Outcome(StrEnum):
    """How a clip ended."""

    DONE = "done"
    ALREADY_DONE = "already done"
    NO_PROMPT = "no prompt"
    FAILED = "failed"


@dataclass(frozen=True)
class JobResult:
    """How one clip ended: ``reason`` is set for a failed one, ``folder`` for a finished one."""

    clip: Path
    outcome: Outcome
    seconds: float = 0.0
    reason: str = ""
    folder: Path | None = None


@dataclass(frozen=True)
class Fingerprints:
    """SHA-256 (hex) of all that decides what a result looks like."""

    clip: str
    prompt: str
    settings: str


def fingerprints(job: Job, settings: Settings) -> Fingerprints:
    """Read the clip and its prompt once, in pieces.

    Raises:
        ClipError: a file cannot be read.
    """
    return Fingerprints(_sha256(job.clip), _sha256(job.prompt_file), settings.fingerprint())


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
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


def printable(name: str | Path) -> str:
    """A file name for terminal and log: one line, whatever bytes it is made of."""
    return "".join(
        character
        if character.isprintable()
        else character.encode("unicode_escape", "surrogatepass").decode()
        for character in str(name)
    )
