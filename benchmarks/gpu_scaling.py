"""`frescod run` on 1, 2, 4, ... GPUs: how translation scales, how busy the GPUs are.

    python -m benchmarks.gpu_scaling --clips DIR [--gpus 1,2] [--work DIR] [--frames 80]

Makes random weights of Stable Diffusion 1.5's size, cuts the clips of DIR to --frames frames, gives
every GPU --per-gpu of them and runs the real command with its defaults (512 short side, batches of
8, HED). Prints a table, and fails when throughput of the translate stage grows by less than 0.95
for each doubling of the GPUs. Busy fractions are from the timeline and from NVML; a GPU that
propagates is busy as well.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from io_pipeline.video import ClipInfo, ClipReader, ClipWriter, scan_clip

BOUND = 0.95
SAMPLE = 0.1  # seconds


Span = Mapping[str, Any]  # an event of the timeline; its times are microseconds


@dataclass(frozen=True)
class Work:
    """Spans of a run in which GPUs and cores worked, whatever at, without those of waiting."""

    gpus: Sequence[Span]
    cores: Sequence[Span]

    @classmethod
    def of(cls, events: Sequence[Span]) -> "Work":
        """What a timeline tells: its processes are kinds of workers."""
        kinds = {e["pid"]: e["args"]["name"] for e in events if e["name"] == "process_name"}
        spans = [e for e in events if e["ph"] == "X" and not e["name"].startswith("wait: ")]
        gpus = [span for span in spans if kinds[span["pid"]] == "device"]
        return cls(gpus, [span for span in spans if kinds[span["pid"]] != "device"])

    def by_gpus(self, stage: str) -> list[Span]:
        """Those of a stage."""
        return [span for span in self.gpus if span["name"] == stage]

    @property
    def end(self) -> float:
        """When the last one ended."""
        return float(max(span["ts"] + span["dur"] for span in (*self.gpus, *self.cores)))


def busy(spans: Iterable[Span], first: float, last: float, count: int) -> float:
    """Share of the time between two times that so many workers were busy with spans."""
    inside = (min(e["ts"] + e["dur"], last) - max(e["ts"], first) for e in spans)
    return float(sum(max(0.0, each) for each in inside) / (last - first) / count)


@dataclass(frozen=True)
class Figures:
    """Of one run. Times are seconds.

    Busy: shares of the time from first to last translation; of cores, those beside one a GPU.
    """

    gpus: int
    windows: int
    key_frames: int
    whole: float
    translating: float
    busy: float
    nvml: float
    cpu_busy: float

    @property
    def rate(self) -> float:
        """Key frames a second."""
        return self.key_frames / self.translating


class Utilisation(threading.Thread):
    """Samples NVML's utilisation of the first GPUs: share of a sixth of a second with a kernel."""

    def __init__(self, gpus: int) -> None:
        super().__init__(daemon=True)
        self.samples: list[tuple[float, float]] = []
        self._gpus = gpus
        self._ended = threading.Event()

    def run(self) -> None:
        """Until stopped."""
        import pynvml

        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(self._gpus)]
        while not self._ended.wait(SAMPLE):
            shares = [pynvml.nvmlDeviceGetUtilizationRates(handle).gpu for handle in handles]
            self.samples.append((time.monotonic(), sum(shares) / len(shares) / 100))

    def between(self, begin: float, end: float) -> float:
        """Mean share between two times of the monotonic clock."""
        self._ended.set()
        self.join()
        inside = [share for at, share in self.samples if begin <= at <= end]
        return sum(inside) / max(1, len(inside))


