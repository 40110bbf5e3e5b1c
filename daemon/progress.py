"""What a user sees of a run: a line a clip on a terminal, else log lines; a summary at the end.

Several clips are in work at once, each in several stages.
"""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from daemon.actions import Action
from daemon.jobs import Job, JobResult, Outcome
from daemon.logs import configure, log
from daemon.printable import printable

# Clips that are shown at a time; the others are counted.
MAX_LINES = 12
_BAR = 12
_ENDS = {
    Outcome.DONE: Action.JOB_DONE,
    Outcome.ALREADY_DONE: Action.JOB_SKIPPED,
    Outcome.NO_PROMPT: Action.JOB_SKIPPED,
    Outcome.FAILED: Action.JOB_FAILED,
    Outcome.QUEUED: Action.JOB_REQUEUED,
    Outcome.CANCELLED: Action.JOB_CANCELLED,
}


class Progress(Protocol):
    """Watches a run."""

    def begin(self, job: Job, number: int, count: int) -> None:
        """A clip is taken: the ``number``-th of ``count``."""

    def stage(self, job: Job, name: str, done: float, total: int | None, seconds: float) -> None:
        """A stage of a clip in work has got so far, in so much time of its own.

        In frames, or, when translating, in windows; "propagate" counts the frames that are
        finished. ``total`` is None while it is not known.
        """

    def end(self, job: Job, result: JobResult) -> None:
        """A clip is finished, or has failed."""

    def note(self, text: str) -> None:
        """What is going on outside of any clip."""

    def warn(self, text: str, action: Action = Action.WARNING) -> None:
        """Something the user should know."""

    def trace(self, text: str) -> None:
        """An error's traceback, for whoever looks for its cause."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...


def watch(format: str = "auto", level: str = "info") -> Progress:
    """Lines that move when standard error is a terminal, else log records; the log set up for it.

    ``format`` and ``level`` are those of `logs.configure`. Beside lines that move there is only
    what they do not show: warnings, and what is worse.
    """
    if format != "auto" or not sys.stderr.isatty():
        configure(format, level)
        return LogProgress()
    configure("text", level if level == "error" else "warning")
    return BarProgress()


class LogProgress:
    """A log record for every stage that a clip has finished; the log is set up by others."""

    def __init__(self) -> None:
        self._finished: dict[Job, set[str]] = {}

    def begin(self, job: Job, number: int, count: int) -> None:
        self._finished[job] = set()
        place = {"number": number, "count": count} if count else {}
        self._clip(job).info("begun", action=Action.JOB_BEGUN, **place)

    def stage(self, job: Job, name: str, done: float, total: int | None, seconds: float) -> None:
        finished = self._finished.get(job)
        if finished is None or total is None or done < total or name in finished:
            return
        finished.add(name)
        self._clip(job).info(
            f"{name} done",
            action=Action.STAGE_DONE,
            stage=name,
            count=total,
            seconds=round(seconds, 1),
        )

    def end(self, job: Job, result: JobResult) -> None:
        self._finished.pop(job, None)
        action = _ENDS[result.outcome]
        clip = self._clip(job).bind(action=action, seconds=round(result.seconds, 1))
        if result.reason:
            clip = clip.bind(reason=result.reason)
        if action is Action.JOB_FAILED:
            clip.error("failed")
        else:
            clip.info(str(result.outcome))

    def note(self, text: str) -> None:
        log.info(text, action=Action.NOTE)

    def warn(self, text: str, action: Action = Action.WARNING) -> None:
        log.warning(text, action=action)

    def trace(self, text: str) -> None:
        log.warning("details", action=Action.TRACE, stack=text)

    def _clip(self, job: Job) -> Any:
        known = {"job": job.id} if job.id else {}
        return log.bind(clip=job.clip.name, **known)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass


@dataclass(eq=False)
class ClipProgress:
    """How far a clip in work is: every stage's (done, total)."""

    title: str
    stages: dict[str, tuple[float, int | None]] = field(default_factory=dict)
    # When its translation began, and how much had been done by an earlier run.
    begun: tuple[float, float] | None = None

    def state(self) -> str:
        """What is being done."""
        if not self.stages:
            return "waiting"
        if "translate" not in self.stages:
            return "prepare" if self.stages.get("prepare", (0, None))[1] is None else "prepared"
        pending = [name for name in ("translate", "propagate") if self.share(name) < 1]
        return ", ".join(pending) or "publish"

    def share(self, name: str) -> float:
        """How much of a stage is done, 0 to 1."""
        done, total = self.stages.get(name, (0, None))
        return done / total if total else 0.0

    def left(self, now: float) -> float | None:
        """Seconds to go, as fast as it went until now; None while that says nothing."""
        if self.begun is None:
            return None
        begin, before = self.begun
        done = self.done - before
        return (now - begin) * (1 - self.done) / done if done > 0 else None

    def stage(self, name: str, done: float, total: int | None, now: float) -> None:
        """A stage has got so far, as `Progress.stage` has it."""
        self.stages[name] = done, total
        if name == "translate" and self.begun is None:
            self.begun = now, self.done

    @property
    def done(self) -> float:
        """How much of translating and propagating is done, 0 to 1."""
        return (self.share("translate") + self.share("propagate")) / 2


