"""Figures of the daemon for Prometheus, in its text format."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from daemon.jobs import Outcome

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# Seconds; a window takes some with a tiny model, and half an hour on a slow device.
BUCKETS = (0.1, 0.3, 1, 3, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600)
STAGES = ("prepare", "match", "translate", "propagate", "publish")


class Metrics:
    """Counts what happens from now on; what is so at the moment comes from the status.

    No label has the name of a clip or anything else that there can be any number of.
    """

    def __init__(self) -> None:
        # They are one more series for every counter, of no use to anyone.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        registry = self._registry = CollectorRegistry()
        self._now = _Now()
        registry.register(self._now)
        ProcessCollector(registry=registry)
        self._jobs = Counter(
            "frescod_jobs", "Jobs that have ended, or went back.", ["outcome"], registry=registry
        )
        self._windows = Counter("frescod_windows", "Windows on disk.", registry=registry)
        self._keys = Counter("frescod_key_frames", "Key frames translated.", registry=registry)
        self._frames = Counter("frescod_frames", "Frames on disk.", registry=registry)
        self._seconds = Histogram(
            "frescod_window_seconds",
            "Busy seconds that a window took, all its tasks of a stage added up.",
            ["stage"],
            buckets=BUCKETS,
            registry=registry,
        )
        # Series are there from the start: a rate needs a first value.
        for outcome in Outcome:
            self._jobs.labels(_word(outcome))
        for stage in STAGES:
            self._seconds.labels(stage)

    def job_ended(self, outcome: Outcome) -> None:
        """A job has ended, or went back into the queue."""
        self._jobs.labels(_word(outcome)).inc()

    def window_done(self, key_frames: int, frames: int, seconds: Mapping[str, float]) -> None:
        """A window's frames are on disk: so many new ones, and what each stage took for it."""
        self._windows.inc()
        self._keys.inc(key_frames)
        self._frames.inc(frames)
        for stage, taken in seconds.items():
            if stage in STAGES:
                self._seconds.labels(stage).observe(taken)

    def text(
        self,
        status: Mapping[str, Any],
        busy_seconds: Mapping[str, float],
        deaths: Mapping[str, int],
        *,
        inbox_healthy: bool = True,
    ) -> str:
        """All figures, as `CONTENT_TYPE`.

        Args:
            status: as `status.snapshot` makes it.
            busy_seconds: of work by the names of the devices, since the start; others are left out.
            deaths: of processes that nobody ended, by their kind: "reader", "pool", "device".
        """
        self._now.families = tuple(_families(status, busy_seconds, deaths, inbox_healthy))
        return str(generate_latest(self._registry).decode())


class _Now(Collector):
    """What is so at the moment of a scrape."""

    def __init__(self) -> None:
        self.families: Iterable[Metric] = ()

    def collect(self) -> Iterable[Metric]:
        return self.families


def _families(
    status: Mapping[str, Any],
    busy_seconds: Mapping[str, float],
    deaths: Mapping[str, int],
    inbox_healthy: bool,
) -> Iterator[Metric]:
    devices = status["devices"]
    worked = CounterMetricFamily(
        "frescod_device_busy_seconds", "Seconds that a device has worked.", labels=["device"]
    )
    for device in devices:
        worked.add_metric([device["name"]], busy_seconds.get(device["name"], 0.0))
    yield worked
    died = CounterMetricFamily("frescod_worker_deaths", "Processes that died.", labels=["kind"])
    for kind, count in deaths.items():
        died.add_metric([kind], count)
    yield died
    yield _gauges("frescod_jobs", "Jobs by state.", "state", status["jobs"])
    yield _gauges(
        "frescod_device_up",
        "Whether a device has loaded its models.",
        "device",
        {device["name"]: device["state"] in ("idle", "working") for device in devices},
    )
    memory = {d["name"]: d["memory"] for d in devices if d["memory"] is not None}
    yield _gauges(
        "frescod_device_memory_bytes",
        "Memory that a device's process has held at most.",
        "device",
        memory,
    )
    yield _gauges("frescod_memory_bytes", "Shared memory for windows.", "kind", status["memory"])
    yield _gauges("frescod_cores", "Cores for tasks.", "kind", status["cores"])
    sides = {side["name"]: side for side in status["propagation"]["by"]}
    for counted, about in (
        ("frames", "Frames propagated, by who did it."),
        ("seconds", "Seconds that this took, those of all cores added up."),
    ):
        done = CounterMetricFamily(f"frescod_propagated_{counted}", about, labels=["by"])
        for name, side in sides.items():
            done.add_metric([name], side[counted])
        yield done
    pools = {pool["name"]: pool for pool in status["pools"]}
    for kind, about in (
        ("workers", "Processes there may be."),
        ("busy", "Processes that have a task."),
        ("waiting", "Tasks that wait."),
    ):
        counts = {name: pool[kind] for name, pool in pools.items()}
        yield _gauges(f"frescod_pool_{kind}", about, "pool", counts)
    blocked = GaugeMetricFamily(
        "frescod_blocked_seconds", "How long the longest wait lasts.", labels=["who", "cause"]
    )
    longest: dict[tuple[str, str], float] = {}
    for wait in status["blocked"]:
        pair = wait["who"], wait["for"]
        longest[pair] = max(wait["seconds"], longest.get(pair, 0.0))
    for labels, seconds in longest.items():
        blocked.add_metric(labels, seconds)
    yield blocked
    yield GaugeMetricFamily(
        "frescod_inbox_healthy", "Whether the inbox is being watched.", float(inbox_healthy)
    )


def _gauges(name: str, about: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(name, about, labels=[label])
    for value in values:
        family.add_metric([str(value)], float(values[value]))
    return family


def _word(outcome: Outcome) -> str:
    return outcome.name.lower()
