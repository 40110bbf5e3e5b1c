"""What the daemon has in work: how far every job is, and how long it will take."""

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from daemon.jobs import Job, JobResult, JobState, Outcome
from daemon.progress import ClipProgress, LogProgress

# Jobs that the time left is estimated from.
LAST = 20
_ORDER = list(JobState)


@dataclass(eq=False)
class RunningJob:
    """A job in work.

    Attributes:
        begun: monotonic time.
        progress: of its stages; in frames, or, when translating, in windows.
    """

    job: Job
    begun: float
    progress: ClipProgress
    state: JobState = JobState.PREPARING

    def left(self, now: float) -> float | None:
        """Seconds until its frames are finished; None while that cannot be said."""
        return self.progress.left(now)


class Live(LogProgress):
    """Watches the daemon's jobs: remembers those in work, and logs what becomes of them.

    A job's state never goes back, though what was lost may have to be translated again.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self._clock = clock
        self._running: dict[int, RunningJob] = {}
        self._seconds: deque[float] = deque(maxlen=LAST)

    def now(self) -> float:
        """The monotonic time that jobs' beginnings are told in."""
        return self._clock()

    @property
    def running(self) -> Sequence[RunningJob]:
        """The jobs in work, those begun first first."""
        return tuple(self._running.values())

    def begin(self, job: Job, number: int, count: int) -> None:
        super().begin(job, number, count)
        self._running[job.id] = RunningJob(job, self._clock(), ClipProgress(job.clip.name))

    def stage(self, job: Job, name: str, done: float, total: int | None, seconds: float) -> None:
        super().stage(job, name, done, total, seconds)
        running = self._running.get(job.id)
        if running is None:
            return
        running.progress.stage(name, done, total, self._clock())
        state = _state(name, complete=total is not None and done >= total)
        if _ORDER.index(state) > _ORDER.index(running.state):
            running.state = state

    def end(self, job: Job, result: JobResult) -> None:
        super().end(job, result)
        self._running.pop(job.id, None)
        if result.outcome is Outcome.DONE:
            self._seconds.append(result.seconds)

    def seconds_left(self, queued: int) -> float | None:
        """Until all jobs in work, and so many that wait, are done; None while it cannot be said."""
        now = self._clock()
        lefts = [running.left(now) for running in self.running]
        known = [left for left in lefts if left is not None]
        longest = max(known, default=0.0)
        if not queued:
            return longest if len(known) == len(lefts) else None
        if not self._seconds:
            return None
        # Little's law: so many in work at a time, each for so long, are so many done a second.
        together = max(1, len(self._running))
        mean = sum(self._seconds) / len(self._seconds)
        return max(longest, mean * (queued + len(self._running) / 2) / together)


def _state(stage: str, *, complete: bool) -> JobState:
    """Where a job is that has told this of a stage."""
    match stage, complete:
        case ("propagate", True) | ("publish", _):
            return JobState.PUBLISHING
        case "translate", _:
            return JobState.PROPAGATING if complete else JobState.TRANSLATING
    return JobState.PREPARING