class BarProgress:
    """A line for every clip in work, with the time left; finished clips above."""

    def __init__(
        self, console: Console | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._clips: dict[Job, ClipProgress] = {}
        self._live = Live(
            console=console or Console(stderr=True),
            get_renderable=self.lines,
            # Drawing costs some milliseconds, in the process that keeps all others at work.
            refresh_per_second=2,
            transient=True,
        )

    def begin(self, job: Job, number: int, count: int) -> None:
        self._clips[job] = ClipProgress(f"[{number}/{count}] {printable(job.clip.name)}")

    def stage(self, job: Job, name: str, done: float, total: int | None, seconds: float) -> None:
        clip = self._clips.get(job)
        if clip is not None:
            clip.stage(name, done, total, self._clock())

    def end(self, job: Job, result: JobResult) -> None:
        clip = self._clips.pop(job, None)
        title = printable(job.clip.name) if clip is None else clip.title
        if result.outcome is Outcome.FAILED:
            self._print(f"{title}: failed: {printable(result.reason)}")
        elif result.outcome is Outcome.DONE:
            self._print(f"{title}: done in {duration(result.seconds)}")
        else:
            self._print(f"{title}: {result.outcome}")

    def note(self, text: str) -> None:
        self._print(text)

    def warn(self, text: str, action: Action = Action.WARNING) -> None:
        self._print(f"warning: {printable(text)}")

    def trace(self, text: str) -> None:
        self._print(text)

    def lines(self) -> RenderableType:
        """What is shown below the finished clips; called by the thread that draws."""
        table = Table(box=None, expand=True, pad_edge=False, header_style="dim")
        table.add_column("clip", no_wrap=True, overflow="ellipsis", ratio=1)
        table.add_column("stage", no_wrap=True)
        table.add_column("", width=_BAR)
        for title in ("frames", "windows", "left"):
            table.add_column(title, no_wrap=True, justify="right")
        now = self._clock()
        # Those that devices work on first: they are what the user waits for.
        clips = sorted(self._clips.copy().values(), key=lambda clip: "translate" not in clip.stages)
        for clip in clips[:MAX_LINES]:
            table.add_row(*_cells(clip, now))
        below = [Text(f"+ {len(clips) - MAX_LINES} more")] if len(clips) > MAX_LINES else []
        return Group(*([table] if clips else []), *below)

    def _print(self, text: str) -> None:
        self._live.console.print(text, markup=False, highlight=False, emoji=False, soft_wrap=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.stop()


def _cells(clip: ClipProgress, now: float) -> tuple[RenderableType, ...]:
    stages = clip.stages.copy()
    finished, frames = stages.get("propagate", (0, None))
    if frames is None:  # not translated yet: what is known of its length
        frames = stages.get("prepare", (0, None))[1]
    read = stages.get("prepare", (0, None))[0]
    translated, windows = stages.get("translate", (0, None))
    left = clip.left(now)
    return (
        Text(clip.title),
        Text(clip.state()),
        ProgressBar(total=frames or 1, completed=finished, width=_BAR),
        Text(f"{finished:.0f}/{frames}" if frames else f"{read:.0f} read"),
        Text(f"{int(translated)}/{windows}" if windows else ""),
        Text("" if left is None else str(timedelta(seconds=round(left)))),
    )


def summary(
    results: Sequence[JobResult], seconds: float, output: Path, extra: Sequence[str] = ()
) -> str:
    """The closing lines: how many clips ended how, and why those without a result have none.

    ``extra`` is what else there is to say, a line each.
    """
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
    lines += [f"  {line}" for line in extra]
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
