"""Propagation on a GPU: time and memory of synthesis by chains and size, and of whole segments.

    python -m benchmarks.propagation_gpu [--device cuda] [--sides 256,384,512,720,1080]
        [--chains 1,2,4,8,12,24] [--segments 1,2,6,12] [--picture FILE] [--json FILE]

A run is the synthesis of one frame from one key frame. Chains are painted together; time and memory
are given for each. Bounds, at 512 x 512: 20 ms a run with 12 chains, 100 ms with one. The floor is
what the patch distances of a run need at least, with all else for nothing: they are counted in the
plain twin, which takes the same decisions, at the smallest side. Segments have six frames, both key
frames included, and are timed from arrays to arrays; once more with waiting after each stage, for
the split.
"""

import argparse
import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.propagation_picture import Scene
from benchmarks.propagation_segment import stylise
from fresco_core.flow.inverse_search import InverseSearch
from fresco_core.propagation import PropagationOptions
from fresco_core.propagation.gpu import Segment, chains, footprint, paint_segments, segments, twin
from fresco_core.propagation.gpu.batch_painter import BatchPainter
from fresco_core.propagation.gpu.guides import edges
from fresco_core.propagation.positions import positions

SIDES, CHAINS, SEGMENTS = "256,384,512,720,1080", "1,2,4,8,12,24", "1,2,6,12"
BOUNDS = {12: 20.0, 1: 100.0}
"""Milliseconds a run at 512 x 512, by chains."""
USUAL = 512
REPEATS, FRAMES, MOVE, SCENES = 2, 6, 8, 2
AT_ONCE = 6
"""Segments painted together at the other sides."""
OPTIONS = PropagationOptions()
CLOCK, LANES, LOADED = 1.8e9, 64, 128
"""Of a streaming multiprocessor: a usual clock, whole-number operations and bytes loaded a tick."""
STEPS_A_WORD = 2
"""Instructions for four channels of a pixel: differences, and sums of their squares."""
STAGES = {
    "upload": [(segments.Block, "of")],
    "guides": [(chains, "carry"), (chains, "edges")],
    "synthesis": [(BatchPainter, "__init__"), (BatchPainter, "paint")],
    "merging": [(segments, "merge")],
}


@cache
def segment(number: int, side: int) -> Segment:
    """Discs that move: frames, stylised key frames and flows."""
    scene = Scene("scene" + number * "s", 0)
    frames = [scene.frame(MOVE * t * side / 256 / (FRAMES - 1), side) for t in range(FRAMES)]
    frames_THWC = np.stack(frames)
    if side > USUAL:  # the search would take most of the time
        usual = segment(number, USUAL)
        forward, backward = (
            enlarged(flows, side) for flows in (usual.forward_flows, usual.backward_flows)
        )
    else:
        search = InverseSearch()(frames_THWC[:-1], frames_THWC[1:])
        forward, backward = map(np.ascontiguousarray, search)
    return Segment(frames_THWC, stylise(frames[0]), stylise(frames[-1]), forward, backward)


def enlarged(flows: np.ndarray, side: int) -> np.ndarray:
    larger = functional.interpolate(torch.from_numpy(flows), (side, side), mode="bilinear")
    return larger.mul_(side / flows.shape[-1]).numpy()


@cache
def before(number: int, side: int) -> np.ndarray:
    """As the second frame might have been painted: the temporal guide."""
    return stylise(segment(number, side).frames_THWC[1])


class Runs:
    """Synthesis of the second frames of so many chains."""

    def __init__(self, count: int, side: int, device: torch.device, engine: Any = None) -> None:
        given = [segment(i % SCENES, side) for i in range(count)]

        def sent(arrays: list[Any]) -> Tensor:
            return torch.from_numpy(np.stack(arrays)).to(device)

        styles = sent([each.first_key_HWC for each in given])
        sources = sent([each.frames_THWC[0] for each in given])
        frames = sent([each.frames_THWC[1] for each in given])
        place = sent([positions(side, side)] * count)
        temporal = sent([before(i % SCENES, side) for i in range(count)])
        weights = [OPTIONS.colour, OPTIONS.edge, OPTIONS.temporal, OPTIONS.positional]
        self._targets = [frames, edges(frames), temporal, place]
        self._painter = BatchPainter(
            styles, [sources, edges(sources), styles, place], weights, engine=engine
        )

    def __call__(self) -> None:
        self._painter.paint(self._targets, OPTIONS.device_effort, OPTIONS.seed)


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(function: Callable[[], Any], device: torch.device) -> float:
    """The least of some times, of what has run before."""
    taken = []
    for _ in range(REPEATS):
        wait(device)
        start = time.perf_counter()
        function()
        wait(device)
        taken.append(time.perf_counter() - start)
    return min(taken)


