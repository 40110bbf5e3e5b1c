"""A timeline in the trace event format, which chrome://tracing and ui.perfetto.dev show."""

import json
from collections.abc import Iterator, Mapping
from heapq import merge
from typing import Any

import numpy as np

from daemon.timeline import NO_TRACK, NO_WINDOW, Floats, Spans

# Spans that are Python objects at a time.
_CHUNK = 4096


def trace(
    spans: Spans, counters: Mapping[str, tuple[Floats, Floats]], about: Mapping[str, Any]
) -> Iterator[str]:
    """The JSON text, in pieces: events in the order of their times, in microseconds."""
    kinds = dict.fromkeys([*(track.kind for track in spans.tracks), "waits", "counters"])
    processes = {kind: number for number, kind in enumerate(kinds, 1)}
    lanes, lane_names = _lanes(spans)

    yield f'{{"displayTimeUnit":"ms","otherData":{json.dumps(about)},"traceEvents":[\n'
    names = []
    for kind, pid in processes.items():
        names.append(_name("process_name", pid, 0, {"name": kind}))
        names.append(_name("process_sort_index", pid, 0, {"sort_index": pid}))
    for tid, track in enumerate(spans.tracks):
        names.append(_name("thread_name", processes[track.kind], tid, {"name": track.name}))
    for tid, name in enumerate(lane_names, len(spans.tracks)):
        names.append(_name("thread_name", processes["waits"], tid, {"name": name}))
    yield ",\n".join(names)
    changes = [_changes(name, *series, processes["counters"]) for name, series in counters.items()]
    for _, text in merge(_events(spans, lanes, processes), *changes, key=lambda event: event[0]):
        yield ",\n"
        yield text
    yield "\n]}\n"


def _events(
    spans: Spans, lanes: Mapping[int, int], processes: Mapping[str, int]
) -> Iterator[tuple[int, str]]:
    pids = [processes[track.kind] for track in spans.tracks]
    names = [
        json.dumps(what.name if what.is_work else f"wait: {what.name}") for what in spans.whats
    ]
    jobs = [json.dumps(job) for job in spans.jobs]
    columns = (spans.begin, spans.end, spans.track, spans.what, spans.job, spans.window)
    for number in range(len(spans.begin)):
        place = number % _CHUNK
        if place == 0:
            chunk = [column[number : number + _CHUNK].tolist() for column in columns]
        begin, end, track, what, job, window = (column[place] for column in chunk)
        pid, tid = processes["waits"], len(pids) + lanes.get(number, 0)
        if track != NO_TRACK:
            pid, tid = pids[track], track
        arguments = [f'"job":{jobs[job]}'] if job else []
        if window != NO_WINDOW:
            arguments.append(f'"window":{window}')
        # Both ends are rounded, not the duration: neighbours that touch must not overlap.
        first, last = _microseconds(begin), _microseconds(end)
        yield (
            first,
            f'{{"ph":"X","name":{names[what]},"pid":{pid},"tid":{tid},"ts":{first},'
            f'"dur":{last - first},"args":{{{",".join(arguments)}}}}}',
        )


def _changes(name: str, times: Floats, values: Floats, pid: int) -> Iterator[tuple[int, str]]:
    title = json.dumps(name)
    for when, value in zip(times.tolist(), values.tolist(), strict=True):
        ts = _microseconds(when)
        yield (
            ts,
            f'{{"ph":"C","name":{title},"pid":{pid},"tid":0,"ts":{ts},'
            f'"args":{{"value":{value:.12g}}}}}',
        )


def _name(name: str, pid: int, tid: int, arguments: Mapping[str, Any]) -> str:
    return json.dumps({"ph": "M", "name": name, "pid": pid, "tid": tid, "args": arguments})


def _microseconds(seconds: float) -> int:
    return round(seconds * 1e6)


def _lanes(spans: Spans) -> tuple[dict[int, int], list[str]]:
    """A lane for each wait without a track, so that none overlap: by span number, and their names.

    Waits of one cause share lanes.
    """
    lanes: dict[int, int] = {}
    names: list[str] = []
    until: list[float] = []  # when each lane's last wait ends
    of_cause: dict[int, list[int]] = {}
    for number in np.flatnonzero(spans.track == NO_TRACK).tolist():
        what = int(spans.what[number])
        mine = of_cause.setdefault(what, [])
        lane = next((lane for lane in mine if until[lane] <= spans.begin[number]), None)
        if lane is None:
            lane = len(names)
            names.append(f"{spans.whats[what].name} {len(mine) + 1}")
            until.append(0.0)
            mine.append(lane)
        until[lane] = float(spans.end[number])
        lanes[number] = lane
    return lanes, names
