"""What the daemon does at a glance, for a terminal of 80 columns or a pipe."""

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from daemon.printable import printable

DOWN = "frescod is not running; this is what it left"
GIB = 2**30
_WORKING = {"working": "green", "idle": "yellow", "lost": "bold red"}
_STATES = {"serving": "bold green", "paused": "bold yellow", "draining": "bold yellow"}
# Lines nowhere end because of a terminal that is not there.
_PIPE_WIDTH = 10_000


def make_console() -> Console:
    """Standard output: as wide as the terminal; in a pipe plain, and nothing is cut."""
    console = Console(highlight=False, emoji=False, markup=False)
    if not console.is_terminal:
        console = Console(
            highlight=False, emoji=False, markup=False, width=_PIPE_WIDTH, no_color=True
        )
    return console


def status_view(status: Mapping[str, Any]) -> RenderableType:
    """The daemon's status; what is wrong comes first. Parts that it does not have are left out."""
    parts: list[RenderableType] = [_title(status)]
    parts += [_line("problem: ", text, "bold red") for text in status.get("problems", ())]
    parts += _devices(status.get("devices", ()))
    parts += [_resources(status)] if "pools" in status else []
    parts += _propagation(status.get("propagation", {}))
    parts += [_queue(status)]
    if running := status.get("running"):
        parts += [Text(), _running(running)]
    if blocked := status.get("blocked"):
        parts += [Text(), Text("waiting", "dim"), *map(_blocked, blocked)]
    if failures := status.get("failures"):
        parts += [Text(), Text("last failures", "dim"), *map(_failure, failures)]
    return Group(*parts)


def watch(fetch: Callable[[], RenderableType], console: Console, seconds: float = 1.0) -> None:
    """Show what ``fetch`` answers, again and again until Ctrl-C; below each other in a pipe."""
    try:
        if not console.is_terminal:
            while True:
                console.print(fetch(), Text())
                console.file.flush()
                time.sleep(seconds)
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                live.update(fetch(), refresh=True)
                time.sleep(seconds)
    except KeyboardInterrupt:
        return


def jobs_view(jobs: Sequence[Mapping[str, Any]]) -> RenderableType:
    """A line a job."""
    table = _table("job", "clip", "state", "windows", "tries", "reason", right=("job", "windows"))
    for job in jobs:
        windows = f"{job['windows_done']}/{job['windows']}" if job["windows"] else ""
        tries = str(job["attempts"] or "")
        cells = (job["id"], _name(job["clip"]), words(job["state"]), windows, tries, job["reason"])
        table.add_row(*map(_text, cells))
    return table


def job_view(job: Mapping[str, Any]) -> RenderableType:
    """All there is to know about a job."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    windows = f"{job['windows_done']} of {job['windows']} done" if job["windows"] else ""
    propagated = job.get("propagated", {})
    for title, value in (
        ("job", job["id"]),
        ("clip", job["clip"]),
        ("state", words(job["state"])),
        ("reason", job["reason"]),
        ("prompt file", job["prompt_file"]),
        ("settings file", job["settings_file"]),
        *(
            (f"{file['kind']} maps" if file["kind"] != "control" else "control maps", file["path"])
            for file in job.get("control_files", ())
        ),
        ("result folder", job["name"]),
        ("priority", job["priority"]),
        ("attempts", job["attempts"]),
        ("windows", windows),
        ("propagated", ", ".join(f"{n} frames by {side}" for side, n in propagated.items() if n)),
        ("worked on", span(job["seconds"]) if job["seconds"] else ""),
        ("added", _when(job["created"])),
        ("begun", _when(job["claimed"])),
        ("ended", _when(job["ended"])),
    ):
        if value not in ("", None):
            table.add_row(Text(title), _text(value))
    return table


def words(state: str) -> str:
    """A job's state for people."""
    return state.replace("waiting_prompt", "waiting for prompt")


