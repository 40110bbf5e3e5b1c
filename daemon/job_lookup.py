"""Which job a user means: by its number, or by its clip's name."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from daemon.printable import printable
from fresco_core.errors import FrescodError


class LookupFailed(FrescodError):
    """No job is meant, or one of several."""


class Jobs(Protocol):
    """Where jobs are known, as JSON."""

    def job(self, number: int) -> dict[str, Any]:
        """One job; FrescodError where there is none."""

    def called(self, name: str) -> Sequence[Mapping[str, Any]]:
        """All jobs that a name may mean, the newest first."""


def is_called(clip: str | os.PathLike[str], name: str) -> bool:
    """Whether a user may mean this clip by ``name``: its path, file name or stem."""
    path = Path(clip)
    return printable(name) in (printable(path), printable(path.name), printable(path.stem))


def find_job(jobs: Jobs, name: str) -> dict[str, Any]:
    """The job of a number, a clip's name or a clip's stem; a number goes first.

    Raises:
        LookupFailed: none is meant, or one of several.
    """
    number = int(name) if name.isascii() and name.isdigit() and len(name) <= 18 else None
    if number is not None:
        try:
            return jobs.job(number)
        except FrescodError as error:
            if error.exit_code != FrescodError.exit_code:  # the daemon is gone
                raise
    found = jobs.called(name)
    if not found:
        raise LookupFailed(
            f"{printable(name)}: no such job and no clip of that name: `frescod jobs` lists them"
        )
    if len(found) > 1:
        numbers = ", ".join(str(job["id"]) for job in found[:10]) + ", …" * (len(found) > 10)
        raise LookupFailed(
            f"{printable(name)}: may be any of the jobs {numbers}: give the number of one"
        )
    return dict(found[0])