def cut_clips(source: Path, target: Path, count: int, frames: int) -> None:
    """So many clips of so many frames, from those that are long enough."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    infos = [scan_clip(path) for path in sorted(source.glob("*.mp4"))]
    infos = [info for info in infos if info.frame_count >= frames]
    if not infos:
        raise SystemExit(f"no .mp4 of {frames} frames in {source}: give --clips, --frames")
    for number in range(count):
        info = infos[number % len(infos)]
        short = shortened(info, frames)
        clip = target / f"{number:02d}.mp4"
        with ClipReader(info) as reader, ClipWriter(clip, short, preset="veryfast") as writer:
            for _ in range(frames):
                writer.write(next(reader))
        clip.with_suffix(".txt").write_text("a photo of the scene")


def shortened(info: ClipInfo, frames: int) -> ClipInfo:
    """The same clip with fewer frames, without sound."""
    end = info.times[frames] if frames < info.frame_count else info.end
    return replace(
        info, frame_count=frames, times=info.times[:frames], end=end, sound_tracks=0, warnings=()
    )


def recorded_run(
    gpus: int,
    clips: Path,
    model: Path,
    output: Path,
    settings: Mapping[str, object],
    extra: Sequence[str],
    prefix: Sequence[str] = (),
) -> Work:
    """Who worked when in one run of the real command.

    Args:
        model: of `large_model`.
        settings, extra: of the run; the latter as they are typed.
        prefix: what the command is run by.
    """
    timeline = output.with_suffix(".json")
    settings = {
        "models.base": model / "sd",
        "models.vae": "",
        "models.controlnet": model / "controlnet",
        "models.offline": "true",
        **settings,
    }
    command = [*prefix, sys.executable, "-m", "daemon", "run", f"--video-folder={clips}"]
    command += [f"--output-folder={output}", f"--timeline={timeline}", "--force"]
    command += ["--devices=" + ",".join(f"cuda:{i}" for i in range(gpus))]
    command += [f"--set={key}={value}" for key, value in settings.items()]
    command += [f"--set={assignment}" for assignment in extra]
    subprocess.run(command, check=True, env=os.environ | {"PYTHONUNBUFFERED": "1"})
    return Work.of(json.loads(timeline.read_text())["traceEvents"])


def run(gpus: int, clips: Path, model: Path, output: Path, extra: Sequence[str]) -> Figures:
    """One run of the real command."""
    watch = Utilisation(gpus)
    watch.start()
    begin = time.monotonic()
    settings = {"control.source": model / "ControlNetHED.pth"}
    work = recorded_run(gpus, clips, model, output, settings, extra)
    whole = time.monotonic() - begin
    translated = work.by_gpus("translate")
    first = min(event["ts"] for event in translated)
    last = max(event["ts"] + event["dur"] for event in translated)
    translating = (last - first) / 1e6
    keys = 0
    for manifest in output.glob("*/manifest.json"):
        keys += len(json.loads(manifest.read_text())["key_frames"])
    cores = max(1, (os.cpu_count() or 1) - gpus)
    # The timeline's zero is when the program began its work: shortly after it was started. NVML's
    # samples are cut at the same distance from the end.
    ended = begin + whole
    nvml = watch.between(ended - (work.end - first) / 1e6, ended - (work.end - last) / 1e6)
    return Figures(
        gpus,
        len(translated),
        keys,
        whole,
        translating,
        busy(work.gpus, first, last, gpus),
        nvml,
        busy(work.cores, first, last, cores),
    )


def main() -> int:
    """Print the table; 1 when the bound is missed."""
    parser = argparse.ArgumentParser(description="Scaling over GPUs")
    parser.add_argument("--clips", type=Path, required=True)
    parser.add_argument("--gpus", default="1,2")
    parser.add_argument("--work", type=Path, default=Path("/tmp/frescod-scaling"))
    parser.add_argument("--frames", type=int, default=80)
    parser.add_argument(
        "--per-gpu", type=int, default=3, help="clips; best a multiple of those in DIR"
    )
    parser.add_argument("--set", action="append", default=[], help="settings of the runs")
    options = parser.parse_args()
    model = options.work / "model"
    if not model.exists():
        subprocess.run([sys.executable, "-m", "benchmarks.large_model", str(model)], check=True)
    rows = []
    for gpus in map(int, options.gpus.split(",")):
        clips = options.work / f"clips-{gpus}"
        cut_clips(options.clips, clips, gpus * options.per_gpu, options.frames)
        rows.append(run(gpus, clips, model, options.work / f"output-{gpus}", options.set))
    print(
        "GPUs windows key frames  whole s  translating s  keys/s  busy   NVML   CPU busy  scaling"
    )
    missed = False
    for before, row in zip([None, *rows], rows, strict=False):
        scaling = 1.0
        if before is not None:
            scaling = row.rate / before.rate / (row.gpus / before.gpus)
            missed |= scaling < BOUND
        print(
            f"{row.gpus:4d} {row.windows:7d} {row.key_frames:10d} {row.whole:8.1f} "
            f"{row.translating:14.1f} {row.rate:7.3f} {row.busy:6.3f} {row.nvml:6.3f} "
            f"{row.cpu_busy:9.3f} {scaling:8.3f}"
        )
    print(f"bound: scaling {BOUND} per doubling")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
