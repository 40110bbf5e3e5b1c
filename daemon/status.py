"""The daemon's status: what everyone does now, as JSON has it. Looks only at what is in memory."""

import os
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from typing import Any

from daemon.activity import Wait, Working
from daemon.devices import Device
from daemon.jobs import Job, JobRecord, JobState
from daemon.live import Live, RunningJob
from daemon.places import Places
from daemon.printable import printable
from daemon.propagation import Propagation
from daemon.workers import Worker
from daemon.workshop import Workshop

# Seconds over which devices are told to be busy.
LATELY = 300.0
FAILURES = 5
_STAGES = ("prepare", "translate", "propagate")
_VERSION = metadata.version("frescod")


def snapshot(
    workshop: Workshop,
    live: Live,
    places: Places,
    *,
    state: str,
    started: float,
    uptime: float,
    counts: Mapping[JobState, int],
    failures: Sequence[JobRecord] = (),
    problems: Sequence[str] = (),
) -> dict[str, Any]:
    """Everything that `frescod status` shows; the dictionary of ``/v1/status``.

    Args:
        state: loading, serving, paused, draining or stopping.
        started: Unix time.
        uptime: seconds.
        counts: jobs of each state.
        failures: the last ones, newest first; five are told.
        problems: why the daemon is not well, a line each.
    """
    timeline, cores, memory = workshop.timeline, workshop.cores, workshop.memory
    running = {each.job.name: each for each in live.running}
    working, waits = timeline.working(), timeline.waits()
    busy = timeline.busy_seconds(LATELY)
    span = min(LATELY, timeline.now())
    waiting = {wait.track: wait for wait in reversed(waits)}  # the longest of each
    queued = counts.get(JobState.QUEUED, 0)
    return {
        "version": _VERSION,
        "pid": os.getpid(),
        "state": state,
        "started": started,
        "uptime": uptime,
        "inbox": printable(places.inbox),
        "output": printable(places.output),
        "store": printable(places.store),
        "problems": [printable(problem) for problem in problems],
        "devices": [
            _device(device, working.get(device.name), waiting.get(device.name), running)
            | {"busy": round(min(1.0, busy.get(device.name, 0.0) / span), 4) if span else 0.0}
            for device in workshop.devices.all
        ],
        "pools": [
            _pool("readers", workshop.readers.workers, workshop.waiting("reader")),
            _pool("pool", workshop.pool.workers, workshop.waiting("cpu") + workshop.pool.waiting),
        ],
        "propagation": _propagation(workshop.propagation),
        "cores": {"used": cores.total - cores.free, "total": cores.total},
        "memory": {"used": memory.used, "total": memory.total},
        "jobs": {str(each): counts.get(each, 0) for each in JobState},
        "queue": {"length": queued, "seconds_left": _rounded(live.seconds_left(queued))},
        "running": [_job(each, live.now()) for each in live.running],
        "blocked": [_blocked(wait, running) for wait in _longest(waits)],
        "failures": [
            {
                "id": record.id,
                "clip": printable(record.clip.name),
                "reason": printable(record.reason),
                "ended": record.ended,
            }
            for record in failures[:FAILURES]
        ],
    }


def _device(
    device: Device, working: Working | None, wait: Wait | None, running: Mapping[str, RunningJob]
) -> dict[str, Any]:
    name = working.job if working else wait.job if wait else ""
    job: Job | None = running[name].job if name in running else None
    windows = running[name].progress.stages.get("translate", (0.0, None))[1] if job else None
    window = None if working is None else working.window
    return {
        "name": device.name,
        "state": _device_state(device, working, wait),
        "job": job.id if job else None,
        "clip": printable(job.clip.name if job else name) or None,
        "stage": working.stage if working else "",
        "window": 0 if window is None else window + 1,
        "windows": 0 if window is None else max(windows or 0, window + 1),
        "memory": device.memory,
        "waits": {"for": wait.cause, "seconds": round(wait.seconds, 1)} if wait else None,
        "lost": printable(device.lost),
    }


def _device_state(device: Device, working: Working | None, wait: Wait | None) -> str:
    if device.lost:
        return "lost"
    if working:
        return "working"
    loading = wait is not None and wait.cause == "loading"
    return "loading" if loading or not device.worker.ready else "idle"


def _pool(name: str, workers: Iterable[Worker], waiting: int) -> dict[str, Any]:
    busy = [worker.busy for worker in workers]
    return {"name": name, "workers": len(busy), "busy": sum(busy), "waiting": waiting}


def _propagation(propagation: Propagation) -> dict[str, Any]:
    shares = propagation.shares.items()
    by = [
        {
            "name": side,
            "segments": share.segments,
            "frames": share.frames,
            "seconds": round(share.seconds, 1),
        }
        for side, share in shares
    ]
    return {"waiting": propagation.waiting, "by": by}


def _job(running: RunningJob, now: float) -> dict[str, Any]:
    stages = running.progress.stages
    return {
        "id": running.job.id,
        "clip": printable(running.job.clip.name),
        "state": str(running.state),
        "stages": {name: list(stages.get(name, (0, None))) for name in _STAGES},
        "attempts": running.job.attempts,
        "seconds": round(now - running.begun, 1),
        "seconds_left": _rounded(running.left(now)),
    }


def _longest(waits: Iterable[Wait]) -> Iterable[Wait]:
    """Of many windows of a clip that wait for the same, the one that does so for longest."""
    found: dict[tuple[str, str, str], Wait] = {}
    for wait in waits:
        found.setdefault((wait.track, wait.cause, wait.job), wait)
    return found.values()


def _blocked(wait: Wait, running: Mapping[str, RunningJob]) -> dict[str, Any]:
    clip = running[wait.job].job.clip.name if wait.job in running else wait.job
    return {
        "who": wait.track or "clip",
        "for": wait.cause,
        "clip": printable(clip),
        "seconds": round(wait.seconds, 1),
    }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)
