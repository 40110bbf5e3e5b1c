"""Time and memory of key frame batches on a GPU, by part.

    python -m benchmarks.keyframe_batch [--clip FILE] [--size 512x512] [--batch 8] [--runs 5]
        [--folder DIR] [--plain] [--json FILE] [--trace FILE]

Makes random weights of Stable Diffusion 1.5's size (or takes those in DIR: speed does not depend on
them) and translates a first and a later batch with the published settings, all constraints on.
Flows by DIS and saliency by motion are found before, as the CPU pool does; their core seconds are
printed beside. Prints the median of the runs; parts are those of the device's own clock and lie
within one another as the indentation says. `--trace` writes one more later batch's kernels, for
chrome://tracing or ui.perfetto.dev (FILE.json.gz).
"""

import argparse
import gzip
import json
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.device_memory import load_large_model, part, scene
from fresco_core.batch import Carry, KeyFrameBatch, Matched
from fresco_core.flow import load_flow
from fresco_core.flow.inverse_search import InverseSearch
from fresco_core.options import TranslationOptions
from fresco_core.saliency.motion import motion_saliency, nearest_flows
from fresco_core.translator import FrescoTranslator

BEGUN = time.perf_counter()
GIB = 1 << 30
# Object, method and what it is called: the parts of a batch.
PARTS = (
    ("conditioner", "condition", "flow, occlusion, mapping"),
    ("", "reference_pass", "reference pass"),
    ("", "sample", "sampling"),
    ("", "optimize", "  feature optimisation"),
    ("", "smooth_feature", "  smoothing of features"),
    ("", "smooth_pictures", "  smoothing of pictures"),
)


class Stopwatch:
    """Device time spent in methods, by events: nothing waits while it runs."""

    def __init__(self, translator: FrescoTranslator) -> None:
        self._events: dict[str, list[Any]] = defaultdict(list)
        for owner, method, name in PARTS:
            target = getattr(translator, owner) if owner else translator
            setattr(target, method, self._timed(name, getattr(target, method)))

    def _timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **named: Any) -> Any:
            begin, end = torch.cuda.Event(True), torch.cuda.Event(True)  # type: ignore[no-untyped-call]
            begin.record()
            result = function(*arguments, **named)
            end.record()
            self._events[name].append((begin, end))
            return result

        return timed

    def read(self) -> dict[str, float]:
        """Seconds by part since the last reading."""
        torch.cuda.synchronize()
        found = {
            name: sum(begin.elapsed_time(end) for begin, end in self._events[name]) / 1000
            for _, _, name in PARTS
        }
        self._events.clear()
        return found


def key_frames(clip: Path, count: int, width: int, height: int, begin: int = 0) -> KeyFrameBatch:
    """Every fifth frame of a clip, cut to the working size; brightness stands for a control map."""
    import cv2

    video, frames = cv2.VideoCapture(str(clip)), []
    for number in range(begin + 5 * count - 4):
        ok, picture = video.read()
        if not ok:
            raise SystemExit(f"{clip} has {number} frames: {begin + 5 * count - 4} are needed")
        if number >= begin and (number - begin) % 5 == 0:
            scale = max(width / picture.shape[1], height / picture.shape[0])
            picture = cv2.resize(picture, None, fx=scale + 1e-3, fy=scale + 1e-3)
            frames.append(picture[:height, :width, ::-1])
    stack = np.ascontiguousarray(np.stack(frames))
    return KeyFrameBatch(stack, stack[..., 0][:, None], ("a road",) * count)


def matched(batch: KeyFrameBatch, carry: Carry | None) -> KeyFrameBatch:
    """The batch with what the CPU pool finds of it ahead of time."""
    frames = batch.frames if carry is None else np.concatenate((carry.frames, batch.frames))
    flows = np.stack(InverseSearch()(frames, np.roll(frames, -1, 0)))
    salient_N1hw = motion_saliency(nearest_flows(*torch.from_numpy(flows)))
    return replace(batch, matched=Matched(flows, salient_N1hw[:, 0].byte().numpy()))


