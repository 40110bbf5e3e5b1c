"""Who worked when: recorded, told, traced and drawn."""

import json
import subprocess
import sys
import time
import tracemalloc
from collections import defaultdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from daemon import timeline as module
from daemon.activity import Wait, Working
from daemon.timeline import Timeline
from daemon.timeline_picture import coverage, draw
from fresco_core.errors import FrescodError


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def timeline(clock: Clock) -> Timeline:
    return Timeline(clock)


def work(
    timeline: Timeline,
    clock: Clock,
    track: int | None,
    begin: float,
    end: float,
    stage: str = "translate",
    *,
    waits: bool = False,
    job: str = "a",
) -> None:
    clock.now = 100.0 + begin
    span = (
        timeline.begin_wait(track, stage, job) if waits else timeline.begin(track or 0, stage, job)
    )
    clock.now = 100.0 + end
    timeline.end(span)


def trace(timeline: Timeline) -> dict[str, Any]:
    return json.loads("".join(timeline.chrome()))


def a_run(timeline: Timeline, clock: Clock) -> None:
    """Two devices, two processors; 10 seconds."""
    one, two = timeline.track("cuda:0", "device"), timeline.track("cuda:1", "device")
    cpus = [timeline.track(f"cpu {i}", "cpu") for i in range(2)]
    reader = timeline.track("reader 1", "reader")
    work(timeline, clock, reader, 0, 1, "prepare")
    work(timeline, clock, one, 1, 9)
    work(timeline, clock, two, 1, 4)
    work(timeline, clock, two, 4, 7, "control maps", waits=True)
    work(timeline, clock, two, 7, 9)
    work(timeline, clock, cpus[0], 4, 8, "propagate")
    work(timeline, clock, None, 2, 4, "memory", waits=True)
    work(timeline, clock, None, 3, 6, "memory", waits=True)
    work(timeline, clock, None, 4, 5, "memory", waits=True)
    work(timeline, clock, cpus[1], 9, 10, "publish")
    clock.now = 101.0
    timeline.counter("shared memory", 2**30)
    clock.now = 110.0
    timeline.counter("shared memory", 0)


def assert_in_order(timeline: Timeline) -> None:
    """Times rise, and no thread does two things at once."""
    events = [event for event in trace(timeline)["traceEvents"] if event["ph"] != "M"]
    times = [event["ts"] for event in events]
    assert times == sorted(times)
    until: dict[tuple[int, int], int] = defaultdict(int)
    for event in events:
        if event["ph"] == "X":
            thread = event["pid"], event["tid"]
            assert event["ts"] >= until[thread]
            until[thread] = event["ts"] + event["dur"]


class TestBusy:
    def test_is_the_share_between_first_and_last_translation(
        self, timeline: Timeline, clock: Clock
    ) -> None:
        a_run(timeline, clock)
        assert timeline.busy("device") == pytest.approx(13 / 16)
        assert timeline.busy("cpu") == pytest.approx(4 / 16)
        assert timeline.busy("cpu", 4, 10) == pytest.approx(5 / 12)
        assert timeline.busy("cpu", 5, 6) == pytest.approx(1 / 2)
        assert timeline.busy("reader") == 0
        assert timeline.busy("reader", 0, 2) == pytest.approx(1 / 2)

    def test_of_nothing(self, timeline: Timeline) -> None:
        assert timeline.busy("device") == 0
        timeline.track("cuda:0", "device")
        assert timeline.busy("device") == 0
        assert timeline.busy("device", 0, 0) == 0

    def test_a_track_that_never_worked_counts(self, timeline: Timeline, clock: Clock) -> None:
        work(timeline, clock, timeline.track("cuda:0", "device"), 0, 4)
        timeline.track("cuda:1", "device")
        assert timeline.busy("device") == pytest.approx(1 / 2)

    def test_what_has_not_ended_counts_until_now(self, timeline: Timeline, clock: Clock) -> None:
        timeline.begin(timeline.track("cuda:0", "device"), "translate", "a")
        clock.now += 4
        assert timeline.busy("device", 0, 8) == pytest.approx(1 / 2)


def test_an_exception_ends_its_span(timeline: Timeline, clock: Clock) -> None:
    track = timeline.track("cpu 1", "cpu")

    def fail() -> None:
        with timeline.span(track, "publish", "a", 3):
            clock.now += 1
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    with timeline.wait(track, "core"):
        clock.now += 1
    clock.now += 1
    assert timeline.spans().end.tolist() == [1, 2]


