import time
from typing import Any

import prometheus_client
import pytest
from prometheus_client.parser import text_string_to_metric_families

from daemon.jobs import JobState, Outcome
from daemon.metrics import Metrics
from tests.conftest import ROOT
from tests.daemon.control_rig import status

Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]


DEATHS = {"reader": 0, "pool": 3, "device": 0}


def read(text: str) -> Series:
    """Values by names and labels; a series that is there twice is an error."""
    values: Series = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = sample.name, tuple(sorted(sample.labels.items()))
            assert key not in values, key
            values[key] = sample.value
    return values


def value(text: str, name: str, **labels: str) -> float:
    return read(text)[name, tuple(sorted(labels.items()))]


class TestNow:
    def test_is_what_the_status_says(self) -> None:
        text = Metrics().text(status(), {"cuda:0": 7.5, "pool-0": 9.0}, {})
        assert value(text, "frescod_jobs", state="queued") == 120
        assert value(text, "frescod_jobs", state="cancelled") == 0
        assert value(text, "frescod_device_up", device="cuda:0") == 1
        assert value(text, "frescod_device_up", device="cuda:2") == 0
        assert value(text, "frescod_device_busy_seconds_total", device="cuda:0") == 7.5
        assert value(text, "frescod_device_busy_seconds_total", device="cuda:1") == 0
        assert value(text, "frescod_device_memory_bytes", device="cuda:0") == 13 * 2**30
        assert value(text, "frescod_memory_bytes", kind="total") == 4 * 2**30
        assert value(text, "frescod_cores", kind="used") == 30
        assert value(text, "frescod_pool_waiting", pool="pool") == 5
        assert value(text, "frescod_propagated_frames_total", by="gpu") == 300
        assert value(text, "frescod_propagated_seconds_total", by="cpu") == 156
        assert value(text, "frescod_inbox_healthy") == 1
        assert value(text, "process_open_fds") > 2
        assert value(text, "process_resident_memory_bytes") > 1e6
        assert "pool-0" not in text

    def test_is_another_at_the_next_scrape(self) -> None:
        metrics = Metrics()
        metrics.text(status(), {}, DEATHS)
        text = metrics.text(
            status(memory={"used": 5, "total": 6}), {"cuda:0": 9.0}, DEATHS, inbox_healthy=False
        )
        assert value(text, "frescod_memory_bytes", kind="used") == 5
        assert value(text, "frescod_device_busy_seconds_total", device="cuda:0") == 9
        assert value(text, "frescod_inbox_healthy") == 0

    def test_of_many_waits_the_longest(self) -> None:
        waits = [
            {"who": "clip", "for": "memory", "clip": f"{number}.mp4", "seconds": number}
            for number in (3, 50, 7)
        ]
        text = Metrics().text(status(blocked=waits), {}, {})
        assert value(text, "frescod_blocked_seconds", who="clip", cause="memory") == 50
        assert ".mp4" not in text


class TestEvents:
    def test_are_counted(self) -> None:
        metrics = Metrics()
        metrics.job_ended(Outcome.DONE)
        metrics.job_ended(Outcome.DONE)
        metrics.job_ended(Outcome.ALREADY_DONE)
        metrics.window_done(7, 70, {"translate": 25.0, "propagate": 400.0})
        metrics.window_done(3, 30, {"translate": 35.0})
        text = metrics.text(status(), {}, DEATHS)
        assert value(text, "frescod_jobs_total", outcome="done") == 2
        assert value(text, "frescod_jobs_total", outcome="already_done") == 1
        assert value(text, "frescod_windows_total") == 2
        assert value(text, "frescod_key_frames_total") == 10
        assert value(text, "frescod_frames_total") == 100
        assert value(text, "frescod_worker_deaths_total", kind="pool") == 3
        assert value(text, "frescod_window_seconds_bucket", stage="translate", le="30.0") == 1
        assert value(text, "frescod_window_seconds_bucket", stage="translate", le="60.0") == 2
        assert value(text, "frescod_window_seconds_sum", stage="propagate") == 400

    def test_series_are_there_before_anything_happens(self) -> None:
        text = Metrics().text(status(), {}, DEATHS)
        for outcome in Outcome:
            assert value(text, "frescod_jobs_total", outcome=outcome.name.lower()) == 0
        for kind in ("reader", "pool", "device"):
            assert value(text, "frescod_worker_deaths_total", kind=kind) == DEATHS[kind]
        assert value(text, "frescod_window_seconds_count", stage="publish") == 0

    def test_two_of_them_have_nothing_in_common(self) -> None:
        one, two = Metrics(), Metrics()
        one.job_ended(Outcome.DONE)
        assert value(two.text(status(), {}, DEATHS), "frescod_jobs_total", outcome="done") == 0
        assert b"frescod" not in prometheus_client.generate_latest()


class TestBounds:
    def test_ten_thousand_jobs_make_no_more_series(self) -> None:
        metrics = Metrics()
        few = read(metrics.text(status(), {}, DEATHS))
        outcomes: list[Any] = list(Outcome)
        for number in range(10_000):
            metrics.job_ended(outcomes[number % len(outcomes)])
            metrics.window_done(7, 70, {"translate": number / 10, f"made up {number}": 1.0})
        many = status(
            jobs={str(state): 10_000 for state in JobState},
            blocked=[
                {"who": "clip", "for": "memory", "clip": f"{number}", "seconds": number}
                for number in range(10_000)
            ],
        )
        rounds = []
        for _ in range(5):
            begin = time.thread_time()
            text = metrics.text(many, {f"pool-{number}": 1.0 for number in range(64)}, DEATHS)
            rounds.append(time.thread_time() - begin)
        assert min(rounds) < 0.1
        assert len(read(text)) <= len(few) + 2
        assert value(text, "frescod_blocked_seconds", who="clip", cause="memory") == 9999

    @pytest.mark.parametrize(
        "line", ["# TYPE frescod_jobs_total counter", "# TYPE frescod_jobs gauge"]
    )
    def test_types_are_told(self, line: str) -> None:
        assert line in Metrics().text(status(), {}, DEATHS).splitlines()

    def test_the_table_of_figures_is_true(self) -> None:
        """``python -m tests.daemon.test_metrics`` prints it."""
        assert figures_table() in (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")

    def test_times_of_creation_are_left_out(self) -> None:
        assert "_created" not in Metrics().text(status(), {}, DEATHS)


def figures_table() -> str:
    """Every figure of ours with its labels and what it is."""
    rows = []
    text = Metrics().text(status(), {}, DEATHS)
    for family in text_string_to_metric_families(text):
        if family.name.startswith("frescod_"):
            labels = sorted({name for sample in family.samples for name in sample.labels} - {"le"})
            name = family.name + "_total" * (family.type == "counter")
            about = ", ".join(f"`{label}`" for label in labels)
            rows.append(f"| `{name}` | {family.type} | {about} | {family.documentation} |")
    return "\n".join(["| figure | type | labels | what |", "| --- | --- | --- | --- |", *rows])


if __name__ == "__main__":
    print(figures_table())
