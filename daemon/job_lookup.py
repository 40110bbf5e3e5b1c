"""Which job a user means: by its number, or by its clip's name."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from daemon.printable import printable
from fresco_core.errors import FrescodError

# As `printable` makes them.
_ESCAPE = re.compile(r"\\([tnr]|x[0-9a-f]{2}|u[0-9a-f]{4}|U00(?:0[0-9a-f]|10)[0-9a-f]{4})")


class LookupFailed(FrescodError):
    """No job is meant, or one of several."""


class Jobs(Protocol):
    """Where jobs are known, as JSON."""

    def job(self, number: int) -> dict[str, Any]:
        """One job; FrescodError where there is none."""

    def called(self, name: str) -> Sequence[Mapping[str, Any]]:
        """All jobs that a name may mean, the newest first."""


def spellings(name: str) -> tuple[str, ...]:
    """The names that a user may mean: ``name``, and what may have been printed like that."""

    def unescaped(match: re.Match[str]) -> str:
        text = match[0]
        character = text.encode().decode("unicode_escape")
        return character if printable(character) == text else text

    return tuple(dict.fromkeys([name, _ESCAPE.sub(unescaped, name)]))


def find_job(
    jobs: Jobs, name: str, tell: Callable[[str], object] = lambda text: None
) -> dict[str, Any]:
    """The job of a number, a clip's name or a clip's stem; a number goes first.

    Of several jobs of one clip it is the newest; ``tell`` gets a line on the others.

    Raises:
        LookupFailed: none is meant, or one of several clips'.
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
    newest: dict[str, Mapping[str, Any]] = {}
    for job in found:
        newest.setdefault(job["clip"], job)
    if len(newest) > 1:
        numbers = _numbers([*newest.values()])
        raise LookupFailed(
            f"{printable(name)}: may be any of the jobs {numbers}: give the number of one"
        )
    if len(found) > 1:
        tell(f"the newest job of this clip; before it: {_numbers(found[1:])}")
    return dict(found[0])


def _numbers(jobs: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(str(job["id"]) for job in jobs[:10]) + ", …" * (len(jobs) > 10)
