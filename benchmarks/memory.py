"""Peak memory of `frescod run` on a 60 s clip and on one ten times as long.

    python -m benchmarks.memory [--seconds 60] [--rate 5]

Draws both clips, runs the real command on each with a tiny random-weight model on the CPU, prints a
table and fails when the longer clip's peak resident memory is more than 10 % above the shorter's.
Frames are large enough that keeping them, as decoded or at working size, would miss the bound.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from daemon.demo_clip import render_clip

BOUND = 1.10
WIDTH, HEIGHT = 384, 256
SETTINGS = (
    "device=cpu",
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
    """Base model and ControlNet, made by another process.

    A child's peak memory begins at that of its parent, which therefore has to stay small: no torch.
    """
    code = f"from fresco_core.tiny_model import make_tiny_model; make_tiny_model({str(folder)!r})"
    subprocess.run([sys.executable, "-c", code], check=True, stderr=subprocess.DEVNULL)
    return folder / "sd", folder / "controlnet"


def peak_memory(
    folder: Path, seconds: int, rate: int, model: tuple[Path, Path]
) -> tuple[int, float]:
    """Peak resident memory in bytes and wall seconds of one run over one clip."""
    clips = folder / f"{seconds}s"
    clips.mkdir()
    render_clip(clips / "clip.mp4", width=WIDTH, height=HEIGHT, frames=seconds * rate, rate=rate)
    (clips / "clip.txt").write_text("a road")
    settings = (*SETTINGS, f"models.base={model[0]}", f"models.controlnet={model[1]}")
    command = [sys.executable, "-m", "daemon", "run", f"--video-folder={clips}"]
    command += [f"--output-folder={folder / 'output' / clips.name}"]
    command += [f"--set={assignment}" for assignment in settings]
    start = time.monotonic()
    environment = os.environ | {"OMP_NUM_THREADS": "1"}  # the network is tiny
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)
    _, status, usage = os.wait4(process.pid, 0)
    if code := os.waitstatus_to_exitcode(status):
        raise SystemExit(f"frescod ended with {code}")
    return usage.ru_maxrss * 1024, time.monotonic() - start


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
