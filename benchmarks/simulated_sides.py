"""Who propagates, in the scheduler's simulation: cores, devices, or whoever is done sooner."""

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.simulated import Durations
from benchmarks.simulation import (
    MEMORY,
    Simulation,
    chosen,
    extent,
    frames_of,
    share,
    simulation,
)
from daemon.segments import DEVICES, SIDES, Share
from daemon.who_propagates import Rates

# What "auto" may take of what the quicker side takes alone, and seconds in which processes wake up.
BOUND, NOISE = 1.05, 0.06


@dataclass(frozen=True)
class House:
    """GPUs, cores of the host and those they are simulated by, and the windows of each clip.

    ``slower``: times are not shortened as far, by so much: scheduling weighs the more, the more
    there is to schedule.
    """

    gpus: int
    host: int
    cores: int
    windows: tuple[int, ...]
    slower: float = 1.0

    def __str__(self) -> str:
        few, many = min(self.windows), max(self.windows)
        lengths = f"{len(self.windows)} clips of {few} to {many} windows"
        if len(self.windows) == 1:
            lengths = f"a clip of {many} windows" if many > 1 else "a clip of one window"
        gpus = "1 GPU" if self.gpus == 1 else f"{self.gpus} GPUs"
        return f"{gpus}, {self.host} cores, {lengths}"


def houses(cores: int, size: float) -> tuple[House, ...]:
    """Few cores and many, one clip and several."""
    some = random.Random(0)
    many = tuple(some.randint(1, 9) for _ in range(round(5 * size)))
    return (
        House(1, 4, 4, (1,)),
        House(1, 4, 4, (round(1.6 * size),)),
        House(1, 16, 16, (1,)),
        House(1, 16, 16, (round(3 * size),)),
        House(1, 16, 16, tuple(some.randint(1, 4) for _ in range(round(1.6 * size)))),
        House(1, 48, 24, (round(3 * size),)),
        House(8, 128, cores, many, slower=2.5),
    )


@dataclass(frozen=True)
class Run:
    """What a run took, and who was busy: seconds of the host, shares."""

    seconds: float
    translating: float
    device: float
    cores: float
    by_device: float


async def run(sim: Simulation, house: House, name: str, side: str) -> Run:
    """All clips of a house, by one side."""
    shop = sim.workshop
    propagation = shop.propagation
    propagation.side, propagation.rates = side, Rates()
    propagation.shares = {each: Share() for each in SIDES}
    await sim.run(name, [(frames_of(count),) for count in house.windows])
    spans, cores = sim.timeline.spans(), shop.cores.total
    first, _ = extent(spans, chosen(spans, name, "prepare"))
    _, last = extent(spans, chosen(spans, name, "publish"))
    on_device, pool = spans.of("device"), spans.of("cpu", work=True)
    translating = chosen(spans, name, "translate") & on_device
    propagating = chosen(spans, name, "propagate") & on_device
    frames = {each: propagation.shares[each].frames for each in SIDES}
    return Run(
        (last - first) / sim.durations.scale,
        share(spans, translating, house.gpus, first, last),
        share(spans, propagating, house.gpus, first, last),
        share(spans, pool, cores, first, last),
        frames[DEVICES] / sum(frames.values()),
    )


async def sides(table: Any, folder: Path, options: Any) -> None:
    """6: "auto" is as quick as the quicker side, wherever it is."""
    for number, house in enumerate(houses(options.cores, options.size)):
        table.head(f"Who propagates: {house}")
        memory = MEMORY if house.gpus > 1 else "512MiB"
        place = folder / str(number)
        place.mkdir()
        durations = Durations(
            scale=2 * house.slower * options.scale,
            control_map=0.5,
            key_frame=2.1 / 6,
            run=1.0,
            publish=0.01,
        )
        found = {}
        async with simulation(
            place, durations, house.cores, memory, gpus=house.gpus, host=house.host
        ) as sim:
            for side in ("cpu", "gpu", "auto"):
                found[side] = await run(sim, house, f"{side}{number}", side)
        best = min(found[side].seconds for side in SIDES)
        for side, each in found.items():
            bound, kept = "", True
            if side == "auto":
                most = BOUND * best + NOISE / sim.durations.scale
                bound, kept = f"≤ {most:.1f} s", each.seconds <= most
            figure = (
                f"{each.seconds:.1f} s; GPUs translate {each.translating:.0%}, propagate "
                f"{each.device:.0%}; cores {each.cores:.0%}; {each.by_device:.0%} of the frames by "
                "GPUs"
            )
            table.row(side, figure, bound, kept)
