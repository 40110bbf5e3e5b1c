"""Rows of the store's table of jobs, as what they mean."""

import os
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import closing
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from daemon.folder_scan import CLIP_SUFFIXES
from daemon.job_lookup import spellings
from daemon.jobs import WAITING, Arrival, JobRecord, JobState
from fresco_core.errors import ConfigError
from io_pipeline.control_source import ControlFile

T = TypeVar("T")

GONE = "the clip is gone"
LATEST = "id IN (SELECT max(id) FROM jobs GROUP BY clip)"
# What has no result and will get none: others may have its name.
NAMELESS = (JobState.SKIPPED, JobState.CANCELLED)
_SUFFIX_LENGTHS = sorted({len(suffix) for suffix in CLIP_SUFFIXES})
# What a record has; a store of an earlier version, that nobody has brought up to date, lacks some.
_COLUMNS = [field.name for field in fields(JobRecord)]


def latest(db: sqlite3.Connection, clip: Path) -> sqlite3.Row | None:
    """A clip's last job."""
    row: sqlite3.Row | None = db.execute(
        "SELECT * FROM jobs WHERE clip = ? ORDER BY id DESC LIMIT 1", [to_bytes(clip)]
    ).fetchone()
    return row


def choose_name(db: sqlite3.Connection, clip: Path, current: str | None = None) -> bytes:
    """A name for the clip's result that no other clip has: its stem, its file name, or numbered."""

    def names() -> Iterator[str]:
        if current is not None:
            yield current
        yield clip.stem
        yield clip.name
        for number in range(2, 1 << 30):
            yield f"{clip.name}.{number}"

    others = (
        f"SELECT 1 FROM jobs WHERE name = ? AND clip != ? AND state NOT IN ({listed(NAMELESS)})"
    )
    row = latest(db, clip)
    if current is None and row is not None and row["state"] not in NAMELESS:
        return bytes(row["name"])
    return next(
        name
        for name in map(os.fsencode, names())
        if db.execute(others, [name, to_bytes(clip)]).fetchone() is None
    )


def newest(
    db: sqlite3.Connection,
    state: JobState | None = None,
    limit: int = 100,
    before: int | None = None,
    clip: str | None = None,
) -> list[JobRecord]:
    """The newest jobs, the newest first.

    Args:
        state: only those in it.
        limit: how many at most.
        before: only those with a lower number.
        clip: only those of clips that may be meant by this path, file name or stem.
    """
    wanted: list[str] = []
    values: list[Any] = []
    if state is not None:
        # By number, not by state and then sorted: there may be very many of a state.
        wanted.append("+state = ?")
        values.append(state)
    if before is not None:
        wanted.append("id < ?")
        values.append(before)
    if clip is not None:
        names = [_called(name) for name in spellings(clip)]
        wanted.append("(" + " OR ".join(condition for condition, _ in names) + ")")
        values += [value for _, found in names for value in found]
    where = f"WHERE {' AND '.join(wanted)}" if wanted else ""
    query = f"SELECT * FROM jobs {where} ORDER BY id DESC LIMIT ?"
    return [_to_record(row) for row in db.execute(query, [*values, limit])]


def _called(name: str) -> tuple[str, list[Any]]:
    """That a clip has this path, file name or stem, as SQL and its values."""
    try:
        raw = os.fsencode(name)
    except UnicodeEncodeError:  # no file can be called that
        return "0", []
    conditions, values = ["clip = ?"], [raw]
    # A file name begins after a slash, or with the path; it is compared from the end.
    path = "CAST('/' || clip AS BLOB)"
    ends = [(len(raw) + 1, b"/" + raw)]
    ends += [(len(raw) + 1 + length, b"/" + raw + b".") for length in _SUFFIX_LENGTHS]
    for place, part in ends:
        conditions.append(f"substr({path}, -{place}, {len(part)}) = ?")
        values.append(part)
    return f"({' OR '.join(conditions)})", values


