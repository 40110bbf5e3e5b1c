"""Finished frames a second of `frescod run` on GPUs, by who propagates and by the number of cores.

    python -m benchmarks.end_to_end --clips DIR [--cores 4,16] [--devices cpu,gpu,auto] [--gpus 1]
        [--per-gpu 1] [--frames 150] [--work DIR] [--json FILE]

Makes random weights of Stable Diffusion 1.5's size, cuts the clips of DIR to --frames frames and
runs the real command with its defaults (512 short side, batches of 8, a key frame every 5 frames,
canny). First runs, of which nothing is told, compile what is compiled once a machine. Time counts
from the first translation's begin to the last frame published. Fails where `auto` is slower than
0.95 times the better of the other two.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.gpu_scaling import Utilisation, busy, cut_clips, recorded_run

BOUND = 0.95


@dataclass(frozen=True)
class Figures:
    """Of one run. Busy: shares of the time that counts; of cores, those that the run may use."""

    side: str
    cores: int
    gpus: int
    frames: int
    windows: int
    seconds: float
    gpu_busy: float
    gpu_propagating: float
    gpu_nvml: float
    gpu_gaps: float
    cores_busy: float

    @property
    def rate(self) -> float:
        """Frames a second."""
        return self.frames / self.seconds


def run(
    side: str, cores: int, gpus: int, clips: Path, model: Path, output: Path, extra: Sequence[str]
) -> Figures:
    """One run of the real command on so many cores."""
    settings = {
        "control.type": "canny",
        "key_frames.min_interval": 5,
        "key_frames.max_interval": 5,
        "propagation.device": side,
    }
    usable = sorted(os.sched_getaffinity(0))[:cores]
    prefix = ["taskset", "-c", ",".join(map(str, usable))]
    watch = Utilisation(gpus)
    watch.start()
    work = recorded_run(gpus, clips, model, output, settings, extra, prefix)
    ended = time.monotonic()
    translated = work.by_gpus("translate")
    first, last = min(event["ts"] for event in translated), work.end
    seconds = (last - first) / 1e6
    frames = 0
    for manifest in output.glob("*/manifest.json"):
        frames += json.loads(manifest.read_text())["clip"]["frames"]
    end_of_translation = max(event["ts"] + event["dur"] for event in translated)
    return Figures(
        side,
        cores,
        gpus,
        frames,
        len(translated),
        seconds,
        busy(work.gpus, first, last, gpus),
        busy(work.by_gpus("propagate"), first, last, gpus),
        watch.between(ended - seconds, ended),
        1 - busy(work.gpus, first, end_of_translation, gpus),
        busy(work.cores, first, last, cores),
    )


def main() -> int:
    """Print the table; 1 when the bound is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=Path, required=True)
    parser.add_argument("--cores", default="4,16")
    parser.add_argument("--devices", default="cpu,gpu,auto")
    parser.add_argument("--gpus", type=int, default=1)
    parser.add_argument("--per-gpu", type=int, default=1, help="clips")
    parser.add_argument("--frames", type=int, default=150)
    parser.add_argument("--work", type=Path, default=Path("/tmp/frescod-end-to-end"))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--set", action="append", default=[], help="settings of the runs")
    options = parser.parse_args()
    model, clips = options.work / "model", options.work / "clips"
    if not model.exists():
        subprocess.run([sys.executable, "-m", "benchmarks.large_model", str(model)], check=True)
    sides = options.devices.split(",")
    all_cores = [int(count) for count in options.cores.split(",")]

    def measured(side: str, cores: int) -> Figures:
        output = options.work / f"output-{side}-{cores}"
        return run(side, cores, options.gpus, clips, model, output, options.set)

    cut_clips(options.clips, clips, options.gpus, 20)
    for side in dict.fromkeys(("cpu", *sides)):
        measured(side, max(all_cores))
    cut_clips(options.clips, clips, options.gpus * options.per_gpu, options.frames)
    rows = [measured(side, cores) for cores in all_cores for side in sides]
    print(
        "| cores | propagated by | frames/s | frames | s | GPU busy | of it propagating | NVML | "
        "GPU idle between windows | cores busy |\n" + "| --- " * 10 + "|"
    )
    for row in rows:
        print(
            f"| {row.cores} | {row.side} | {row.rate:.2f} | {row.frames} | {row.seconds:.1f} | "
            f"{row.gpu_busy:.1%} | {row.gpu_propagating:.1%} | {row.gpu_nvml:.1%} | "
            f"{row.gpu_gaps:.1%} | {row.cores_busy:.1%} |"
        )
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))
    rates = {(row.cores, row.side): row.rate for row in rows}
    missed = False
    for cores in all_cores:
        best = max((rates[cores, side] for side in sides if side != "auto"), default=0)
        missed |= rates.get((cores, "auto"), best) < BOUND * best
    print(f"bound: auto at {BOUND} of the better of the others, at least")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