class TestTrace:
    def test_has_every_field_of_the_format(self, timeline: Timeline, clock: Clock) -> None:
        a_run(timeline, clock)
        events = trace(timeline)["traceEvents"]
        kinds: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for event in events:
            assert isinstance(event["pid"], int)
            assert isinstance(event["tid"], int)
            kinds[event["ph"]].append(event)
        assert set(kinds) == {"M", "X", "C"}
        processes = {e["args"]["name"]: e["pid"] for e in kinds["M"] if e["name"] == "process_name"}
        assert list(processes) == ["device", "cpu", "reader", "waits", "counters"]
        assert len(set(processes.values())) == len(processes)
        threads = {
            (e["pid"], e["tid"]): e["args"]["name"]
            for e in kinds["M"]
            if e["name"] == "thread_name"
        }
        assert threads[processes["device"], 1] == "cuda:1"
        assert len(kinds["X"]) == 10
        for event in kinds["X"]:
            assert (event["pid"], event["tid"]) in threads
            assert event["args"]["job"] == "a"
            assert event["dur"] >= 0
        first = kinds["X"][0]
        assert (first["name"], first["ts"], first["dur"]) == ("prepare", 0, 1_000_000)
        assert [e["args"]["value"] for e in kinds["C"]] == [2**30, 0]

    def test_times_rise_and_no_thread_does_two_things_at_once(
        self, timeline: Timeline, clock: Clock
    ) -> None:
        a_run(timeline, clock)
        assert_in_order(timeline)

    def test_names_are_quoted(self, timeline: Timeline) -> None:
        track = timeline.track('odd "name"\n', "device")
        with timeline.span(track, "translate", 'a "clip"\udcff\n', 2):
            pass
        event = trace(timeline)["traceEvents"][-1]
        assert event["args"] == {"job": 'a "clip"\udcff\n', "window": 2}

    def test_of_nothing(self, timeline: Timeline) -> None:
        assert all(event["ph"] == "M" for event in trace(timeline)["traceEvents"])


class TestBounds:
    def test_a_span_is_cheap(self) -> None:
        timeline = Timeline()
        track = timeline.track("cuda:0", "device")
        rounds = []
        for _ in range(5):
            begin = time.thread_time()
            for _ in range(2000):
                with timeline.span(track, "translate", "a", 1):
                    pass
            rounds.append((time.thread_time() - begin) / 2000)
        assert min(rounds) < 20e-6

    def test_a_million_spans_take_less_than_100_mb(self) -> None:
        timeline = Timeline()
        tracks = [timeline.track(f"cpu {i}", "cpu") for i in range(4)]
        tracemalloc.start()
        for number in range(100_000):
            timeline.end(timeline.begin(tracks[number % 4], "propagate", "a", number % 50))
        used, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert used < 10e6

    def test_later_spans_are_added_up(
        self, timeline: Timeline, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "MAX_SPANS", 10)
        device, cpu = timeline.track("cuda:0", "device"), timeline.track("cpu 1", "cpu")
        for second in range(0, 400, 2):
            clock.now = 100.0 + second
            span, wait = timeline.begin(device, "translate", "a"), timeline.begin_wait(None, "core")
            other = timeline.begin(cpu, "publish" if second % 4 else "propagate", "a")
            clock.now += 1
            for each in (span, wait, other):
                timeline.end(each)
        spans = timeline.spans()
        assert len(spans.begin) < 10 + 3 * (400 / 60 + 2)
        assert timeline.busy("device", 0, 400) == pytest.approx(1 / 2)
        assert timeline.busy("cpu", 0, 400) == pytest.approx(1 / 2)
        told = trace(timeline)["otherData"]
        assert told["summed_up_spans"] + told["left_out_waits"] == 600 - 10
        assert told["left_out_waits"] in (200 - 4, 200 - 3)
        assert_in_order(timeline)

    def test_values_are_thinned_but_the_peak_is_kept(
        self, timeline: Timeline, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "MAX_VALUES", 100)
        for number in range(1000):
            timeline.counter("memory", 7e9 if number == 500 else number)
        (times, values) = timeline.counters()["memory"]
        assert len(times) == len(values) <= 100
        assert values[-1] == 999
        assert timeline.peak("memory") == 7e9
        assert timeline.peak("none") == 0

    def test_jobs_without_end_are_nameless_at_last(
        self, timeline: Timeline, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "MAX_JOBS", 3)
        track = timeline.track("cuda:0", "device")
        for number in range(5):
            work(timeline, clock, track, number, number + 1, job=f"job {number}")
        span = timeline.begin(track, "translate", "job 9")
        assert timeline.working()["cuda:0"].job == "job 9"
        timeline.end(span)
        spans = timeline.spans()
        assert [spans.jobs[job] for job in spans.job] == ["job 0", "job 1", "", "", "", ""]

    def test_rows_without_end_are_left_out_at_last(
        self, timeline: Timeline, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "MAX_SPANS", 2)
        monkeypatch.setattr(module, "MAX_ROWS", 5)
        track = timeline.track("cuda:0", "device")
        for second in range(0, 2000, 2):
            work(timeline, clock, track, second, second + 1)
        assert len(timeline.spans().begin) == 5
        assert timeline.busy_seconds() == {"cuda:0": 1000}

    @pytest.mark.parametrize(("keep", "objects"), [(False, 500), (True, 3 * module.MAX_JOBS)])
    def test_months_of_jobs_take_no_memory(self, keep: bool, objects: int) -> None:
        timeline = Timeline(keep=keep)
        device, cpu = timeline.track("cuda:0", "device"), timeline.track("pool-0", "cpu")
        before = sys.getallocatedblocks()
        for number in range(200_000):
            job = f"clip {number}"
            timeline.end(timeline.begin(device, "translate", job, 1))
            if number % 100 == 0:
                timeline.end(timeline.begin(cpu, "propagate", job, 1))
                timeline.end(timeline.begin_wait(None, "disk", job))
                timeline.counter("shared memory", number)
        assert sys.getallocatedblocks() - before < objects
        assert timeline.peak("shared memory") == 199_900
        assert timeline.busy_seconds()["cuda:0"] > 0


