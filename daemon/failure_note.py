"""``<output>/<name>.failed.txt``: why a clip has no result, for whoever looks for one."""

import hashlib
from contextlib import suppress
from pathlib import Path

from daemon.jobs import Outcome
from daemon.printable import printable
from fresco_core.errors import FrescodError
from io_pipeline.writing import appearing

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

    Never raises: the reason is in the job store and the log as well.
    """
    path = note_path(folder)
    with suppress(FrescodError, OSError):
        if path.is_symlink() or (path.exists() and not _is_ours(path)):
            return
        if outcome is Outcome.FAILED:
            path.parent.mkdir(parents=True, exist_ok=True)
            with appearing(path) as file:
                file.write_text(f"{FIRST_WORD}{printable(reason)}\n", encoding="utf-8")
        else:
            path.unlink(missing_ok=True)


def _is_ours(path: Path) -> bool:
    return path.is_file() and path.read_bytes().startswith(FIRST_WORD.encode())
