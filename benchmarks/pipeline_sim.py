"""The real scheduler, blocks and worker processes with stages that only hold their device.

    python -m benchmarks.pipeline_sim [--run 2.9] [--scale 0.05] [--cores 72] [--only cpus,memory]

Prints a table for each question and fails when a bound is missed. Eight devices that count as GPUs,
and a host of 128 cores, each a process that sleeps; with fewer ``--cores`` those are as many times
faster, because starting 120 processes takes a small machine longer than all the rest. Times are
those of an H200 and its host, shorter by the scale; what the scheduler itself takes is not, so that
it weighs as many times more than in a real run.
"""

import argparse
import asyncio
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.simulated import Durations
from benchmarks.simulated_sides import sides
from benchmarks.simulation import (
    GPUS,
    HOST,
    SIDE,
    Sampler,
    Simulation,
    chosen,
    extent,
    frames_of,
    mixed,
    saturated,
    segment_delays,
    share,
    simulation,
    windows_of,
    worked,
)
from daemon.jobs import Job

MIB, GIB = 2**20, 2**30


@dataclass
class Table:
    """Figures with their bounds, printed as they come."""

    missed: list[str] = field(default_factory=list)

    def head(self, title: str) -> None:
        print(f"\n### {title}\n\n| | figure | bound |\n| --- | --- | --- |")

    def row(self, what: str, figure: str, bound: str = "", kept: bool = True) -> None:
        print(f"| {what} | {figure} | {bound}{'' if kept else ' **missed**'} |", flush=True)
        if not kept:
            self.missed.append(what)


async def devices(table: Table, folder: Path, options: Any) -> None:
    """1, 3, 4: devices never wait where CPUs suffice; no fixed split; what scheduling costs."""
    durations = Durations(scale=options.scale, run=options.run)
    async with simulation(folder, durations, options.cores) as sim:
        before, sent = cpu_seconds(), sim.traffic()
        jobs = await sim.run("enough", mixed(round(7 * options.size), 30))
        cpu, sent = cpu_seconds() - before, sim.traffic() - sent
        report_enough(table, sim, jobs, options.run)
        report_overhead(table, sim, jobs, cpu, sent)
        times = round(1.2 * options.size)  # as long as six clips; seven devices have those to do
        clips = [(frames_of(6 * times),), *[(frames_of(6),)] * (GPUS - 1) * times]
        random.Random(0).shuffle(clips)
        report_mix(table, sim, await sim.run("mix", clips))


def title(cores: int, run: float) -> str:
    """What is simulated, and with what."""
    host = HOST - GPUS
    if cores == host:
        return f"{GPUS} GPUs, {host} cores, a run of {run} s"
    return f"{GPUS} GPUs, {host} cores (as {cores} faster ones), a run of {run} s"


def report_enough(table: Table, sim: Simulation, jobs: Sequence[Job], run: float) -> None:
    spans = sim.timeline.spans()
    work = chosen(spans, "enough", "translate")
    first, last = extent(spans, work)
    busy = share(spans, work, GPUS, first, last)
    own = []
    for track in set(spans.track[work]):
        mine = work & (spans.track == track)
        own.append(share(spans, mine, 1, *extent(spans, mine)))
    cores = sim.workshop.cores.total
    pool = (spans.of("cpu", work=True) | spans.of("reader", work=True)) & (spans.begin < last)
    count = len(windows_of(jobs))
    scale = sim.durations.scale
    table.head(f"CPUs suffice: {title(cores, run)}")
    table.row("clips, windows", f"{len(jobs)}, {count}")
    table.row("translate stage", f"{(last - first) / scale:.0f} s ({last - first:.1f} s here)")
    table.row("GPUs busy, first to last translation", percent(busy), "≥ 97 %", busy >= 0.97)
    table.row("each GPU, from its own first to its own last", percent(float(np.mean(own))))
    rest = percent(worked(sim, "enough", "translate", jobs))
    table.row("of that, without messages and late sleepers", rest)
    table.row("worst GPU, from its own first to its own last", percent(min(own)))
    table.row("cores busy meanwhile", percent(share(spans, pool, cores, first, last)))


def report_overhead(
    table: Table, sim: Simulation, jobs: Sequence[Job], cpu: float, sent: int
) -> None:
    all_windows = windows_of(jobs)
    count = len(all_windows)
    each = cpu / count
    layouts = sum(window.layout().nbytes for window in all_windows)
    table.head("What scheduling costs")
    table.row("supervisor, CPU time a window", f"{1e3 * each:.1f} ms")
    for seconds in (17.06, 2.1):
        load = each / seconds
        bound = "< 2 % of a core a GPU"
        table.row(f"at {seconds} s a window", f"{100 * load:.2f} %", bound, load < 0.02)
    table.row("through sockets, a window", f"{sent / count / 1024:.1f} KiB")
    table.row(
        f"in blocks, a window of {SIDE}x{SIDE}",
        f"{layouts / count / MIB:.1f} MiB: {layouts / sent:.0f} times as much",
    )