def measure(
    translator: FrescoTranslator,
    watch: Stopwatch,
    batches: Sequence[KeyFrameBatch],
    carry: Carry | None,
    ahead: bool,
) -> dict[str, float]:
    """Median seconds of a batch by part, and GiB reserved at most; the first two warm up.

    No batch comes twice: what a new one makes anew (numbers of key tokens, say) is in the time.
    """
    watch_times: dict[str, list[float]] = defaultdict(list)
    for run, alone in enumerate(batches):
        cores = time.process_time()
        batch = matched(alone, carry) if ahead else alone
        cores = time.process_time() - cores
        if run == 2:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        torch.cuda.synchronize()
        begin = time.perf_counter()
        translator.translate(batch, carry)
        torch.cuda.synchronize()
        whole, found = time.perf_counter() - begin, watch.read()
        if run < 2:
            print(f"warm-up {whole:.1f} s", file=sys.stderr, flush=True)
            continue
        for name, seconds in {**found, "whole batch": whole, "ahead, cores": cores}.items():
            watch_times[name].append(seconds)
    medians = {name: statistics.median(times) for name, times in watch_times.items()}
    return medians | {"peak GiB": torch.cuda.max_memory_reserved() / GIB}


def write_kernels(trace: dict[str, Any], to: Path) -> None:
    """What ran on the device, in the trace event format, compressed: times from the first on."""
    events = [
        event
        for event in trace["traceEvents"]
        if event.get("cat") in ("kernel", "gpu_memcpy", "gpu_memset")
    ]
    begin = min(event["ts"] for event in events)
    kept = [
        {
            "ph": "X",
            "name": event["name"][:100],
            "pid": 0,
            "tid": 0,
            "ts": round(event["ts"] - begin, 1),
            "dur": round(event["dur"], 1),
        }
        for event in sorted(events, key=lambda event: event["ts"])
    ]
    with gzip.GzipFile(to, "wb", mtime=0) as file:
        file.write(json.dumps({"traceEvents": kept}, separators=(",", ":")).encode())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clip", type=Path)
    parser.add_argument("--size", default="512x512")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--flow", default="dis")
    parser.add_argument("--plain", action="store_true", help="without the project's own kernels")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--trace", type=Path)
    arguments = parser.parse_args()
    width, height = map(int, arguments.size.split("x"))
    count = arguments.batch
    wholes = []
    for begin in range(arguments.runs + 2):
        if arguments.clip is None:
            wholes.append(scene(2 * count - 2, width, height, begin))
        else:
            wholes.append(key_frames(arguments.clip, 2 * count - 2, width, height, begin))
    translator = FrescoTranslator(
        load_large_model(arguments.folder),
        load_flow(arguments.flow, None, "cuda"),
        TranslationOptions(),
        kernels=not arguments.plain,
    )
    watch = Stopwatch(translator)
    ahead = arguments.flow == "dis"
    firsts = [part(whole, slice(count)) for whole in wholes]
    others = [part(whole, slice(count, None)) for whole in wholes]
    loaded = time.perf_counter() - BEGUN
    carry = translator.translate(firsts[0]).carry
    torch.cuda.synchronize()
    print(f"loaded after {loaded:.1f} s, first batch after {time.perf_counter() - BEGUN:.1f} s")
    columns = {
        f"first batch ({count} new)": measure(translator, watch, firsts, None, ahead),
        f"later batch ({count - 2} new + 2)": measure(translator, watch, others, carry, ahead),
    }
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {arguments.size}")
    print("| part | " + " | ".join(columns) + " |")
    print("| --- |" + " --- |" * len(columns))
    for name in next(iter(columns.values())):
        unit = "" if name == "peak GiB" else " s"
        cells = (f"{column[name]:.3f}{unit}" for column in columns.values())
        print(f"| {name} | " + " | ".join(cells) + " |")
    if arguments.trace:
        batch = matched(others[0], carry) if ahead else others[0]
        with profile(activities=[ProfilerActivity.CUDA]) as recorded:
            translator.translate(batch, carry)
            torch.cuda.synchronize()
        with tempfile.NamedTemporaryFile(suffix=".json") as whole_trace:
            recorded.export_chrome_trace(whole_trace.name)
            write_kernels(json.loads(Path(whole_trace.name).read_text()), arguments.trace)
    if arguments.json:
        arguments.json.write_text(json.dumps(columns, indent=1))


if __name__ == "__main__":
    main()
