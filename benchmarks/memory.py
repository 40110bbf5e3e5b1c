"""Peak memory of `frescod run` on a 60 s clip and on one ten times as long.

    python -m benchmarks.memory [--seconds 60] [--rate 5]

Draws both clips, runs the real command on each with a tiny random-weight model on the CPU, prints a
table and fails when the longer clip's peak memory is more than 10 % above the shorter's. Memory is
that of all the program's processes together, pages that they share counted once.
Frames are large enough that keeping them, as decoded or at working size, would miss the bound.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from daemon.demo_clip import render_clip

BOUND = 1.10
SAMPLE = 0.25  # seconds
WIDTH, HEIGHT = 384, 256
SETTINGS = (
    "devices=cpu",
    "models.vae=",
    "models.offline=true",
    "control.type=canny",
    "key_frames.min_interval=10",
    "key_frames.max_interval=20",
    "key_frames.resolution=128",
    "translation.steps=2",
    "translation.warmup_steps=1",
    "constraints.optimization_iterations=1",
    "propagation.votes=1",
    "propagation.sweeps=1",
)


def tiny_model(folder: Path) -> tuple[Path, Path]:
    """Base model and ControlNet, made by another process: this one measures, and stays small."""
    code = f"from fresco_core.tiny_model import make_tiny_model; make_tiny_model({str(folder)!r})"
    subprocess.run([sys.executable, "-c", code], check=True, stderr=subprocess.DEVNULL)
    return folder / "sd", folder / "controlnet"


def memory(pid: int) -> int:
    """Bytes of a process and all below it, pages that several of them have counted once."""
    total = 0
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:  # it has ended
        return 0
    for line in rollup.splitlines():
        if line.startswith("Pss:"):
            total += int(line.split()[1]) * 1024
    return total + sum(memory(int(child)) for child in children)


def peak_memory(
    folder: Path, seconds: int, rate: int, model: tuple[Path, Path]
) -> tuple[int, float]:
    """Peak memory in bytes and wall seconds of one run over one clip."""
    clips = folder / f"{seconds}s"
    clips.mkdir()
    render_clip(clips / "clip.mp4", width=WIDTH, height=HEIGHT, frames=seconds * rate, rate=rate)
    (clips / "clip.txt").write_text("a road")
    settings = (*SETTINGS, f"models.base={model[0]}", f"models.controlnet={model[1]}")
    command = [sys.executable, "-m", "daemon", "run", f"--video-folder={clips}"]
    command += [f"--output-folder={folder / 'output' / clips.name}"]
    command += [f"--set={assignment}" for assignment in settings]
    start = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    peak = 0
    while process.poll() is None:
        peak = max(peak, memory(process.pid))
        time.sleep(SAMPLE)
    if process.returncode:
        raise SystemExit(f"frescod ended with {process.returncode}")
    return peak, time.monotonic() - start


def main() -> int:
    """Print the table; 1 when the bound is missed."""
    parser = argparse.ArgumentParser(description="Peak memory against clip length")
    parser.add_argument("--seconds", type=int, default=60, help="length of the shorter clip")
    parser.add_argument("--rate", type=int, default=5, help="frames per second")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = tiny_model(folder / "model")
        lengths = (options.seconds, 10 * options.seconds)
        peaks = [peak_memory(folder, seconds, options.rate, model) for seconds in lengths]
    print(f"{'clip':>8} {'frames':>8} {'peak MiB':>10} {'seconds':>9}")
    for seconds, (peak, took) in zip(lengths, peaks, strict=True):
        print(f"{seconds:>6} s {seconds * options.rate:>8} {peak / 2**20:>10.1f} {took:>9.1f}")
    ratio = peaks[1][0] / peaks[0][0]
    extra = (lengths[1] - lengths[0]) * options.rate
    growth = (peaks[1][0] - peaks[0][0]) / extra / 1024
    frame = WIDTH * HEIGHT * 3 / 1024
    print(f"ratio {ratio:.3f}, bound {BOUND}; {growth:.1f} KiB a frame of {frame:.0f} KiB")
    return int(ratio > BOUND)


if __name__ == "__main__":
    sys.exit(main())
