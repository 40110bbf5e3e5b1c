"""Who worked when, and what those who did not were waiting for.

A track is something that does one thing at a time: a device, a worker of the CPU pool, a reader.
It has spans of work and of waiting; waits of nobody in particular (for memory, for the disk) have
no track. Times are seconds on a monotonic clock since the timeline was made.

Legend: N spans.
"""

import os
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daemon.activity import BusyTime, Wait, Working
from fresco_core.errors import ConfigError

Floats = NDArray[np.float64]
Integers = NDArray[np.int32]

# Spans kept one by one, 32 bytes each. After that, spans of a track that begin within the same
# minute are added up, and waits without a track are only counted.
MAX_SPANS = 1_000_000
COARSE = 60.0
# Values of all counters together; beyond it every second one is forgotten.
MAX_VALUES = 200_000
# Rows of spans and sums together, and names of jobs: later rows are left out, later jobs nameless.
MAX_ROWS = 2_000_000
MAX_JOBS = 20_000
NO_TRACK = NO_WINDOW = -1


@dataclass(slots=True, eq=False)
class Span:
    """A span that has begun: what `Timeline.end` wants back."""

    track: int
    what: int
    job: int
    window: int
    begin: float
    about: "What"
    job_name: str


@dataclass(slots=True, eq=False)
class _Minute:
    """Seconds by what was done, on one track from ``begin`` on."""

    begin: float
    seconds: dict[int, float] = field(default_factory=dict)


@dataclass(frozen=True)
class What:
    """What a span is: work of a stage, or a wait for a cause."""

    name: str
    is_work: bool


@dataclass(frozen=True)
class Track:
    """Name and kind, as `Timeline.track` was told."""

    name: str
    kind: str


@dataclass(frozen=True, eq=False)
class Spans:
    """All spans, in the order of their beginnings.

    Attributes:
        begin, end: (N,) float64 seconds.
        track: (N,) int32 into ``tracks``, or NO_TRACK.
        what: (N,) int32 into ``whats``.
        job: (N,) int32 into ``jobs``.
        window: (N,) int32, or NO_WINDOW.
    """

    begin: Floats
    end: Floats
    track: Integers
    what: Integers
    job: Integers
    window: Integers
    tracks: Sequence[Track]
    whats: Sequence[What]
    jobs: Sequence[str]

    def of(
        self, kind: str | None = None, name: str | None = None, work: bool | None = None
    ) -> NDArray[np.bool_]:
        """Which spans are on tracks of a kind, of a stage or cause, work or waits: (N,) bool."""
        tracks = [kind is None or track.kind == kind for track in self.tracks]
        whats = [name in (None, what.name) and work in (None, what.is_work) for what in self.whats]
        # The last entries are what NO_TRACK points at.
        on_tracks: NDArray[np.bool_] = np.array([*tracks, kind is None])[self.track]
        of_kinds: NDArray[np.bool_] = np.array([*whats, False])[self.what]
        return on_tracks & of_kinds

    def seconds(self, which: NDArray[np.bool_], first: float, last: float) -> float:
        """How long the chosen spans are between two times, added up."""
        inside = np.minimum(self.end[which], last) - np.maximum(self.begin[which], first)
        return float(np.maximum(inside, 0).sum())


