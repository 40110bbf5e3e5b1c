"""``<output>/<name>.failed.txt``: why a clip has no result, for whoever looks for one."""

import hashlib
from pathlib import Path

from daemon.jobs import Outcome
from daemon.printable import printable
from fresco_core.errors import FrescodError
from io_pipeline.writing import DiskFullError, appearing, writing

SUFFIX = ".failed.txt"
FIRST_WORD = "failed: "
_LONGEST = 200  # bytes of its name, which is longer while it is being written


def note_path(folder: Path) -> Path:
    """The note of what would have been the result ``folder``."""
    name = folder.name + SUFFIX
    if len(name.encode(errors="surrogateescape")) > _LONGEST:
        digest = hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()
        name = digest[:32] + SUFFIX
    return folder.with_name(name)


def settle(folder: Path, outcome: Outcome, reason: str) -> None:
    """Leave a note for a failed clip, remove that of any other. A user's own file stays.

    Where it cannot be written at all, the reason is in the job store and the log as well.

    Raises:
        DiskFullError: there is no space for it, and there may be some later.
    """
    path = note_path(folder)
    try:
        if path.is_symlink() or (path.exists() and not _is_ours(path)):
            return
        if outcome is Outcome.FAILED:
            _write(path, f"{FIRST_WORD}{printable(reason)}\n")
        else:
            path.unlink(missing_ok=True)
    except DiskFullError:
        raise
    except (FrescodError, OSError):
        pass


def _write(path: Path, text: str) -> None:
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with appearing(path) as file:
        file.write_text(text, encoding="utf-8")


def _is_ours(path: Path) -> bool:
    return path.is_file() and path.read_bytes().startswith(FIRST_WORD.encode())