def peak(function: Callable[[], Any], device: torch.device) -> int:
    """Bytes of the device taken at most beside what is there already."""
    if device.type != "cuda":
        function()
        return 0
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    function()
    return torch.cuda.max_memory_allocated(device) - before


def measure_runs(count: int, side: int, device: torch.device) -> dict[str, float]:
    """Milliseconds a run, and bytes a pixel of a chain."""
    taken = peak(lambda: Runs(count, side, device)(), device)
    time_of_all = seconds(Runs(count, side, device), device)
    return {
        "chains": count,
        "side": side,
        "ms": 1000 * time_of_all / count,
        "bytes_a_pixel": taken / (count * side**2),
    }


@cache
def distances(side: int, device: torch.device) -> int:
    """How many patch distances a run needs."""
    counted = 0
    measure = twin._Costs.of

    def count(costs: Any, places: Tensor, entries: Tensor) -> Tensor:
        nonlocal counted
        counted += len(places) if len(places) <= twin.AT_ONCE else 0  # more come in parts
        return measure(costs, places, entries)

    with patch.object(twin._Costs, "of", count):
        Runs(1, side, device, twin)()
    return counted


def floor_of_run(side: int, counted_at: int, device: torch.device) -> dict[str, float]:
    """What the patch distances of a run need: operations, bytes from caches, and how long."""
    counted = distances(counted_at, device) * (side / counted_at) ** 2
    words = OPTIONS.patch**2 * 4
    operations, loaded = counted * words * STEPS_A_WORD, counted * words * 4 * 2
    figures = {"distances": counted, "operations": operations, "bytes": loaded, "ms": 0.0}
    if device.type == "cuda":
        units = torch.cuda.get_device_properties(device).multi_processor_count
        ticks = max(operations / LANES, loaded / LOADED) / units
        figures["ms"] = 1000 * ticks / CLOCK
    return figures


@contextmanager
def stopwatch(device: torch.device) -> Iterator[dict[str, float]]:
    """Seconds of every stage, all that it starts on the device included."""
    taken: dict[str, float] = defaultdict(float)

    def timed(stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **named: Any) -> Any:
            wait(device)
            start = time.perf_counter()
            result = function(*arguments, **named)
            wait(device)
            taken[stage] += time.perf_counter() - start
            return result

        return run

    with ExitStack() as stack:
        for stage, places in STAGES.items():
            for place, name in places:
                stack.enter_context(patch.object(place, name, timed(stage, getattr(place, name))))
        yield taken


def measure_segments(count: int, side: int, device: torch.device) -> dict[str, Any]:
    """Milliseconds a run and a frame between, by stage; memory beside the estimate."""
    given = [segment(i % SCENES, side) for i in range(count)]

    def paint() -> None:
        paint_segments(given, OPTIONS, device)

    taken = peak(paint, device)
    whole = seconds(paint, device)
    with stopwatch(device) as stages:
        paint()
    frames = count * (FRAMES - 2)
    return {
        "segments": count,
        "side": side,
        "ms_a_run": 1000 * whole / (2 * frames),
        "ms_a_frame": 1000 * whole / frames,
        "stages_ms_a_run": {stage: 500 * stages[stage] / frames for stage in STAGES},
        "peak": taken,
        "estimated": footprint.of_batch(given) - footprint.TABLES,  # these are there already
    }


