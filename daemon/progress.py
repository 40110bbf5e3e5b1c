"""What a user sees of a run: bars on a terminal, log lines elsewhere, a summary at the end."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, Self

import structlog
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars

from daemon.jobs import Job, JobResult, Outcome, printable


class Progress(Protocol):
    """Watches a run."""

    def begin(self, job: Job, number: int, count: int) -> None:
        """A clip is taken: the ``number``-th of ``count``."""

    def stage(self, name: str, done: float, total: int | None, seconds: float) -> None:
        """The current clip's stage has got so far, in so much time of its own.

        In frames, or, when translating, in batches. ``total`` is None while it is not known.
        """

    def end(self, result: JobResult) -> None:
        """The current clip is finished, or has failed."""

    def note(self, text: str) -> None:
        """What is going on outside of any clip."""

    def warn(self, text: str) -> None:
        """Something the user should know."""

    def trace(self, text: str) -> None:
        """An error's traceback, for whoever looks for its cause."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...


def watch() -> Progress:
    """Bars when standard error is a terminal, else log lines."""
    return BarProgress() if sys.stderr.isatty() else LogProgress()


class LogProgress:
    """One log line for every stage of every clip, on standard error."""

    def __init__(self) -> None:
        self._log: Any = structlog.wrap_logger(
            structlog.PrintLogger(sys.stderr),
            processors=[
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"]),
            ],
        )
        self._clip = ""

    def begin(self, job: Job, number: int, count: int) -> None:
        self._clip = printable(job.clip.name)
        self._log.info("begin", clip=self._clip, number=number, count=count)

    def stage(self, name: str, done: float, total: int | None, seconds: float) -> None:
        if total is not None and done >= total:
            self._log.info(name, clip=self._clip, count=total, seconds=round(seconds, 1))

    def end(self, result: JobResult) -> None:
        if result.outcome is Outcome.FAILED:
            self._log.error("failed", clip=self._clip, reason=printable(result.reason))
        else:
            self._log.info(str(result.outcome), clip=self._clip, seconds=round(result.seconds, 1))

    def note(self, text: str) -> None:
        self._log.info(text)

    def warn(self, text: str) -> None:
        self._log.warning("warning", text=printable(text))

    def trace(self, text: str) -> None:
        print(text, file=sys.stderr)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass


class BarProgress:
    """A bar for every stage of the current clip, with the time left; finished clips above."""

    def __init__(self, console: Console | None = None) -> None:
        self._bars = Bars(
            TextColumn("  {task.description:<10}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console or Console(stderr=True),
            transient=True,
        )
        self._stages: dict[str, TaskID] = {}
        self._title = ""

    def begin(self, job: Job, number: int, count: int) -> None:
        self._title = f"[{number}/{count}] {printable(job.clip.name)}"
        self._print(self._title)

    def stage(self, name: str, done: float, total: int | None, seconds: float) -> None:
        if name not in self._stages:
            self._stages[name] = self._bars.add_task(name, total=total)
        self._bars.update(self._stages[name], completed=done, total=total)

    def end(self, result: JobResult) -> None:
        for stage in self._stages.values():
            self._bars.remove_task(stage)
        self._stages.clear()
        self._bars.refresh()
        if result.outcome is Outcome.FAILED:
            self._print(f"{self._title}: failed: {printable(result.reason)}")
        elif result.outcome is Outcome.DONE:
            self._print(f"{self._title}: done in {duration(result.seconds)}")
        else:
            self._print(f"{self._title}: {result.outcome}")

    def note(self, text: str) -> None:
        self._print(text)

    def warn(self, text: str) -> None:
        self._print(f"warning: {printable(text)}")

    def trace(self, text: str) -> None:
        self._print(text)

    def _print(self, text: str) -> None:
        self._bars.console.print(text, markup=False, highlight=False, emoji=False, soft_wrap=True)

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bars.stop()


def summary(results: Sequence[JobResult], seconds: float, output: Path) -> str:
    """The closing lines: how many clips ended how, and why those without a result have none."""
    count = {outcome: 0 for outcome in Outcome}
    for result in results:
        count[result.outcome] += 1
    parts = [f"{count[Outcome.DONE]} done"]
    if count[Outcome.ALREADY_DONE]:
        parts.append(f"{count[Outcome.ALREADY_DONE]} skipped, already done")
    if count[Outcome.NO_PROMPT]:
        parts.append(f"{count[Outcome.NO_PROMPT]} skipped, no prompt")
    if count[Outcome.FAILED]:
        parts.append(f"{count[Outcome.FAILED]} failed")
    lines = [f"{'; '.join(parts)} in {duration(seconds)}"]
    for result in results:
        if result.outcome is Outcome.FAILED:
            lines.append(f"  failed: {printable(result.clip.name)}: {printable(result.reason)}")
        elif result.outcome is Outcome.NO_PROMPT:
            lines.append(f"  no prompt: {printable(result.clip.name)}: {printable(result.reason)}")
    if count[Outcome.DONE] or count[Outcome.ALREADY_DONE]:
        lines.append(f"results in {printable(output)}")
    return "\n".join(lines)


def duration(seconds: float) -> str:
    """Time for people: ``4.2 s``, ``3 min 5 s``, ``2 h 0 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
