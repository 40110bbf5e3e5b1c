"""How synthesis scales: processes side by side, size, guide channels, processes that start at once.

    python -m benchmarks.propagation_scaling [--processes 1,2] [--picture FILE] [--json FILE]

n processes paint at once: runs a core second against those of one process alone, median of rounds
(bound: 0.95; what they take from one another are caches and memory. CPU time leaves out that others
use the machine).
Then as many start at once with an empty folder for machine code (bound: one compiles, in 25 core
seconds). Then core seconds of a run by side and by number of guide channels.
"""

import argparse
import json
import logging
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.propagation_picture import Scene
from benchmarks.propagation_segment import stylise
from fresco_core.propagation import PropagationOptions, propagate
from fresco_core.propagation.guides import edges
from fresco_core.propagation.patchmatch import Guide, synthesize
from fresco_core.propagation.positions import positions

EFFICIENCY, COMPILING = 0.95, 25.0
SIDES = (256, 384, 512, 720, 1080)
RUNS, ROUNDS = 10, 5
SCENE = Scene("scaling", 8)


def guides(side: int, count: int = 4) -> tuple[NDArray[np.uint8], list[Guide]]:
    """A style and the first ``count`` of its guides, three channels each."""
    source = SCENE.frame(0, side)
    target = SCENE.frame(SCENE.move * side / 256, side)
    place = positions(side, side)
    pairs = [
        Guide(source, target, 6.0),
        Guide(place, place, 2.0),
        Guide(edges(source), edges(target), 0.5),
        Guide(stylise(source), stylise(target), 0.5),
    ]
    return stylise(source), (pairs * 3)[:count]


def seconds_of_run(side: int, count: int = 4) -> float:
    """Core seconds, the least of three."""
    style, pairs = guides(side, count)
    taken = []
    for _ in range(3):
        start = time.process_time()
        synthesize(style, pairs, effort=PropagationOptions().effort)
        taken.append(time.process_time() - start)
    return min(taken)


def _runs(barrier: Barrier, results: Any) -> None:
    cv2.setNumThreads(1)
    style, pairs = guides(512)
    synthesize(style, pairs, effort=PropagationOptions().effort)
    barrier.wait()
    start = time.process_time()
    for _ in range(RUNS):
        synthesize(style, pairs, effort=PropagationOptions().effort)
    results.put(time.process_time() - start)


def rate(processes: int) -> float:
    """Runs a core second of so many processes at once, their sum."""
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(processes), context.SimpleQueue()
    workers = [context.Process(target=_runs, args=(barrier, results)) for _ in range(processes)]
    for worker in workers:
        worker.start()
    rates = [RUNS / results.get() for _ in workers]
    for worker in workers:
        worker.join()
    return sum(rates)


def _first(barrier: Barrier, results: Any) -> None:
    notices: list[str] = []
    handler = logging.Handler(logging.INFO)
    handler.emit = lambda record: notices.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger().addHandler(handler)
    logging.getLogger().setLevel(logging.INFO)
    cv2.setNumThreads(1)
    frames = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3)).astype(np.uint8)
    flows = np.zeros((2, 2, 32, 32), np.float32)
    barrier.wait()
    start, cpu = time.perf_counter(), time.process_time()
    propagate(frames, frames[0], frames[-1], flows, flows)
    results.put((time.perf_counter() - start, time.process_time() - cpu, len(notices)))


def start_at_once(processes: int) -> dict[str, Any]:
    """So many processes with an empty folder: who compiled, and how long all waited."""
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(processes), context.SimpleQueue()
    with tempfile.TemporaryDirectory() as folder:
        before = os.environ.get("NUMBA_CACHE_DIR")
        os.environ["NUMBA_CACHE_DIR"] = folder
        workers = [
            context.Process(target=_first, args=(barrier, results)) for _ in range(processes)
        ]
        for worker in workers:
            worker.start()
        told = [results.get() for _ in workers]
        for worker in workers:
            worker.join()
        os.environ.pop("NUMBA_CACHE_DIR") if before is None else os.environ.update(
            NUMBA_CACHE_DIR=before
        )
    return {
        "processes": processes,
        "compiled": sum(count for _, _, count in told),
        "wall": max(wall for wall, _, _ in told),
        "cpu": sorted((cpu for _, cpu, _ in told), reverse=True),
    }


def draw(sides: dict[int, float], channels: dict[int, float], file: Path) -> None:
    """Both curves."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    pixels = np.array([side**2 for side in sides]) / 1e6
    left.plot(pixels, list(sides.values()), "o-")
    for side, x in zip(sides, pixels, strict=True):
        left.annotate(f"{side}", (x, sides[side]), textcoords="offset points", xytext=(4, -12))
    left.set(xlabel="megapixels (side of a square)", ylabel="core seconds a run", ylim=0)
    right.plot(list(channels), list(channels.values()), "o-")
    right.set(xlabel="guide channels, at 512 x 512", ylabel="core seconds a run", ylim=0)
    figure.savefig(file, dpi=90)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    usual = f"1,{len(os.sched_getaffinity(0))}"
    parser.add_argument("--processes", default=usual, help=f"numbers of processes; {usual}")
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    numbers = sorted({1, *(int(number) for number in arguments.processes.split(","))})
    seconds_of_run(64)
    # All numbers in every round: what else the machine does changes from minute to minute.
    rounds = [{number: rate(number) for number in numbers} for _ in range(ROUNDS)]
    words = []
    for number in numbers:
        shares = sorted(rates[number] / (number * rates[1]) for rates in rounds)
        share = statistics.median(shares)
        print(
            f"{number} processes: {statistics.median(rates[number] for rates in rounds):.2f} runs "
            f"a core second, {share:.3f} of {number} x one ({shares[0]:.3f} to {shares[-1]:.3f})"
        )
        if share < EFFICIENCY:
            words.append(f"{number} processes: {share:.3f} < {EFFICIENCY}")
    cold = start_at_once(numbers[-1])
    print(
        f"{cold['processes']} processes at once, nothing compiled: {cold['compiled']} compiled, "
        f"all done after {cold['wall']:.1f} s; CPU seconds "
        + ", ".join(f"{cpu:.1f}" for cpu in cold["cpu"][:4])
    )
    if cold["compiled"] != 1 or cold["cpu"][0] > COMPILING:
        words.append(f"{cold['compiled']} compiled, {cold['cpu'][0]:.1f} s")
    sides = {side: seconds_of_run(side) for side in SIDES}
    print("by side:", ", ".join(f"{side}: {value:.2f} s" for side, value in sides.items()))
    channels = {3 * count: seconds_of_run(512, count) for count in (1, 2, 3, 4, 6, 9)}
    print("by channels:", ", ".join(f"{key}: {value:.2f} s" for key, value in channels.items()))
    if arguments.picture:
        draw(sides, channels, arguments.picture)
    if arguments.json:
        figures = {"rates": rounds, "cold": cold, "sides": sides, "channels": channels}
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")
    if words:
        sys.exit("\n".join(words))


if __name__ == "__main__":
    main()