def span(seconds: float) -> str:
    """Time for people, in at most two units: ``12 s``, ``3 min``, ``2 h 3 min``, ``1 d 4 h``."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    minutes = seconds // 60
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 24 else f"{hours // 24} d {hours % 24} h"


def _title(status: Mapping[str, Any]) -> Text:
    state = str(status.get("state", ""))
    if state == "down":
        return _line(f"{DOWN}: ", status.get("store", ""), "bold yellow")
    title = Text("frescod ")
    title.append(printable(state), _STATES.get(state, "bold"))
    title.append(f"  version {printable(str(status.get('version', '?')))}")
    title.append(f", process {status.get('pid', '?')}, up {span(status.get('uptime', 0))}")
    return title


def _devices(devices: Iterable[Mapping[str, Any]]) -> list[RenderableType]:
    titles = ("device", "state", "job", "clip", "stage", "window", "busy", "memory")
    table = _table(*titles, right=("job", "window", "busy", "memory"))
    below = []
    for device in devices:
        state = str(device.get("state", ""))
        window = f"{device['window']}/{device['windows']}" if device.get("windows") else ""
        memory = device.get("memory")
        waits = device.get("waits")
        clip = _name(device.get("clip") or "")
        if waits and not clip:
            clip = f"waits {span(waits['seconds'])} for {waits['for']}"
        table.add_row(
            _text(device.get("name", "")),
            _text(state, _WORKING.get(state, "")),
            _text(device.get("job") or ""),
            _cut(clip),
            _text(device.get("stage") or ""),
            _text(window),
            _text(f"{device.get('busy', 0):.0%}"),
            _text("" if memory is None else f"{memory / GIB:.1f} GiB"),
        )
        if device.get("lost"):
            below.append(_line(f"{device['name']} lost: ", device["lost"], "red"))
    return [Text(), table, *below, Text()] if table.rows else [Text()]


def _resources(status: Mapping[str, Any]) -> Text:
    parts = []
    for pool in status.get("pools", ()):
        waiting = f" ({pool['waiting']} waiting)" if pool.get("waiting") else ""
        parts.append(f"{pool['name']} {pool['busy']}/{pool['workers']}{waiting}")
    if cores := status.get("cores"):
        parts.append(f"cores {cores['used']}/{cores['total']}")
    if memory := status.get("memory"):
        parts.append(f"memory {memory['used'] / GIB:.1f}/{memory['total'] / GIB:.1f} GiB")
    return _line("in use: ", ", ".join(parts))


def _propagation(propagation: Mapping[str, Any]) -> list[Text]:
    """What each side has done since the start, and how long it took for a frame."""
    parts = [
        f"{side['frames']} by {side['name']} ({side['seconds'] / side['frames']:.2g} s each)"
        for side in propagation.get("by", ())
        if side["frames"]
    ]
    return [_line("frames propagated: ", ", ".join(parts))] if parts else []


def _queue(status: Mapping[str, Any]) -> Text:
    counts = [f"{count} {words(state)}" for state, count in status.get("jobs", {}).items() if count]
    line = _line("jobs: ", ", ".join(counts) or "none")
    left = status.get("queue", {}).get("seconds_left")
    if left is not None:
        line.append(f"; {span(left)} left", "bold")
    return line


def _running(jobs: Iterable[Mapping[str, Any]]) -> Table:
    stages = {"prepare": "prepared", "translate": "translated", "propagate": "finished"}
    titles = ("job", "clip", "state", *stages.values(), "left")
    table = _table(*titles, right=("job", *stages.values(), "left"))
    for job in jobs:
        left = job.get("seconds_left")
        again = f", try {job['attempts']}" if job.get("attempts", 0) > 1 else ""
        table.add_row(
            _text(job["id"]),
            _cut(_name(job["clip"])),
            _text(f"{job['state']}{again}"),
            *(_text(_share(job.get("stages", {}).get(stage))) for stage in stages),
            _text("" if left is None else span(left)),
        )
    return table


def _share(progress: Sequence[float | None] | None) -> str:
    if not progress:
        return ""
    done, total = progress
    return f"{int(done or 0)}/{'?' if total is None else int(total)}"


def _blocked(wait: Mapping[str, Any]) -> Text:
    clip = f", {_name(wait['clip'])}" if wait.get("clip") else ""
    return _text(f"  {wait['who']} for {wait['for']} since {span(wait['seconds'])}{clip}")


def _failure(job: Mapping[str, Any]) -> Text:
    name, reason = _name(job["clip"]), str(job["reason"])
    text = _text(f"  {job['id']} ")
    if name not in reason:
        text.append(f"{printable(name)}: ")
    return text.append(printable(reason), "red")


def _table(*titles: str, right: Sequence[str] = ()) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in titles:
        table.add_column(
            title,
            no_wrap=title not in ("clip", "reason"),
            justify="right" if title in right else "left",
            overflow="fold",
        )
    return table


def _line(title: str, value: object, style: str = "") -> Text:
    return _text(title, style).append(printable(str(value)), style)


def _text(value: object, style: str = "") -> Text:
    return Text(printable(str(value)), style)


def _cut(text: str) -> Text:
    """Of one line, whatever its column has left of it."""
    return Text(printable(text), no_wrap=True, overflow="ellipsis")


def _name(clip: object) -> str:
    return os.path.basename(str(clip))


def _when(moment: float | None) -> str:
    if moment is None:
        return ""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))
