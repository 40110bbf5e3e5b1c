"""``frescod doctor``: looks the machine over, and says what to do about what it finds."""

import json
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum

import click

from daemon.printable import printable
from daemon.settings import Settings

_COLOURS = {"ok": "green", "warning": "yellow", "problem": "red"}


class Verdict(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True)
class Finding:
    """One line: what was looked at, how it is, and what to do where it is not well."""

    check: str
    verdict: Verdict
    text: str
    remedy: str = ""


@dataclass(frozen=True)
class Check:
    """Something to look at, and how many seconds that may take."""

    name: str
    look: Callable[[Settings], Iterable[Finding]]
    seconds: float = 10


def doctor(
    settings: Settings,
    checks: Sequence[Check],
    as_json: bool = False,
    reword: Callable[[str], str] = lambda text: text,
) -> int:
    """Print what the checks find, reworded; returns the exit code: 1 where there is a problem."""
    found = []
    for finding in examine(settings, checks):
        finding = replace(finding, text=reword(finding.text))
        found.append(finding)
        if not as_json:
            line = f"{finding.check:<10} {finding.text}"
            line += f": {finding.remedy}" if finding.remedy else ""
            word = click.style(f"{finding.verdict:<8}", fg=_COLOURS[finding.verdict])
            click.echo(f"{word} {printable(line)}")
    if as_json:
        about = [asdict(each) | {"text": printable(each.text)} for each in found]
        click.echo(json.dumps({"findings": about}, indent=2))
    return int(any(finding.verdict is Verdict.PROBLEM for finding in found))


def examine(settings: Settings, checks: Sequence[Check]) -> Iterator[Finding]:
    """What the checks find, in their order; they are made at the same time, and none is waited for
    longer than it may take."""
    for check, look in [(check, _Look(check, settings)) for check in checks]:
        look.join(check.seconds)
        if look.is_alive():
            yield Finding(
                check.name,
                Verdict.PROBLEM,
                f"no answer in {check.seconds:g} s",
                "a file system or a driver hangs; see the kernel's log (dmesg)",
            )
        else:
            yield from look.found


class _Look(threading.Thread):
    """A check under way: in a thread of its own, which a hanging system call may keep for ever."""

    def __init__(self, check: Check, settings: Settings) -> None:
        super().__init__(daemon=True)
        self.found: list[Finding] = []
        self._check = check
        self._settings = settings
        self.start()

    def run(self) -> None:
        try:
            self.found += self._check.look(self._settings)
        except Exception as error:  # a check that fails says so in its line, and ends no other
            text = f"could not be checked ({type(error).__name__}: {error})"
            self.found.append(Finding(self._check.name, Verdict.PROBLEM, text))