def failures(db: sqlite3.Connection, limit: int) -> list[JobRecord]:
    """What failed last, the last one first."""
    query = "SELECT * FROM jobs WHERE state = ? ORDER BY ended DESC LIMIT ?"
    return [_to_record(row) for row in db.execute(query, [JobState.FAILED, limit])]


def failed(db: sqlite3.Connection) -> list[JobRecord]:
    """The last job of every clip that has failed."""
    query = f"SELECT * FROM jobs WHERE {LATEST} AND state = ?"
    return [_to_record(row) for row in db.execute(query, [JobState.FAILED])]


def counts(db: sqlite3.Connection) -> dict[JobState, int]:
    """How many jobs are in each state."""
    rows = db.execute("SELECT state, count(*) AS count FROM jobs GROUP BY state")
    return dict.fromkeys(JobState, 0) | {JobState(row["state"]): row["count"] for row in rows}


def record(db: sqlite3.Connection, number: int) -> JobRecord:
    """One job; KeyError where there is none."""
    row = db.execute("SELECT * FROM jobs WHERE id = ?", [number]).fetchone()
    if row is None:
        raise KeyError(number)
    return _to_record(row)


def _to_record(row: sqlite3.Row) -> JobRecord:
    values: dict[str, Any] = {name: row[name] for name in _COLUMNS if name in row.keys()}  # noqa: SIM118
    for column in ("clip", "prompt_file", "settings_file"):
        values[column] = None if values[column] is None else to_path(values[column])
    values["control_files"] = to_control_files(values.get("control_files", b""))
    return JobRecord(**values | {"name": os.fsdecode(row["name"]), "state": JobState(row["state"])})


def listed(states: Iterable[JobState]) -> str:
    """States as a list of SQL."""
    return ", ".join(f"'{state}'" for state in sorted(states))


def numbers(numbers: Collection[int]) -> str:
    """Numbers as a list of SQL."""
    return ", ".join(map(str, numbers))


def among(only: Collection[int] | None) -> str:
    """A condition of SQL; None: none."""
    return "" if only is None else f"AND id IN ({numbers(only)})"


def is_news(row: sqlite3.Row, arrival: Arrival, state: JobState, again: bool) -> bool:
    """Whether a clip as it is now changes anything about its last job."""
    same = row["seen"] == arrival.seen and row["reason"] != GONE
    if row["state"] in WAITING:
        return not same or arrival.priority not in (None, row["priority"]) or again
    if row["state"] == JobState.DONE and state is JobState.WAITING_PROMPT:
        return False  # whoever tidies up prompts wants nothing new
    return again or not same


def to_bytes(path: Path | None) -> bytes | None:
    """A path as it is stored: names are bytes."""
    return None if path is None else os.fsencode(path)


def to_path(raw: bytes) -> Path:
    """A stored path."""
    return Path(os.fsdecode(raw))


def from_control_files(files: Iterable[ControlFile]) -> bytes:
    """Control files as they are stored."""
    return b"\0".join(os.fsencode(each) for file in files for each in (file.kind, file.path))


def to_control_files(raw: bytes) -> tuple[ControlFile, ...]:
    """Stored control files."""
    parts = raw.split(b"\0") if raw else []
    pairs = zip(parts[::2], parts[1::2], strict=True)
    return tuple(ControlFile(os.fsdecode(kind), to_path(path)) for kind, path in pairs)


def read_store(path: Path, look: Callable[[sqlite3.Connection], T]) -> T:
    """What ``look`` finds in a store that nobody has open.

    Raises:
        ConfigError: there is none that can be read.
    """
    # The log of a daemon that was killed has to be taken in first; whoever may not do that sees
    # what there was before.
    for mode in ("mode=rw", "mode=ro", "mode=ro&immutable=1"):
        try:
            with closing(sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True)) as db:
                db.row_factory = sqlite3.Row
                return look(db)
        except sqlite3.Error as error:
            why = error
    raise ConfigError(f"{path}: no job store can be read there ({why})")
