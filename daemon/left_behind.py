"""What a daemon that does not run has left in its store: answers as the daemon would."""

from pathlib import Path
from typing import Any

from daemon.control_client import ControlError, NotRunningError
from daemon.job_lookup import is_called
from daemon.jobs import JobState
from daemon.printable import printable

ALL_JOBS = 100_000


class LeftBehind:
    """What a daemon that does not run has left in its store.

    Raises (from every method):
        NotRunningError: there is no store.
        ConfigError: it cannot be read.
    """

    def __init__(self, store: Path, missing: str) -> None:
        self._store = store
        self._missing = missing

    def status(self) -> dict[str, Any]:
        """What is known of the jobs, in the daemon's words; its state is ``down``."""
        from daemon.job_rows import read_store

        self._check()
        counts, failures = read_store(self._store, JobState.FAILED)
        return {
            "state": "down",
            "store": printable(self._store),
            "jobs": {str(state): counts.get(state, 0) for state in JobState},
            "failures": [
                {
                    "id": job.id,
                    "clip": printable(job.clip),
                    "reason": job.reason,
                    "ended": job.ended,
                }
                for job in failures
            ],
        }

    def jobs(self, state: JobState | None = None, limit: int = 100) -> list[dict[str, Any]]:
        """The newest jobs, or the newest in a state, the newest first."""
        from daemon.job_rows import read_store

        self._check()
        return [record.to_json() for record in read_store(self._store, state, limit)[1]]

    def called(self, name: str) -> list[dict[str, Any]]:
        """The jobs that a clip's name may mean, the newest first."""
        return [job for job in self.jobs(limit=ALL_JOBS) if is_called(job["clip"], name)]

    def job(self, number: int) -> dict[str, Any]:
        """One job."""
        for job in self.jobs(limit=ALL_JOBS):
            if job["id"] == number:
                return job
        raise ControlError(f"there is no job {number}", 404)

    def _check(self) -> None:
        try:
            self._store.stat()
        except FileNotFoundError:
            raise NotRunningError(
                f"{self._missing}, and there is no job store at {printable(self._store)}: start "
                "it with `frescod serve`, or name its settings with --config"
            ) from None
        except OSError as error:
            raise ControlError(
                f"{self._missing}, and its store {printable(self._store)} cannot be read "
                f"({error.strerror})"
            ) from error
