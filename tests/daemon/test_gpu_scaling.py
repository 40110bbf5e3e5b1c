"""What the benchmarks of whole runs read from a timeline."""

import json
from pathlib import Path

import pytest

from benchmarks.gpu_scaling import Work, busy
from daemon.timeline import Timeline

SECOND = 1e6  # of a trace


@pytest.fixture
def work(tmp_path: Path) -> Work:
    """Of a run in which a GPU waits, translates and propagates, as a core does."""
    seconds = 0.0
    timeline = Timeline(lambda: seconds)
    gpu = timeline.track("cuda:0", "device")
    core, reader = timeline.track("cpu 0", "cpu"), timeline.track("reader 0", "reader")
    for track, what, begin, end in [
        (reader, "prepare", 0, 2),
        (core, "match", 2, 4),
        (gpu, "translate", 4, 8),
        (core, "propagate", 5, 9),
        (gpu, "propagate", 8, 9),
        (gpu, "translate", 10, 12),
        (core, "publish", 11, 14),
    ]:
        seconds = begin
        span = timeline.begin(track, what, "a")
        seconds = end
        timeline.end(span)
    for waits, begin, end in [(gpu, 0, 4), (core, 4, 5), (None, 0, 20)]:
        seconds = begin
        span = timeline.begin_wait(waits, "memory")
        seconds = end
        timeline.end(span)
    timeline.counter("memory", 5.0)
    path = tmp_path / "timeline.json"
    timeline.write(path)
    return Work.of(json.loads(path.read_text())["traceEvents"])


def test_work_is_told_by_who_does_it(work: Work) -> None:
    assert [span["name"] for span in work.gpus] == ["translate", "propagate", "translate"]
    assert sorted(span["name"] for span in work.cores) == [
        "match",
        "prepare",
        "propagate",
        "publish",
    ]
    assert len(work.by_gpus("propagate")) == 1
    assert work.end == 14 * SECOND


def test_shares_count_what_lies_between_two_times(work: Work) -> None:
    first, last = 3 * SECOND, 13 * SECOND
    assert busy(work.gpus, first, last, 1) == 0.7
    assert busy(work.by_gpus("propagate"), first, last, 1) == 0.1
    assert busy(work.cores, first, last, 2) == (1 + 4 + 2) / 10 / 2
    assert busy(work.cores, 20 * SECOND, 30 * SECOND, 2) == 0
