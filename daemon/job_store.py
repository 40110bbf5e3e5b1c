"""The store: every job and its state, in SQLite, which survives whatever ends the daemon.

One process owns it, by the lock on its folder. A job that is found running when the store is opened
was interrupted: `JobStore.recover` settles it by what is on disk.
"""

import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict
from pathlib import Path

from daemon import job_rows as rows
from daemon.fingerprints import Fingerprints
from daemon.job_schema import connect, prepare
from daemon.jobs import ENDED, RUNNING, WAITING, Arrival, JobRecord, JobState
from daemon.printable import printable
from fresco_core.errors import ConfigError, FrescodError

_RUNNING = f"state IN ({rows.listed(RUNNING)})"


class StoreError(FrescodError):
    """The store cannot be written now: its disk is full, or fails."""

    exit_code = 75


class JobStore:
    """Jobs on disk; every method is one transaction. May be called from any thread.

    Args:
        path: of the file, made if need be; ``":memory:"`` for one that nothing survives.
        clock: Unix time, which is only shown.

    Raises:
        ConfigError: it cannot be opened, is damaged, or was made by a later version.
        StoreError: (every method) it cannot be written now; nothing was changed.
    """

    def __init__(self, path: Path | str, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock
        self.changes = 0  # transactions so far: another number, and there may be news
        self._lock, self._read_lock = threading.Lock(), threading.Lock()
        try:
            with ExitStack() as opened:
                self._db = opened.enter_context(closing(connect(path)))
                prepare(self._db, path)
                # One of its own, so that whoever looks does not wait for whoever writes.
                private = path == ":memory:"
                self._reader = self._db if private else connect(path)
                opened.pop_all()
        except sqlite3.DatabaseError as error:
            raise ConfigError(
                f"{path}: the job store cannot be opened ({error}): correct its permissions, or "
                "move it away; finished results are known without it"
            ) from error

    def close(self) -> None:
        """Close the file; whatever was said to be done is on disk before."""
        self._reader.close()
        self._db.close()

    # --- what a folder has -----------------------------------------------------------------------

    def arrive(self, arrivals: Iterable[Arrival], *, again: bool = False) -> list[JobRecord]:
        """Bring the store up to date with clips as they are now; answers the jobs that changed.

        Whatever is not yet running is brought up to date in place. A clip whose job has ended and
        whose files have changed since gets a new one. A running job stays as it is and is answered
        too: its clip has to be told again when it has ended. ``again``: ended jobs are queued as
        well though nothing has changed.
        """
        with self._transaction() as db:
            found = (self._arrive(db, arrival, again) for arrival in arrivals)
            return [rows.record(db, number) for number in found if number is not None]

    def gone(self, clips: Iterable[Path]) -> list[JobRecord]:
        """Cancel the jobs of clips that are not there any more and not running."""
        changed = []
        with self._transaction() as db:
            for clip in clips:
                row = rows.latest(db, clip)
                if row is not None and row["state"] in WAITING:
                    self._end(db, row["id"], JobState.CANCELLED, rows.GONE)
                    changed.append(rows.record(db, row["id"]))
        return changed

    def known(self) -> dict[Path, str]:
        """What every clip looked like when it was last told, but for those that were gone."""
        with self._reading() as db:
            found = db.execute(
                f"SELECT clip, seen FROM jobs WHERE {rows.LATEST} AND reason != ?", [rows.GONE]
            )
            return {rows.to_path(row["clip"]): row["seen"] for row in found}

    # --- a job's life ----------------------------------------------------------------------------

    def claim(
        self, but: Collection[int] = (), only: Collection[int] | None = None
    ) -> JobRecord | None:
        """The queued job that is next, prepared from now on, its attempt counted; None: no job.

        One whose result folder another job is making waits for that. ``but``: not these; ``only``:
        none but these.
        """
        with self._transaction() as db:
            row = db.execute(
                f"""SELECT id FROM jobs WHERE state = ? AND name NOT IN
                    (SELECT name FROM jobs WHERE {_RUNNING})
                    AND id NOT IN ({rows.numbers(but)}) {rows.among(only)}
                    ORDER BY priority DESC, length DESC, id LIMIT 1""",
                [JobState.QUEUED],
            ).fetchone()
            if row is None:
                return None
            db.execute(
                "UPDATE jobs SET state = ?, attempts = attempts + 1, claimed = ?, ended = NULL, "
                "reason = '', prints = NULL, windows_done = 0 WHERE id = ?",
                [JobState.PREPARING, self._clock(), row["id"]],
            )
            return rows.record(db, row["id"])

    def is_empty(self, only: Collection[int] | None = None) -> bool:
        """Whether no job is queued; ``only``: none of these."""
        with self._reading() as db:
            query = f"SELECT 1 FROM jobs WHERE state = ? {rows.among(only)} LIMIT 1"
            return db.execute(query, [JobState.QUEUED]).fetchone() is None

    def set_prints(self, number: int, prints: Fingerprints) -> None:
        """What the job's result is made from, by which `recover` knows it."""
        with self._transaction() as db:
            text = json.dumps(asdict(prints))
            db.execute(f"UPDATE jobs SET prints = ? WHERE id = ? AND {_RUNNING}", [text, number])

    def set_state(self, number: int, state: JobState) -> None:
        """A running job goes on to its next stage."""
        with self._transaction() as db:
            db.execute(f"UPDATE jobs SET state = ? WHERE id = ? AND {_RUNNING}", [state, number])

    def window_done(self, number: int, done: int, count: int) -> None:
        """So many of a job's windows are on disk: its attempts so far were not in vain.

        Two that end together may be told in either order.
        """
        with self._transaction() as db:
            db.execute(
                "UPDATE jobs SET windows_done = max(windows_done, ?), windows = ?, attempts = 1 "
                f"WHERE id = ? AND {_RUNNING}",
                [done, count, number],
            )

    def charge(self, number: int) -> int:
        """A process has died of a job: one more attempt is counted; answers how many there are."""
        with self._transaction() as db:
            query = f"UPDATE jobs SET attempts = attempts + 1 WHERE id = ? AND {_RUNNING}"
            db.execute(query, [number])
            return int(rows.record(db, number).attempts)

    def release(self, number: int, reason: str = "", seconds: float = 0.0) -> JobRecord:
        """Queue a running job again; the attempt is not counted."""
        with self._transaction() as db:
            db.execute(
                "UPDATE jobs SET state = ?, reason = ?, attempts = max(attempts - 1, 0), "
                f"seconds = seconds + ? WHERE id = ? AND {_RUNNING}",
                [JobState.QUEUED, printable(reason), seconds, number],
            )
            return rows.record(db, number)

    def release_all(self) -> list[JobRecord]:
        """Queue every running job again: the daemon stops in an orderly way."""
        with self._transaction() as db:
            found = db.execute(f"SELECT id FROM jobs WHERE {_RUNNING}").fetchall()
        return [self.release(row["id"]) for row in found]

    def end(self, number: int, state: JobState, reason: str = "", seconds: float = 0.0) -> None:
        """A job has come to one of its ends."""
        with self._transaction() as db:
            db.execute("UPDATE jobs SET seconds = seconds + ? WHERE id = ?", [seconds, number])
            self._end(db, number, state, reason)

    def end_as_before(self, number: int) -> JobRecord:
        """A job turned out to be done by an earlier one of the same clip: they are one job."""
        with self._transaction() as db:
            row = db.execute("SELECT * FROM jobs WHERE id = ?", [number]).fetchone()
            before = db.execute(
                "SELECT id FROM jobs WHERE clip = ? AND state = ? AND id < ? ORDER BY id DESC",
                [row["clip"], JobState.DONE, number],
            ).fetchone()
            if before is None:
                self._end(db, number, JobState.DONE)
                return rows.record(db, number)
            db.execute("DELETE FROM jobs WHERE id = ?", [number])
            db.execute("UPDATE jobs SET seen = ? WHERE id = ?", [row["seen"], before["id"]])
            return rows.record(db, before["id"])

    def recover(
        self,
        attempts: int,
        is_done: Callable[[str, Fingerprints], bool] = lambda name, prints: False,
    ) -> list[JobRecord]:
        """Settle the jobs that were running when the daemon died; answers them.

        Done, where ``is_done(name, prints)`` says that the result is there; else queued, or failed
        where that was the last of ``attempts``. A job that had not yet reached a device is not
        charged: it had no part in it.
        """
        with self._transaction() as db:
            found = db.execute(f"SELECT * FROM jobs WHERE {_RUNNING}").fetchall()
            for row in found:
                number = row["id"]
                prints = row["prints"] and Fingerprints(**json.loads(row["prints"]))
                if row["state"] == JobState.PREPARING:
                    db.execute("UPDATE jobs SET attempts = attempts - 1 WHERE id = ?", [number])
                if prints and is_done(os.fsdecode(row["name"]), prints):
                    self._end(db, number, JobState.DONE)
                elif row["attempts"] >= attempts and row["state"] != JobState.PREPARING:
                    clip, count = printable(rows.to_path(row["clip"])), row["attempts"]
                    reason = (
                        f"{clip}: frescod died {count} times while it was in work: look in the "
                        "log, then `frescod retry`"
                    )
                    self._end(db, number, JobState.FAILED, reason)
                else:
                    self._put(db, number, JobState.QUEUED)
            return [rows.record(db, row["id"]) for row in found]

    def retry(self, number: int) -> JobRecord:
        """Queue a job again that has failed, was cancelled, or is done: its result may be gone.

        Raises:
            KeyError: there is no such job.
            FrescodError: it is in another state, or its clip has had a later one.
        """
        with self._transaction() as db:
            record = rows.record(db, number)
            if record.state not in ENDED - {JobState.SKIPPED}:
                raise FrescodError(f"job {number} is {record.state}: only what has ended")
            latest = rows.latest(db, record.clip)
            if latest is not None and latest["id"] != number:
                raise FrescodError(f"job {number}: its clip has job {latest['id']} now: use that")
            state = JobState.QUEUED if record.prompt_file else JobState.WAITING_PROMPT
            name = rows.choose_name(db, record.clip, record.name)
            db.execute("UPDATE jobs SET attempts = 0, name = ? WHERE id = ?", [name, number])
            self._put(db, number, state)
            return rows.record(db, number)

    def cancel(self, number: int) -> JobRecord:
        """End a job that waits.

        Raises:
            KeyError: there is no such job.
            FrescodError: it runs, or has ended.
        """
        with self._transaction() as db:
            record = rows.record(db, number)
            if record.state not in WAITING:
                raise FrescodError(f"job {number} is {record.state}: nothing to cancel")
            self._end(db, number, JobState.CANCELLED, "by command")
            return rows.record(db, number)

    # --- telling ---------------------------------------------------------------------------------

    def get(self, number: int) -> JobRecord:
        """One job; KeyError where there is none."""
        with self._reading() as db:
            return rows.record(db, number)

    def jobs(
        self,
        state: JobState | None = None,
        limit: int = 100,
        before: int | None = None,
        clip: str | None = None,
    ) -> list[JobRecord]:
        """The newest jobs, the newest first, as `daemon.job_rows.newest` has them."""
        with self._reading() as db:
            return rows.newest(db, state, limit, before, clip)

    def failures(self, limit: int = 5) -> list[JobRecord]:
        """The jobs that failed last, the last one first."""
        with self._reading() as db:
            return rows.failures(db, limit)

    def failed(self) -> list[JobRecord]:
        """The last job of every clip that has failed."""
        with self._reading() as db:
            return rows.failed(db)

    def seen(self, number: int) -> str:
        """What a job's files looked like when they were told."""
        with self._reading() as db:
            row = db.execute("SELECT seen FROM jobs WHERE id = ?", [number]).fetchone()
            return str(row["seen"]) if row else ""

    def latest(self, clip: Path) -> JobRecord | None:
        """A clip's last job."""
        with self._reading() as db:
            row = rows.latest(db, clip)
            return None if row is None else rows.record(db, row["id"])

    def counts(self) -> dict[JobState, int]:
        """How many jobs are in each state."""
        with self._reading() as db:
            return rows.counts(db)

    # --- inside a transaction --------------------------------------------------------------------

    def _arrive(self, db: sqlite3.Connection, arrival: Arrival, again: bool) -> int | None:
        row = rows.latest(db, arrival.clip)
        state = JobState.QUEUED
        if arrival.refused:
            state = JobState.SKIPPED
        elif arrival.prompt_file is None:
            state = JobState.WAITING_PROMPT
        if row is None:
            number = self._insert(db, arrival)
        elif row["state"] in RUNNING:
            return None if row["seen"] == arrival.seen else int(row["id"])
        elif not rows.is_news(row, arrival, state, again):
            return None
        elif row["state"] in ENDED - {JobState.SKIPPED} and row["seen"] != arrival.seen:
            number = self._insert(db, arrival)
        else:
            number = row["id"]
        db.execute(
            "UPDATE jobs SET prompt_file = ?, settings_file = ?, control_files = ?, seen = ?, "
            "length = ?, priority = coalesce(?, priority) WHERE id = ?",
            [
                rows.to_bytes(arrival.prompt_file),
                rows.to_bytes(arrival.settings_file),
                rows.from_control_files(arrival.control_files),
                arrival.seen,
                arrival.length,
                arrival.priority,
                number,
            ],
        )
        if row is not None and number == row["id"] and row["state"] in ENDED:
            current = arrival.name or os.fsdecode(row["name"])
            name = os.fsencode(arrival.name) or rows.choose_name(db, arrival.clip, current)
            db.execute("UPDATE jobs SET attempts = 0, name = ? WHERE id = ?", [name, number])
        if state in ENDED:
            self._end(db, number, state, arrival.refused)
        else:
            self._put(db, number, state)
        return number

    def _insert(self, db: sqlite3.Connection, arrival: Arrival) -> int:
        cursor = db.execute(
            "INSERT INTO jobs (clip, seen, name, state, created) VALUES (?, ?, ?, ?, ?)",
            [
                rows.to_bytes(arrival.clip),
                arrival.seen,
                os.fsencode(arrival.name) or rows.choose_name(db, arrival.clip),
                JobState.QUEUED,
                self._clock(),
            ],
        )
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def _put(self, db: sqlite3.Connection, number: int, state: JobState) -> None:
        db.execute(
            "UPDATE jobs SET state = ?, reason = '', ended = NULL WHERE id = ?", [state, number]
        )

    def _end(self, db: sqlite3.Connection, number: int, state: JobState, reason: str = "") -> None:
        db.execute(
            "UPDATE jobs SET state = ?, reason = ?, ended = ? WHERE id = ?",
            [state, printable(reason), self._clock(), number],
        )

    # --- the file --------------------------------------------------------------------------------

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._lock if self._reader is self._db else self._read_lock:
            try:
                yield self._reader
            except sqlite3.DatabaseError as error:
                raise StoreError(f"{self._path}: the job store cannot be read ({error})") from error

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                try:
                    yield self._db
                    self._db.execute("COMMIT")
                    self.changes += 1
                except BaseException:
                    if self._db.in_transaction:
                        self._db.execute("ROLLBACK")
                    raise
            except sqlite3.DatabaseError as error:
                raise StoreError(
                    f"{self._path}: the job store cannot be written ({error}): free some space"
                ) from error