class Timeline:
    """Records spans, waits and counters while a run goes on; tells and draws them at its end.

    Not thread-safe: it belongs to the event loop. Memory: 32 bytes for each of the first million
    spans, later 32 bytes for every track, minute and stage, at most `MAX_ROWS` times. Without
    ``keep``, for what runs for months, only what goes on now and each track's `BusyTime`.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, *, keep: bool = True) -> None:
        self._clock = clock
        self._keep = keep
        self._zero = clock()
        self._begins, self._ends = array("d"), array("d")
        self._columns = tuple(array("i") for _ in range(4))  # track, what, job, window
        self._open: set[Span] = set()
        self._minutes: dict[int, _Minute] = {}
        self._tracks: list[Track] = []
        self._busy: list[BusyTime] = []  # by track
        self._whats: dict[tuple[str, bool], tuple[int, What]] = {}
        self._jobs: dict[str, int] = {"": 0}
        self._counters: dict[str, int] = {}
        self._values: list[tuple[float, int, float]] = []
        self._peaks: dict[str, float] = {}
        self.added_up = 0
        self.left_out = 0

    # --- recording -------------------------------------------------------------------------------

    def now(self) -> float:
        """Seconds since the timeline was made."""
        return self._clock() - self._zero

    def track(self, name: str, kind: str) -> int:
        """A new track: ``cuda:0`` of kind "device", ``cpu 3`` of kind "cpu", "reader", …

        Tracks that never work count as idle: have one for all that could.
        """
        self._tracks.append(Track(name, kind))
        self._busy.append(BusyTime())
        return len(self._tracks) - 1

    def begin(self, track: int, stage: str, job: str, window: int | None = None) -> Span:
        """Work of a stage begins on a track, which does nothing else until `end`."""
        return self._begin(track, stage, True, job, NO_WINDOW if window is None else window)

    def begin_wait(self, track: int | None, cause: str, job: str = "") -> Span:
        """A track, or for None nobody in particular, begins to wait."""
        return self._begin(NO_TRACK if track is None else track, cause, False, job, NO_WINDOW)

    def end(self, span: Span) -> None:
        """What has begun ends."""
        self._open.remove(span)
        now = self.now()
        if span.about.is_work:
            self._busy[span.track].add(span.begin, now)
        if self._keep:
            self._add(span, now)

    @contextmanager
    def span(self, track: int, stage: str, job: str, window: int | None = None) -> Iterator[None]:
        """`begin` and `end` around a block."""
        span = self.begin(track, stage, job, window)
        try:
            yield
        finally:
            self.end(span)

    @contextmanager
    def wait(self, track: int | None, cause: str, job: str = "") -> Iterator[None]:
        """`begin_wait` and `end` around a block.

        Causes that `summary` knows a remedy for: "no job", "frames", "control maps", "flows",
        "memory", "core", "loading", "disk".
        """
        span = self.begin_wait(track, cause, job)
        try:
            yield
        finally:
            self.end(span)

    def counter(self, name: str, value: float) -> None:
        """A quantity has changed: bytes of shared memory in use, …"""
        self._peaks[name] = max(value, self._peaks.get(name, value))
        number = self._counters.setdefault(name, len(self._counters))
        if len(self._values) >= MAX_VALUES:
            del self._values[::2]
        if self._keep:
            self._values.append((self.now(), number, value))

    def _begin(self, track: int, name: str, is_work: bool, job: str, window: int) -> Span:
        known = self._whats.get((name, is_work))
        if known is None:
            known = self._whats[name, is_work] = len(self._whats), What(name, is_work)
        if job not in self._jobs and self._keep and len(self._jobs) < MAX_JOBS:
            self._jobs[job] = len(self._jobs)
        span = Span(track, known[0], self._jobs.get(job, 0), window, self.now(), known[1], job)
        self._open.add(span)
        return span

    def _add(self, span: Span, end: float) -> None:
        if len(self._begins) < MAX_SPANS:
            self._append(span.begin, end, span.track, span.what, span.job, span.window)
        elif span.track == NO_TRACK:
            self.left_out += 1
        else:
            self._add_up(span, end)

    def _add_up(self, span: Span, end: float) -> None:
        minute = self._minutes.get(span.track)
        if minute is None or span.begin - minute.begin >= COARSE:
            self._settle(span.track)
            minute = self._minutes[span.track] = _Minute(span.begin)
        minute.seconds[span.what] = minute.seconds.get(span.what, 0.0) + end - span.begin
        self.added_up += 1

    def _settle(self, track: int) -> None:
        """A minute's sums as spans, one behind the other: its idle time comes last."""
        minute = self._minutes.pop(track, None)
        if minute is not None:
            begin = minute.begin
            for what, seconds in minute.seconds.items():
                self._append(begin, begin + seconds, track, what, 0, NO_WINDOW)
                begin += seconds

    def _append(self, begin: float, end: float, *columns: int) -> None:
        if len(self._begins) >= MAX_ROWS:
            return
        self._begins.append(begin)
        self._ends.append(end)
        for column, value in zip(self._columns, columns, strict=True):
            column.append(value)

    # --- telling what goes on --------------------------------------------------------------------

    def working(self) -> dict[str, Working]:
        """What is being done now, by the names of the tracks."""
        now, works = self.now(), [span for span in self._open if span.about.is_work]
        return {
            self._tracks[span.track].name: Working(
                span.about.name,
                span.job_name,
                None if span.window == NO_WINDOW else span.window,
                now - span.begin,
            )
            for span in works
        }

    def waits(self) -> list[Wait]:
        """Who waits for what now, the longest wait first."""
        now, waits = self.now(), [span for span in self._open if not span.about.is_work]
        names = {NO_TRACK: "", **{i: track.name for i, track in enumerate(self._tracks)}}
        return [
            Wait(names[span.track], span.about.name, span.job_name, now - span.begin)
            for span in sorted(waits, key=lambda span: span.begin)
        ]

    def busy_seconds(self, last: float | None = None) -> dict[str, float]:
        """Seconds of work by the names of the tracks; of the ``last`` seconds, at most 300.

        What has not ended counts until now.
        """
        now = self.now()
        first = 0.0 if last is None else max(0.0, now - last)
        found = {
            track.name: busy.total if last is None else busy.since(first, now)
            for track, busy in zip(self._tracks, self._busy, strict=True)
        }
        for span in self._open:
            if span.about.is_work:
                found[self._tracks[span.track].name] += now - max(first, span.begin)
        return found

    # --- telling what was ------------------------------------------------------------------------

    def spans(self) -> Spans:
        """What was recorded so far; what has not ended yet ends now."""
        for number in tuple(self._minutes):
            self._settle(number)
        now, pending = self.now(), tuple(self._open)
        begin = _joined(self._begins, [span.begin for span in pending])
        end = _joined(self._ends, [now] * len(pending))
        order = np.argsort(begin, kind="stable")
        track, what, job, window = (
            _joined(column, [getattr(span, name) for span in pending])[order]
            for name, column in zip(("track", "what", "job", "window"), self._columns, strict=True)
        )
        whats = [about for _, about in self._whats.values()]
        tracks, jobs = tuple(self._tracks), tuple(self._jobs)
        return Spans(begin[order], end[order], track, what, job, window, tracks, whats, jobs)

    def counters(self) -> dict[str, tuple[Floats, Floats]]:
        """Times and values of every counter."""
        found = {}
        for name, number in self._counters.items():
            pairs = [(when, value) for when, which, value in self._values if which == number]
            times, values = np.array(pairs, np.float64).reshape(-1, 2).T
            found[name] = times, values
        return found

    def peak(self, counter: str) -> float:
        """The largest value that a counter ever had; 0 if it never had any."""
        return self._peaks.get(counter, 0.0)

    def busy(self, kind: str, first: float | None = None, last: float | None = None) -> float:
        """The share of the time of all tracks of a kind that was work, 0 to 1.

        Between two times, by default the beginning of the first and the end of the last
        translation.
        """
        spans = self.spans()
        begin, end = translation(spans)
        first, last = begin if first is None else first, end if last is None else last
        tracks = sum(track.kind == kind for track in self._tracks)
        if not tracks or last <= first:
            return 0.0
        return spans.seconds(spans.of(kind, work=True), first, last) / (tracks * (last - first))

    def summary(self) -> list[str]:
        """What a user should know: how busy all were, and what held the rest up."""
        from daemon.timeline_summary import summary

        return summary(self.spans())

    def chrome(self) -> Iterator[str]:
        """A trace in the event format of Chrome and Perfetto: JSON, in pieces.

        A process for every kind of track, a thread for every track; the jobs are arguments.
        """
        from daemon.timeline_trace import trace

        about = {
            "program": "frescod",
            "summed_up_spans": self.added_up,
            "left_out_waits": self.left_out,
            "note": f"the first {MAX_SPANS} spans are kept; later ones are added up by "
            f"{COARSE:.0f} s, later waits without a track are left out",
        }
        return trace(self.spans(), self.counters(), about)

    def write(self, path: Path) -> None:
        """Write the trace to ``path`` and a picture of it beside, as ``.png``.

        Raises:
            FrescodError: a file cannot be written.
        """
        from daemon.timeline_picture import draw
        from io_pipeline.writing import appearing

        with appearing(path) as file, file.open("w", encoding="utf-8") as stream:
            stream.writelines(self.chrome())
        with appearing(path.with_suffix(".png")) as file:
            file.write_bytes(draw(self.spans(), self.counters(), self.summary()))


def check_place(path: Path) -> None:
    """Tell before a night's work that `Timeline.write` will not be able to write there.

    Raises:
        ConfigError: it will not.
    """
    if not path.name or path.is_dir():
        raise ConfigError(f"--timeline {path}: is a folder: give the name of a file")
    if path.suffix.lower() == ".png":
        raise ConfigError(f"{path}: the picture's name is made from the trace's: give a .json")
    folder = path.absolute().parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise ConfigError(f"{path}: {folder} is no folder that can be written: choose another")


def translation(spans: Spans) -> tuple[float, float]:
    """When the first translation begins and the last one ends; equal where there is none."""
    which = spans.of(name="translate", work=True)
    if not which.any():
        return 0.0, 0.0
    return float(spans.begin[which].min()), float(spans.end[which].max())


def _joined(column: "array[Any]", more: Sequence[float]) -> NDArray[Any]:
    values = np.array(column)
    return np.concatenate([values, np.array(more, values.dtype)])
