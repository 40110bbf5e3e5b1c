"""What ``frescod doctor`` says of folders: rights, file systems, space, the store."""

import os
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

from daemon.base_config import read_base_config
from daemon.doctor import Finding, Verdict
from daemon.folder_scan import scan
from daemon.places import Places
from daemon.run_input import run_input, without_prompt
from daemon.settings import Settings
from fresco_core.errors import FrescodError
from io_pipeline.staging import REPLACED, STAGING

GIB = 1 << 30
# An hour of clips in full HD, with key frames and comparison, takes about so much.
_HOUR = 30 * GIB
_LEAST = 1 * GIB
_LEAST_STATE = GIB // 10
# File systems of other machines: locks and renames are not what they are on a disk.
NETWORK = frozenset(
    [
        *("9p", "afs", "beegfs", "ceph", "cifs", "davfs", "glusterfs", "gpfs", "lustre", "nfs"),
        *("nfs4", "smb3", "smbfs", "fuse.cephfs", "fuse.glusterfs", "fuse.rclone", "fuse.s3fs"),
        "fuse.sshfs",
    ]
)


def folders(settings: Settings) -> Iterator[Finding]:
    """Inbox and output are there, with the rights that are needed."""
    places = Places.of(settings)
    yield _inbox(places.inbox, settings.inbox.watch)
    yield _writable("output", places.output, "output.folder")
    for name in (STAGING, REPLACED):
        part = places.output / name
        if part.exists() and part.stat().st_dev != places.output.stat().st_dev:
            yield Finding(
                "output",
                Verdict.PROBLEM,
                f"{part} is on another file system than {places.output}",
                "results are moved from there in one rename: make it a plain folder again",
            )
    owner = places.output.stat().st_uid if places.output.exists() else 0
    if os.geteuid() == 0 and owner != 0:
        yield Finding(
            "folders",
            Verdict.WARNING,
            f"{places.output} belongs to user {owner}, and this is root, who may write everywhere",
            "run doctor as the service's user: runuser -u frescod -- frescod doctor",
        )


def job_file(base_config: Path) -> Iterator[Finding]:
    """The clip of an old job file is there, and its result can be written; nothing without one."""
    if read_base_config(base_config).clip is None:
        return
    try:
        given = run_input(None, None, None, None, base_config)
    except FrescodError as error:
        yield Finding("job file", Verdict.PROBLEM, str(error))
    else:
        only = str(given.only)
        yield Finding("job file", Verdict.OK, f"its clip is {given.clips / only}")
        if (
            given.prompt is None
            and not scan(given.clips, given.prompts, given.output, only=only).jobs
        ):
            yield Finding("job file", Verdict.PROBLEM, without_prompt(only, given.prompts))
        yield _writable("job file", given.output.absolute(), "save_path")


def state(settings: Settings) -> Iterator[Finding]:
    """The store can be kept in the state folder."""
    folder = Places.of(settings).state
    rights = _writable("state", folder, "service.state")
    yield rights
    kind = file_system(folder)
    if kind in NETWORK:
        yield Finding(
            "state",
            Verdict.WARNING,
            f"{folder} is on a file system of another machine ({kind})",
            "its locks may not keep two daemons apart, nor its writes survive a power cut: set "
            "service.state to a folder on a local disk",
        )
    if rights.verdict is Verdict.OK and folder.is_dir():
        try:
            _try_sqlite(folder)
        except (sqlite3.Error, OSError) as error:
            yield Finding(
                "state",
                Verdict.PROBLEM,
                f"SQLite {sqlite3.sqlite_version} cannot work in {folder} ({error})",
                "set service.state to a folder on a local disk",
            )


def disk(settings: Settings) -> Iterator[Finding]:
    """There is space for results and for the store."""
    places = Places.of(settings)
    for name, folder, least, enough in (
        ("output", places.output, _LEAST, _HOUR),
        ("state", places.state, _LEAST_STATE, _LEAST_STATE),
    ):
        space = os.statvfs(_nearest(folder))
        free = space.f_bavail * space.f_frsize
        verdict = Verdict.OK if free >= enough else Verdict.WARNING
        remedy = ""
        if free < least:
            verdict = Verdict.PROBLEM
            remedy = "free some space; until then jobs wait for it"
        elif free < enough:
            remedy = f"an hour of clips in full HD takes about {enough // GIB} GiB"
        text = f"{name}: {free / GIB:.1f} GiB free in {folder}"
        yield Finding("disk", verdict, text, remedy)


def file_system(path: Path) -> str:
    """The kind of file system that a path is on, such as ext4; empty where the kernel says none."""
    nearest = os.fsencode(_nearest(path).resolve())
    best, kind = b"", ""
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        before, _, after = line.partition(b" - ")
        point = before.split()[4].decode("unicode_escape").encode("latin-1")
        inside = nearest == point or nearest.startswith(point.rstrip(b"/") + b"/")
        if inside and len(point) >= len(best):  # a later mount hides an earlier one
            best, kind = point, after.split()[0].decode()
    return kind


def _inbox(folder: Path, watch: str) -> Finding:
    name = "inbox"
    if not folder.exists():
        return _writable(name, folder, "inbox.folder")
    if not folder.is_dir():
        return Finding(name, Verdict.PROBLEM, f"{folder} is no folder", "correct inbox.folder")
    if not os.access(folder, os.R_OK | os.X_OK):
        remedy = "let the daemon's user or group read it"
        return Finding(name, Verdict.PROBLEM, f"{folder} cannot be read", remedy)
    kind = file_system(folder)
    if kind in NETWORK and watch == "inotify":
        return Finding(
            name,
            Verdict.WARNING,
            f"{folder} is on a file system of another machine ({kind}), which tells of no changes",
            'set inbox.watch = "polling"',
        )
    return Finding(name, Verdict.OK, f"{folder} can be read")


def _writable(name: str, folder: Path, key: str) -> Finding:
    nearest = _nearest(folder)
    try:
        with tempfile.TemporaryFile(dir=nearest):  # has no name: nobody sees it
            pass
    except OSError as error:
        remedy = f"correct its permissions, or set {key} to another folder"
        text = f"{nearest} cannot be written ({error.strerror})"
        return Finding(name, Verdict.PROBLEM, text, remedy)
    made = "" if nearest == folder else ", and is made when it is needed"
    return Finding(name, Verdict.OK, f"{folder} can be written{made}")


def _nearest(folder: Path) -> Path:
    """The folder, or the nearest above it that is there."""
    return next(path for path in (folder, *folder.parents) if path.exists())


def _try_sqlite(folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder, prefix=".doctor-") as scratch:
        store = sqlite3.connect(Path(scratch) / "try.sqlite", timeout=5)
        try:
            (mode,) = store.execute("PRAGMA journal_mode = WAL").fetchone()
            if mode != "wal":
                raise sqlite3.OperationalError("no write-ahead log there")
            store.execute("CREATE TABLE jobs (id INTEGER)")
            store.execute("INSERT INTO jobs VALUES (1)")
            store.commit()
        finally:
            store.close()
