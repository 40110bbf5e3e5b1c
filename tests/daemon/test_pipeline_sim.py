"""The scheduler's benchmark: that it runs, and what it reads from spans. Its bounds are its own."""

import asyncio
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import pipeline_sim, simulated_sides, simulation
from benchmarks.pipeline_sim import Table
from benchmarks.simulated import Durations, plan_clip, write_clip
from benchmarks.simulation import allocated, frames_of, saturated, share
from daemon.timeline import Timeline
from io_pipeline.blocks import Block, Layout


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Two GPUs and ten cores; what the benchmark's options would be."""
    for module in (pipeline_sim, simulation):
        monkeypatch.setattr(module, "GPUS", 2)
        monkeypatch.setattr(module, "HOST", 12)
    return SimpleNamespace(scale=0.001, run=0.29, size=0.8, cores=12)


def test_all_that_devices_are_asked(
    small: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asyncio.run(pipeline_sim.devices(Table(), tmp_path, small))
    told = capsys.readouterr().out
    assert "GPUs busy, first to last translation" in told
    assert "through sockets, a window" in told
    assert "fixed split" in told


def test_who_propagates_is_asked(
    small: SimpleNamespace,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    house = simulated_sides.House(1, 4, 4, (1,))
    monkeypatch.setattr(simulated_sides, "houses", lambda cores, size: [house])
    small.scale = 0.01
    asyncio.run(simulated_sides.sides(Table(), tmp_path, small))
    told = capsys.readouterr().out
    assert "1 GPU, 4 cores, a clip of one window" in told
    of_side = {line.split(" | ")[0]: line for line in told.splitlines()}
    assert "; 0% of the frames by GPUs" in of_side["| cpu"]
    assert "; 100% of the frames by GPUs" in of_side["| gpu"]
    assert "; 100% of the frames by GPUs" in of_side["| auto"]


def test_a_clip_of_so_many_windows(tmp_path: Path) -> None:
    for count in (1, 2, 7):
        write_clip(tmp_path / "clip.sim", frames_of(count))
        assert len(plan_clip(tmp_path / "clip.sim", 8).batches) == count


def test_faster_cores_leave_devices_as_they_are() -> None:
    faster = Durations().on_faster_cores(2)
    assert faster.run == Durations().run / 2
    assert faster.key_frame == Durations().key_frame


def test_shares_and_saturation() -> None:
    now = iter([0.0, 1.0, 2.0, 5.0, 6.0, 6.0])
    timeline = Timeline(lambda: next(now))
    one, two = (timeline.track(name, "cpu") for name in ("cpu 1", "cpu 2"))
    first = timeline.begin(one, "propagate", "clip")  # at 1
    second = timeline.begin(two, "propagate", "clip")  # at 2
    timeline.end(first)  # at 5
    timeline.end(second)  # at 6
    spans = timeline.spans()
    work = spans.of("cpu", work=True)
    assert share(spans, work, 2, 1, 6) == pytest.approx(0.8)
    assert saturated(spans, work, 2)[0] == 2
    assert saturated(spans, work, 3) == (0.0, 0.0)


def test_blocks_are_counted_by_what_they_take() -> None:
    before = allocated([os.getpid()])
    with Block.create(Layout.of(frames=((1 << 20,), "u1"))) as block:
        assert allocated([os.getpid()]) == before
        block.allocate()
        assert allocated([os.getpid()]) == before + (1 << 20)
        copy = os.dup(block.descriptor)
        assert allocated([os.getpid()]) == before + (1 << 20)
        os.close(copy)