def draw(runs: list[dict[str, float]], floors: dict[int, dict[str, float]], file: Path) -> None:
    """Time a run by number of chains, time and memory by size."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 4), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    most = max(run["chains"] for run in runs)
    for side in sorted(floors):
        of_side = [run for run in runs if run["side"] == side]
        left.plot([r["chains"] for r in of_side], [r["ms"] for r in of_side], "o-", label=f"{side}")
    left.set(xlabel="chains at once", ylabel="ms a run", yscale="log")
    left.legend(title="side", fontsize=8)
    full = [run for run in runs if run["chains"] == most]
    pixels = [run["side"] ** 2 / 1e6 for run in full]
    middle.plot(pixels, [run["ms"] for run in full], "o-", label=f"{most:.0f} chains")
    middle.plot(pixels, [floors[int(run["side"])]["ms"] for run in full], "--", label="floor")
    middle.set(xlabel="megapixels", ylabel="ms a run", ylim=0)
    middle.legend()
    memory = [run["bytes_a_pixel"] * run["side"] ** 2 / 2**20 for run in full]
    right.plot(pixels, memory, "o-")
    right.set(xlabel="megapixels", ylabel="MiB a chain", ylim=0)
    figure.savefig(file, dpi=90)


def table(figures: dict[str, Any]) -> list[str]:
    """Markdown: ms a run by side and chains with the floor, then segments."""
    runs, floors = figures["runs"], figures["floors"]
    counts = sorted({run["chains"] for run in runs})
    lines = [
        f"| ms a run | {' | '.join(f'{count} chains' for count in counts)} "
        "| floor | distances a pixel | MiB a chain |",
        f"| --- | {'--- | ' * len(counts)}--- | --- | --- |",
    ]
    for side, floor in floors.items():
        of_side = {run["chains"]: run for run in runs if run["side"] == side}
        cells = " | ".join(f"{of_side[count]['ms']:.1f}" for count in counts)
        memory = of_side[counts[-1]]["bytes_a_pixel"] * side**2 / 2**20
        lines.append(
            f"| {side} x {side} | {cells} | {floor['ms']:.2f} "
            f"| {floor['distances'] / side**2:.0f} | {memory:.0f} |"
        )
    lines += [
        "",
        f"| segments of {FRAMES} frames | ms a run | ms a frame | {' | '.join(STAGES)} (ms a run) "
        "| MiB | MiB estimated |",
        f"| --- | --- | --- | {'--- | ' * len(STAGES)}--- | --- |",
    ]
    for row in figures["segments"]:
        stages = " | ".join(f"{row['stages_ms_a_run'][stage]:.2f}" for stage in STAGES)
        lines.append(
            f"| {row['segments']} of {row['side']} x {row['side']} | {row['ms_a_run']:.2f} "
            f"| {row['ms_a_frame']:.1f} | {stages} | {row['peak'] / 2**20:.0f} "
            f"| {row['estimated'] / 2**20:.0f} |"
        )
    return lines


def missed(runs: list[dict[str, float]]) -> list[str]:
    """The bounds that are missed, in words."""
    return [
        f"{run['chains']} chains: {run['ms']:.1f} ms > {BOUNDS[int(run['chains'])]:.0f} ms a run"
        for run in runs
        if run["side"] == USUAL and run["ms"] > BOUNDS.get(int(run["chains"]), float("inf"))
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--sides", default=SIDES)
    parser.add_argument("--chains", default=CHAINS)
    parser.add_argument("--segments", default=SEGMENTS, help=f"at once, of side {USUAL}")
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    sides, counts, at_once = (
        [int(number) for number in given.split(",")]
        for given in (arguments.sides, arguments.chains, arguments.segments)
    )
    usual = USUAL if USUAL in sides else sides[0]
    paint_segments([segment(0, sides[0])], OPTIONS, device)  # kernels, tables
    figures: dict[str, Any] = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "runs": [measure_runs(count, side, device) for side in sides for count in counts],
        "floors": {side: floor_of_run(side, min(sides), device) for side in sides},
        "segments": [measure_segments(count, usual, device) for count in at_once]
        + [measure_segments(AT_ONCE, side, device) for side in sides if side != usual],
    }
    print(figures["device"])
    print("\n".join(table(figures)))
    if arguments.picture:
        draw(figures["runs"], figures["floors"], arguments.picture)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")
    words = missed(figures["runs"])
    if words:
        sys.exit("\n".join(words))


if __name__ == "__main__":
    main()