class TestNow:
    def test_who_works_on_what(self, timeline: Timeline, clock: Clock) -> None:
        one, two = timeline.track("cuda:0", "device"), timeline.track("pool-0", "cpu")
        assert timeline.working() == {}
        span = timeline.begin(one, "translate", "a", 3)
        clock.now += 2
        timeline.begin(two, "propagate", "b")
        timeline.begin_wait(one, "core", "a")
        clock.now += 1
        assert timeline.working() == {
            "cuda:0": Working("translate", "a", 3, 3.0),
            "pool-0": Working("propagate", "b", None, 1.0),
        }
        timeline.end(span)
        assert set(timeline.working()) == {"pool-0"}

    def test_who_waits_for_what_the_longest_first(self, timeline: Timeline, clock: Clock) -> None:
        track = timeline.track("cuda:0", "device")
        timeline.begin(track, "translate", "a")
        with timeline.wait(None, "memory", "b"):
            clock.now += 5
            with timeline.wait(track, "frames", "a"):
                clock.now += 1
                assert timeline.waits() == [
                    Wait("", "memory", "b", 6.0),
                    Wait("cuda:0", "frames", "a", 1.0),
                ]
        assert timeline.waits() == []

    def test_busy_lately_and_in_all(self, timeline: Timeline, clock: Clock) -> None:
        track = timeline.track("cuda:0", "device")
        timeline.track("cuda:1", "device")
        work(timeline, clock, track, 0, 100)
        work(timeline, clock, track, 300, 400, "frames", waits=True)
        clock.now = 100.0 + 450
        timeline.begin(track, "translate", "a")
        clock.now = 100.0 + 500
        assert timeline.busy_seconds() == {"cuda:0": 150, "cuda:1": 0}
        assert timeline.busy_seconds(300) == {"cuda:0": 50, "cuda:1": 0}
        clock.now = 100.0 + 1500
        assert timeline.busy_seconds(300)["cuda:0"] == 300

    def test_telling_does_not_look_at_what_was(self) -> None:
        timeline = Timeline()
        track = timeline.track("cuda:0", "device")
        for _ in range(50_000):
            timeline.end(timeline.begin(track, "translate", "a", 1))
        rounds = []
        for _ in range(5):
            begin = time.thread_time()
            timeline.working(), timeline.waits(), timeline.busy_seconds(300)
            rounds.append(time.thread_time() - begin)
        assert min(rounds) < 1e-3


