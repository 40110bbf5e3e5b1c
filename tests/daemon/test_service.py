import asyncio
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from daemon.job_store import JobStore
from daemon.jobs import Arrival, JobRecord, JobState
from daemon.service import Service
from fresco_core.errors import FrescodError


class Cancelled:
    """A service of which a job in work is cancelled, which comes to ``state`` meanwhile."""

    def __init__(self, state: JobState) -> None:
        self.store = JobStore(":memory:")
        self.store.arrive([Arrival(Path("/in/a.mp4"), Path("/in/a.txt"), None, "1")])
        self.store.claim()
        self.pipeline = self
        self.queue = self
        self.places = SimpleNamespace(output=Path("/out"))
        self._state = state

    async def ask(self, act: Callable[..., Any], *arguments: Any) -> Any:
        return act(*arguments)

    async def cancel(self, number: int, reason: str, seconds: float) -> bool:
        if self._state is JobState.QUEUED:
            self.store.release(number)
        elif self._state is not JobState.PREPARING:
            self.store.end(number, self._state, reason)
        return True

    def tell(self, record: JobRecord) -> None:
        pass

    def forget(self, name: str) -> None:
        pass


def cancel(state: JobState) -> JobRecord:
    return asyncio.run(Service.cancel(Cancelled(state), 1))  # type: ignore[arg-type]


class TestCancelOfAJobInWork:
    def test_what_still_runs_ends_soon(self) -> None:
        assert cancel(JobState.PREPARING).reason == "ends as soon as the window in work is done"

    @pytest.mark.parametrize("state", [JobState.CANCELLED, JobState.QUEUED])
    def test_what_does_not_run_is_cancelled(self, state: JobState) -> None:
        record = cancel(state)
        assert (record.state, record.reason) == (JobState.CANCELLED, "by command")

    @pytest.mark.parametrize("state", [JobState.DONE, JobState.FAILED])
    def test_what_has_just_ended_is_told(self, state: JobState) -> None:
        with pytest.raises(FrescodError, match=f"job 1 is {state}: nothing to cancel"):
            cancel(state)
