"""What a daemon that does not run has left in its store: answers as the daemon would."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from daemon.control_client import ControlError, NotRunningError
from daemon.jobs import JobState
from daemon.printable import printable

if TYPE_CHECKING:
    from sqlite3 import Connection

T = TypeVar("T")


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
        from daemon.job_rows import counts, failures

        found, failed = self._read(lambda db: (counts(db), failures(db, 5)))
        return {
            "state": "down",
            "store": printable(self._store),
            "jobs": {str(state): found.get(state, 0) for state in JobState},
            "failures": [
                {
                    "id": job.id,
                    "clip": printable(job.clip),
                    "reason": job.reason,
                    "ended": job.ended,
                }
                for job in failed
            ],
        }

    def jobs(self, state: JobState | None = None, limit: int = 100) -> list[dict[str, Any]]:
        """The newest jobs, or the newest in a state, the newest first."""
        from daemon.job_rows import newest

        return [job.to_json() for job in self._read(lambda db: newest(db, state, limit))]

    def called(self, name: str) -> list[dict[str, Any]]:
        """The jobs that a clip's name may mean, the newest first."""
        from daemon.job_rows import newest

        return [job.to_json() for job in self._read(lambda db: newest(db, clip=name))]

    def job(self, number: int) -> dict[str, Any]:
        """One job."""
        from daemon.job_rows import record

        try:
            return self._read(lambda db: record(db, number)).to_json()
        except KeyError:
            raise ControlError(f"there is no job {number}", 404) from None

    def _read(self, look: Callable[["Connection"], T]) -> T:
        from daemon.job_rows import read_store

        self._check()
        return read_store(self._store, look)

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