class TestSummary:
    def test_what_devices_waited_for(self, timeline: Timeline, clock: Clock) -> None:
        a_run(timeline, clock)
        assert timeline.summary() == [
            "from first to last translation GPUs worked 81 % of the time "
            "(cuda:0 100 %, cuda:1 62 %)",
            "GPUs waited 19 % of the time, 19 % for control maps: "
            'more cores or control.device = "gpu" would help',
            "the CPU pool was busy 25 % meanwhile",
            "work went on for 1 s after the last translation",
        ]

    def test_cores_that_went_on_together(self, timeline: Timeline, clock: Clock) -> None:
        work(timeline, clock, timeline.track("cuda:0", "device"), 0, 5)
        for number in range(2):
            work(timeline, clock, timeline.track(f"cpu-{number}", "cpu"), 4, 9, "propagate")
        assert timeline.summary()[-1] == (
            "work went on for 4 s after the last translation: more cores would help"
        )

    def test_busy_devices_and_a_busy_pool(self, timeline: Timeline, clock: Clock) -> None:
        work(timeline, clock, timeline.track("cpu", "device"), 0, 10)
        cpu = timeline.track("cpu 1", "cpu")
        work(timeline, clock, cpu, 0, 3, "publish")
        work(timeline, clock, cpu, 3, 10, "propagate")
        assert timeline.summary() == [
            "from first to last translation cpu worked 100 % of the time",
            "cpu held the rest up: more devices would be faster",
            "the CPU pool was busy 100 % meanwhile (propagate 70 %) and held the rest up: "
            "more cores would help",
        ]

    def test_idle_without_a_reason_is_a_lack_of_clips(
        self, timeline: Timeline, clock: Clock
    ) -> None:
        work(timeline, clock, timeline.track("cuda:0", "device"), 0, 10)
        work(timeline, clock, timeline.track("cuda:1", "device"), 0, 5)
        assert "25 % for a clip: at the beginning" in timeline.summary()[1]

    def test_of_nothing(self, timeline: Timeline) -> None:
        assert timeline.summary() == []


class TestFiles:
    def test_trace_and_picture(self, timeline: Timeline, clock: Clock, tmp_path: Path) -> None:
        a_run(timeline, clock)
        timeline.write(tmp_path / "out.json")
        assert json.loads((tmp_path / "out.json").read_text()) == trace(timeline)
        picture = cv2.imread(str(tmp_path / "out.png"))
        assert picture is not None
        assert sorted(path.name for path in tmp_path.iterdir()) == ["out.json", "out.png"]

    def test_colours_say_who_worked(self, timeline: Timeline, clock: Clock, tmp_path: Path) -> None:
        a_run(timeline, clock)
        timeline.write(tmp_path / "out.json")
        picture = cv2.imread(str(tmp_path / "out.png"))[:, :, ::-1].astype(int)
        for colour in ("3d9a5f", "4e79a7", "f2a03d", "d62728"):
            wanted = [int(colour[i : i + 2], 16) for i in (0, 2, 4)]
            assert (np.abs(picture - wanted).max(axis=2) < 4).sum() > 300, colour

    @pytest.mark.parametrize(("devices", "cpus", "readers"), [(8, 128, 20), (1, 1, 1), (0, 0, 0)])
    def test_any_number_of_tracks(
        self, timeline: Timeline, clock: Clock, devices: int, cpus: int, readers: int
    ) -> None:
        for kind, count in {"device": devices, "cpu": cpus, "reader": readers}.items():
            for number in range(count):
                track = timeline.track(f"{kind} {number}", kind)
                work(timeline, clock, track, number / 9, number / 9 + 2, "odd")
        data = draw(timeline.spans(), timeline.counters(), timeline.summary())
        assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).shape[0] < 2000

    def test_where_it_cannot_be_written(self, timeline: Timeline, tmp_path: Path) -> None:
        with pytest.raises(FrescodError, match=r"none/out\.json: cannot be written"):
            timeline.write(tmp_path / "none" / "out.json")


def test_coverage_counts_spans_in_every_bin() -> None:
    begin, end = np.array([0.0, 0.5, 3.0]), np.array([1.0, 2.0, 3.0])
    assert coverage(begin, end, np.arange(5.0)).tolist() == [1.5, 1.0, 0.0, 0.0]
    assert coverage(np.array([]), np.array([]), np.arange(3.0)).tolist() == [0, 0]


def test_recording_loads_neither_torch_nor_what_draws() -> None:
    code = "import daemon.timeline, sys; print('matplotlib' in sys.modules, 'torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout == "False False\n", result.stderr
