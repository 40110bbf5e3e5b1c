"""A backend that only remembers what it was told, served over a real unix socket."""

import asyncio
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from daemon.control import ControlServer
from daemon.job_lookup import spellings
from daemon.jobs import ENDED, JobRecord, JobState
from fresco_core.errors import ClipError, FrescodError

VERSION = "0.1.0"


def record(number: int, name: str = "a.mp4", **changes: Any) -> JobRecord:
    clip = Path("/inbox") / name
    plain = JobRecord(
        id=number,
        clip=clip,
        prompt_file=clip.with_suffix(".txt"),
        settings_file=None,
        name=clip.stem,
        state=JobState.QUEUED,
        reason="",
        priority=0,
        attempts=0,
        windows_done=0,
        windows=0,
        created=1.7e9,
        claimed=None,
        ended=None,
        seconds=0.0,
    )
    return replace(plain, **changes)


def status(**changes: Any) -> dict[str, Any]:
    """One of everything."""
    device = {"name": "cuda:0", "state": "working", "job": 12, "clip": "crossing.mp4"} | {
        "stage": "translate",
        "window": 3,
        "windows": 14,
        "busy": 0.97,
        "memory": 13 * 2**30,
        "waits": None,
        "lost": "",
    }
    nothing = {"job": None, "clip": None, "stage": "", "window": 0, "windows": 0, "memory": None}
    idle = {**device, **nothing, "name": "cuda:1", "state": "idle", "busy": 0.04}
    idle["waits"] = {"for": "windows", "seconds": 12.3}
    lost = {**device, **nothing, "name": "cuda:2", "state": "lost", "busy": 0.0}
    lost["lost"] = "5 restarts in 60 s"
    plain: dict[str, Any] = {
        "version": VERSION,
        "pid": os.getpid(),
        "state": "serving",
        "started": 1.7e9,
        "uptime": 7380.0,
        "inbox": "/srv/inbox",
        "output": "/srv/output",
        "store": "/srv/output/.frescod/jobs.sqlite",
        "problems": ["/srv/output: the disk is full: free some space"],
        "devices": [device, idle, lost],
        "pools": [
            {"name": "readers", "workers": 4, "busy": 2, "waiting": 0},
            {"name": "pool", "workers": 30, "busy": 3, "waiting": 5},
        ],
        "propagation": {
            "waiting": 4,
            "by": [
                {"name": "cpu", "segments": 30, "frames": 120, "seconds": 156.0},
                {"name": "gpu", "segments": 75, "frames": 300, "seconds": 12.0},
            ],
        },
        "cores": {"used": 30, "total": 32},
        "memory": {"used": 2**30, "total": 4 * 2**30},
        "jobs": {str(state): 0 for state in JobState} | {"queued": 120, "done": 40, "failed": 2},
        "queue": {"length": 120, "seconds_left": 7500.0},
        "running": [
            {
                "id": 12,
                "clip": "crossing.mp4",
                "state": "translating",
                "stages": {"prepare": [4, 14], "translate": [2, 14], "propagate": [1, None]},
                "attempts": 1,
                "seconds": 65.0,
                "seconds_left": 240.0,
            }
        ],
        "blocked": [{"who": "readers", "for": "memory", "clip": "next.mp4", "seconds": 31.0}],
        "failures": [
            {"id": 9, "clip": "bad.mp4", "reason": "bad.mp4: no video stream", "ended": 1.7e9}
        ],
    }
    return plain | changes


class FakeBackend:
    """Has jobs 1 to 3: a.mp4 queued, b.mp4 failed, ended long ago; c.mp4 in work."""

    def __init__(self, inbox: Path = Path("/srv/inbox")) -> None:
        self.inbox = inbox
        self.ready = True
        self.told: list[tuple[Any, ...]] = []
        self.ill: list[str] = []
        self.state = "serving"
        self.records = {
            1: record(1),
            2: record(2, "b.mp4", state=JobState.FAILED, reason="b.mp4: no video stream"),
            3: record(3, "c.mp4", state=JobState.TRANSLATING, windows_done=2, windows=9),
        }
        self.drained = threading.Event()

    def status(self) -> dict[str, Any]:
        return status(state=self.state, inbox=str(self.inbox))

    def metrics(self) -> str:
        return "frescod_jobs 3\n"

    def problems(self) -> Sequence[str]:
        return self.ill

    async def refresh(self) -> None:
        pass

    async def jobs(
        self, state: JobState | None, limit: int, before: int | None, clip: str | None
    ) -> Sequence[JobRecord]:
        def is_meant(job: JobRecord) -> bool:
            names = spellings(clip or "")
            return (
                (state is None or job.state == state)
                and (before is None or job.id < before)
                and (clip is None or job.clip.name in names or job.clip.stem in names)
            )

        return sorted(filter(is_meant, self.records.values()), key=lambda job: -job.id)[:limit]

    async def job(self, id: int) -> JobRecord:
        return self.records[id]

    async def submit(self, name: str, priority: int | None) -> JobRecord:
        self.told.append(("submit", name, priority))
        if not (self.inbox / name).is_file():
            raise ClipError(f"{name}: is not in the inbox")
        number = max(self.records) + 1
        self.records[number] = record(number, name, priority=priority or 0)
        return self.records[number]

    async def retry(self, id: int) -> JobRecord:
        job = self.records[id]
        if job.state is not JobState.FAILED:
            raise FrescodError(f"job {id} is {job.state}: only failed or cancelled jobs")
        self.records[id] = replace(job, state=JobState.QUEUED, reason="")
        return self.records[id]

    async def cancel(self, id: int) -> JobRecord:
        job = self.records[id]
        if job.state in ENDED:
            raise FrescodError(f"job {id} is {job.state}: nothing to cancel")
        self.records[id] = replace(job, state=JobState.CANCELLED)
        return self.records[id]

    def pause(self) -> None:
        self.state = "paused"

    def resume(self) -> None:
        self.state = "serving"

    def drain(self, timeout: float | None) -> None:
        self.told.append(("drain", timeout))
        self.state = "draining"
        self.drained.set()


@contextmanager
def short_folder() -> Iterator[Path]:
    """A folder that everyone may enter, with a path that a socket's may begin with."""
    folder = Path(tempfile.mkdtemp(prefix="frescod-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@contextmanager
def served(path: Path, backend: FakeBackend) -> Iterator[None]:
    """The backend, served from a thread of its own, for clients that block."""
    up = threading.Event()
    ends: list[Callable[[], object]] = []

    async def serve() -> None:
        end = asyncio.Event()
        loop = asyncio.get_running_loop()
        async with ControlServer(path, backend):
            ends.append(lambda: loop.call_soon_threadsafe(end.set))
            up.set()
            await end.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert up.wait(10)
    try:
        yield
    finally:
        ends[0]()
        thread.join(10)