def report_mix(table: Table, sim: Simulation, jobs: Sequence[Job]) -> None:
    spans = sim.timeline.spans()
    first, last = extent(spans, chosen(spans, "mix", "translate"))
    took = (last - first) / sim.durations.scale
    per_clip = [
        sum(sim.durations.key_frame * len(window.key_numbers) for window in windows_of([job]))
        for job in jobs
    ]
    bound = max(max(per_clip), sum(per_clip) / GPUS)
    cores = sim.workshop.cores.total
    split = [sum(per_clip[i::GPUS]) for i in range(GPUS)]
    script = [sum(alone(sim, job, cores // GPUS) for job in jobs[i::GPUS]) for i in range(GPUS)]
    table.head(f"One long clip and {len(jobs) - 1} short ones")
    table.row("lower bound: longest clip, or work over GPUs", f"{bound:.0f} s")
    table.row(
        "translate stage", f"{took:.0f} s: {took / bound:.3f}", "≤ 1.05", took <= 1.05 * bound
    )
    table.row("fixed split, translation alone", f"{max(split):.0f} s: {max(split) / bound:.2f}")
    table.row(
        "fixed split, a GPU idle while its clip is read and propagated",
        f"{max(script):.0f} s: {max(script) / bound:.2f}",
    )


def alone(sim: Simulation, job: Job, cores: int) -> float:
    """Seconds for a clip whose steps follow one another: the published script's way."""
    durations = sim.durations
    seconds = 0.0
    segments: list[float] = []
    for window in windows_of([job]):
        keys = len(window.key_numbers)
        seconds += durations.decode * window.frame_count
        seconds += (durations.device_map + durations.key_frame) * keys
        segments += [durations.segment(end - begin - 1) for begin, end in window.segments]
    return seconds + -(-len(segments) // cores) * max(segments, default=0.0)


async def cpus(table: Table, folder: Path, options: Any) -> None:
    """2: cores never wait where they do not suffice."""
    durations = Durations(scale=0.6 * options.scale, run=6.0)
    async with simulation(folder, durations, options.cores) as sim:
        jobs = await sim.run("scarce", mixed(round(7 * options.size), 30))
        spans = sim.timeline.spans()
        rest = percent(worked(sim, "scarce", "propagate", jobs))
    cores = sim.workshop.cores.total
    work = spans.of("cpu", work=True) | spans.of("reader", work=True)
    first, last = extent(spans, chosen(spans, "scarce", "propagate"))
    full = saturated(spans, work, cores)
    busy = share(spans, work, cores, *full)
    translated = chosen(spans, "scarce", "translate")
    table.head(f"CPUs do not suffice: {title(cores, durations.run)}")
    table.row("clips, windows", f"{len(jobs)}, {len(windows_of(jobs))}")
    table.row("first to last propagation", f"{(last - first) / durations.scale:.0f} s")
    table.row(
        "cores busy, first to last propagation", percent(share(spans, work, cores, first, last))
    )
    table.row(
        "from all busy first to all busy last", f"{(full[1] - full[0]) / durations.scale:.0f} s"
    )
    table.row("cores busy then", percent(busy), "≥ 97 %", busy >= 0.97)
    table.row("of a propagation, without messages and late sleepers", rest)
    table.row("GPUs busy", percent(share(spans, translated, GPUS, *extent(spans, translated))))


async def latency(table: Table, folder: Path, options: Any) -> None:
    """4: how soon cores that are free go on with a window, eight of them at the same moment."""
    durations = Durations(scale=4 * options.scale)
    async with simulation(folder, durations, options.cores) as sim:
        await sim.run("latency", [(frames_of(3) - i,) for i in range(GPUS)])
        delays = 1e3 * np.array(segment_delays(sim))
    middle, late, worst = np.quantile(delays, [0.5, 0.95, 1])
    table.head(f"From key frames to propagation ({len(delays)} windows with free cores)")
    table.row("median", f"{middle:.1f} ms", "< 20 ms", bool(middle < 20))
    table.row("95 of 100", f"{late:.1f} ms")
    table.row("worst", f"{worst:.1f} ms", "< 20 ms", bool(worst < 20))


async def memory(table: Table, folder: Path, options: Any) -> None:
    """5: shared memory as the kernel counts it, and clips that only wait."""
    limit = "2GiB"
    durations = Durations(scale=0.01)
    tall = [(8 * 10 + 1 + 60, 1280, 768, 10)] * 2
    clips = [*tall, *[(frames_of(4), 512, 512)] * 8, *[(frames_of(4), 256, 256)] * 8]
    random.Random(0).shuffle(clips)
    async with simulation(folder, durations, cores=GPUS + 16, memory=limit) as sim:
        sampler = Sampler([os.getpid(), *(worker.pid for worker in sim.processes())])
        sampling = asyncio.create_task(sampler.sample())
        jobs = await sim.run("sizes", clips)
        sampling.cancel()
        peak = sim.workshop.memory.peak
    sizes = {window.layout().nbytes for window in windows_of(jobs)}
    table.head(f"prefetch.memory = {limit}")
    table.row("windows of", f"{min(sizes) / MIB:.0f} to {max(sizes) / MIB:.0f} MiB")
    table.row("granted at once, at most", f"{peak / MIB:.0f} MiB", "≤ 2048 MiB", peak <= 2 * GIB)
    table.row(
        f"allocated at once, at most ({sampler.count} samples)",
        f"{sampler.peak / MIB:.0f} MiB",
        "≤ 2048 MiB",
        sampler.peak <= 2 * GIB,
    )
    table.row(
        "blocks mapped by the supervisor, at most",
        str(sampler.mapped),
        "0",
        sampler.mapped == 0,
    )


async def queue(table: Table, folder: Path, options: Any) -> None:
    """5: what a thousand clips cost that only wait."""
    few, many = (queued(count) for count in (10, 1000))
    more = many["resident"] - few["resident"]
    table.head("A thousand clips queued")
    table.row("supervisor's memory in full swing, 10 clips", f"{few['resident'] / MIB:.1f} MiB")
    table.row("1,000 clips", f"{many['resident'] / MIB:.1f} MiB")
    table.row("more", f"{more / MIB:.1f} MiB", "≤ 10 MiB", more <= 10 * MIB)
    table.row("until the first translation, 10 clips", f"{few['seconds']:.1f} s")
    table.row("1,000 clips", f"{many['seconds']:.1f} s")


def queued(count: int) -> dict[str, float]:
    """What another process measures."""
    command = [sys.executable, "-m", "benchmarks.pipeline_sim", f"--queued={count}"]
    found: dict[str, float] = json.loads(subprocess.check_output(command))
    return found


async def measure_queue(folder: Path, count: int) -> dict[str, float]:
    """Memory of this process, and the time until the first translation, with so many clips."""
    async with simulation(folder, Durations(scale=0.05), cores=GPUS + 24) as sim:
        jobs = [sim.clip(f"queued-{i}", frames_of(12)) for i in range(count)]
        begin = sim.timeline.now()
        running = asyncio.create_task(sim.pipeline(await sim.order(jobs)).run())
        await asyncio.sleep(6)
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        spans = sim.timeline.spans()
        first, _ = extent(spans, chosen(spans, "queued", "translate"))
        running.cancel()
        await asyncio.wait([running])
    return {"resident": pages * resource.getpagesize(), "seconds": first - begin}


def cpu_seconds() -> float:
    """CPU time of this process so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def percent(figure: float) -> str:
    return f"{100 * figure:.1f} %"


QUESTIONS = {
    "devices": devices,
    "cpus": cpus,
    "latency": latency,
    "memory": memory,
    "queue": queue,
    "sides": sides,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables; 1 when a bound is missed."""
    parser = argparse.ArgumentParser(description="The scheduler with simulated stages")
    parser.add_argument("--run", type=float, default=2.9, help="core seconds of a propagation run")
    parser.add_argument("--scale", type=float, default=0.05, help="all times are scaled by this")
    parser.add_argument("--size", type=float, default=5, help="how much there is to do")
    parser.add_argument("--cores", type=int, default=GPUS + 64, help="of all processes together")
    parser.add_argument("--only", default=",".join(QUESTIONS), help="questions, by comma")
    parser.add_argument("--queued", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    table = Table()
    with tempfile.TemporaryDirectory() as name:
        if options.queued:
            print(json.dumps(asyncio.run(measure_queue(Path(name), options.queued))))
            return 0
        for question in options.only.split(","):
            begin = time.monotonic()
            folder = Path(name) / question
            folder.mkdir()
            asyncio.run(QUESTIONS[question](table, folder, options))
            print(f"\n({question}: {time.monotonic() - begin:.0f} s)", file=sys.stderr)
    for what in table.missed:
        print(f"missed: {what}", file=sys.stderr)
    return int(bool(table.missed))


if __name__ == "__main__":
    sys.exit(main())
