"""Opening a file to read from it."""

from pathlib import Path
from typing import Any

import av

# Titles and other tags that are not UTF-8 must not keep a clip from being read. From version 19 on
# they cannot, and the argument is gone.
_OPTIONS = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}


def open_container(path: Path, options: dict[str, str] | None = None) -> Any:
    """The container of a clip. Raises av.error.FFmpegError, OSError or ValueError."""
    return av.open(str(path.absolute()), options=options or {}, **_OPTIONS)
