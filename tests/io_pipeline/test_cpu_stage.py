"""Tasks of the CPU pool: each does its part of a block, and loads only what it needs."""

import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from fresco_core.keyframes import Batch
from fresco_core.propagation import PropagationOptions
from io_pipeline import checkpoint, cpu_stage, publish
from io_pipeline.cpu_stage import CpuStage, CpuTasks
from io_pipeline.match import Match
from io_pipeline.options import MapOptions
from io_pipeline.propagate import Propagate
from io_pipeline.tasks import (
    CompilePropagation,
    DrawMap,
    LoadCheckpoint,
    MatchPair,
    PropagateSegment,
    PublishClip,
    PublishWindow,
    SaveCheckpoint,
    SearchFlows,
    Translated,
)
from io_pipeline.window import BY_CPU, BY_DEVICE
from tests.io_pipeline.windows import Reports, clip, cut_clip, read

QUICK = PropagationOptions(votes=2, sweeps=1)
FRAMES = clip(6)


@pytest.fixture
def tasks(monkeypatch: pytest.MonkeyPatch) -> CpuTasks:
    monkeypatch.setattr(cv2, "setNumThreads", lambda count: None)  # of this process, not a worker's
    return pickle.loads(pickle.dumps(CpuStage({"kinds": ("canny",)}))).load(Reports())


def test_draws_one_map(tasks: CpuTasks) -> None:
    (window,) = cut_clip((0, 2, 5), 5)
    block, reports = read(window, FRAMES), Reports()
    assert tasks(DrawMap(window, 1, MapOptions(10, 20)), (block,), reports) is None
    assert np.array_equal(block["controls"][BY_CPU, 1], cv2.Canny(FRAMES[2], 10, 20)[None])
    assert not block["controls"][BY_CPU, ::2].any()
    assert not block["controls"][BY_DEVICE].any()
    assert ("map", 0, 1) in reports


def test_leaves_maps_that_came_with_the_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "setNumThreads", lambda count: None)
    tasks = CpuStage({"kinds": ("canny", "depth", "canny"), "sources": ("",)}).load(Reports())
    (window,) = cut_clip((0, 2, 5), 5, controls=3)
    window = replace(window, given=(1,))
    block = read(window, FRAMES)
    block["controls"][:, :, 1] = 7
    tasks(DrawMap(window, 2, MapOptions()), (block,), Reports())
    edges = cv2.Canny(FRAMES[5], 50, 100)
    assert np.array_equal(block["controls"][BY_CPU, 2], np.stack([edges, edges * 0 + 7, edges]))
    assert not block["controls"][BY_CPU, :2, ::2].any()


def test_matches_a_pair(tasks: CpuTasks) -> None:
    (window,) = cut_clip((0, 2, 5), 5, matched=True)
    blocks, reports = [read(window, FRAMES) for _ in range(2)], Reports()
    assert tasks(MatchPair(window, 1), (blocks[0],), reports) is None
    Match()(window, 1, blocks[1])
    assert blocks[0]["ring_flows"].any()
    for name in ("ring_flows", "salient"):
        assert np.array_equal(blocks[0][name], blocks[1][name])
    assert reports == [("match", 0, 1)]


def test_compiles_ahead_what_propagates(tasks: CpuTasks, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    monkeypatch.setattr(cpu_stage, "compile_ahead", made.append)
    tasks(CompilePropagation(QUICK), (), Reports())
    assert made == [QUICK]


def test_propagates_a_segment(tasks: CpuTasks) -> None:
    (window,) = cut_clip((0, 2, 5), 5)
    blocks = [read(window, FRAMES) for _ in range(2)]
    for block in blocks:
        block["keys"][1:] = 255 - FRAMES[[0, 2, 5]]
    tasks(PropagateSegment(window, 1, QUICK), (blocks[0],), Reports())
    Propagate()(window, 1, QUICK, blocks[1], Reports())
    assert blocks[0]["results"].any()
    assert np.array_equal(blocks[0]["results"], blocks[1]["results"])


def test_searches_flows_of_a_segment(tasks: CpuTasks) -> None:
    (window,) = cut_clip((0, 2, 5), 5, flows=True)
    block = read(window, FRAMES)
    tasks(SearchFlows(window, 1), (block,), Reports())
    assert block["flows"][:, 2:].any(axis=(2, 3, 4)).all()
    assert not block["flows"][:, :2].any()


def test_saves_and_loads_a_checkpoint(tasks: CpuTasks, tmp_path: Path) -> None:
    window, *_ = cut_clip((0, 2, 5), 5)
    block = read(window, FRAMES)
    block["keys"][:] = 7
    block["controls"][BY_DEVICE] = 9
    checkpoint.path(tmp_path, 0).parent.mkdir(parents=True)
    saved = Translated((Batch((0, 2, 5)),), ("a", "b"), ("beware",))
    maps = (BY_DEVICE,) * 3
    tasks(SaveCheckpoint(tmp_path, window, saved, maps), (block,), Reports())
    other = read(window, FRAMES)
    reports = Reports()
    assert tasks(LoadCheckpoint(tmp_path, window), (other,), reports) == saved
    assert (other["keys"] == 7).all()
    assert (other["controls"][BY_CPU] == 9).all()
    assert reports == [("publish", 0, 1)]


def test_publishes(tasks: CpuTasks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    monkeypatch.setattr(publish, "publish_window", lambda *arguments: told.append(arguments))
    monkeypatch.setattr(publish, "publish_clip", lambda *arguments: ("slow",))
    (window,) = cut_clip((0, 2, 5), 5)
    block = read(window, FRAMES)
    encoding: Any = SimpleNamespace(blend=object(), comparison=None)
    reports = Reports()
    task = PublishWindow(tmp_path, window, (BY_CPU,) * 3, encoding, (Batch((0, 2, 5)),))
    assert tasks(task, (block,), reports) is None
    (arguments,) = told
    assert arguments[:-1] == (tmp_path, window, (BY_CPU,) * 3, encoding, block, task.batches)
    plan: Any = SimpleNamespace(info=SimpleNamespace(frame_count=6))
    assert tasks(PublishClip(tmp_path, "a", plan, encoding, {}), (), reports) == ("slow",)
    assert reports == [("publish", 0, 6), ("publish", 0, 12)]


def test_other_tasks_are_refused(tasks: CpuTasks) -> None:
    with pytest.raises(TypeError, match="no task of the CPU pool: int"):
        tasks(1, (), Reports())


def test_loads_only_what_is_needed() -> None:
    """Of what is heavy, drawing canny maps, matching and publishing need nothing."""
    program = """
import sys
from io_pipeline.cpu_stage import CpuStage
from io_pipeline.options import MapOptions
from io_pipeline.tasks import DrawMap, MatchPair
from io_pipeline.blocks import Block
from io_pipeline.window import Window
from io_pipeline import publish, checkpoint
import numpy as np
tasks = CpuStage({"kinds": ("canny",)}).load(lambda *_: None)
window = Window(0, 1, 0, (0, 1), 64, 64, 1, 1, False, matched=True, salient=True)
block = Block.create(window.layout())
tasks(DrawMap(window, 0, MapOptions()), (block,), lambda *_: None)
tasks(MatchPair(window, 0), (block,), lambda *_: None)
assert not {"torch", "numba", "scipy"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True)
