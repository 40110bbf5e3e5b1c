"""The store's file: its tables, and how older ones become today's."""

import sqlite3
from pathlib import Path

from fresco_core.errors import ConfigError

# Each brings a store from the version of its place in the list to the next; never edited.
MIGRATIONS = (
    """
    CREATE TABLE jobs (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        clip BLOB NOT NULL,
        prompt_file BLOB,
        settings_file BLOB,
        seen TEXT NOT NULL,
        name BLOB NOT NULL,
        state TEXT NOT NULL,
        reason TEXT NOT NULL DEFAULT '',
        priority INTEGER NOT NULL DEFAULT 0,
        length INTEGER NOT NULL DEFAULT 0,
        attempts INTEGER NOT NULL DEFAULT 0,
        windows_done INTEGER NOT NULL DEFAULT 0,
        windows INTEGER NOT NULL DEFAULT 0,
        created REAL NOT NULL,
        claimed REAL,
        ended REAL,
        seconds REAL NOT NULL DEFAULT 0,
        prints TEXT
    );
    CREATE INDEX jobs_by_clip ON jobs (clip, id);
    CREATE INDEX jobs_by_name ON jobs (name);
    CREATE INDEX jobs_by_state ON jobs (state, priority DESC, length DESC, id);
    CREATE INDEX jobs_by_end ON jobs (state, ended);
    """,
    # Kind and path of each, one after the other, separated by zero bytes.
    "ALTER TABLE jobs ADD COLUMN control_files BLOB NOT NULL DEFAULT x''",
)


def connect(path: Path | str) -> sqlite3.Connection:
    """A connection that any thread may use, one at a time."""
    db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
    db.row_factory = sqlite3.Row
    return db


def prepare(db: sqlite3.Connection, path: Path | str) -> None:
    """Make the tables, or bring them up to date; see to it that what is said to be done lasts.

    Raises:
        ConfigError: it was made by a later version.
        sqlite3.DatabaseError: it is damaged, or cannot be written.
    """
    # Not every file system can have a log that processes share: then it keeps another one.
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.execute("PRAGMA busy_timeout = 5000")
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version > len(MIGRATIONS):
        raise ConfigError(
            f"{path}: the job store was made by a later version of frescod: use that one, or move "
            "the file away"
        )
    for number in range(version, len(MIGRATIONS)):
        db.executescript(
            f"BEGIN IMMEDIATE; {MIGRATIONS[number]}; PRAGMA user_version = {number + 1}; COMMIT"
        )
    (problem,) = db.execute("PRAGMA quick_check(1)").fetchone()
    if problem != "ok":
        raise sqlite3.DatabaseError(problem)
