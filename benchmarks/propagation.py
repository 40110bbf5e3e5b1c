"""Propagation's cost and quality, against what the reference implementation took and made.

    python -m benchmarks.propagation [--cases DIR] [--clips DIR] [--json FILE] [--quality NAME]
                                     [--only NAME] [--repeat 3] [--picture FILE]
                                     [--device cuda] [--chains 12]

Cases: one frame from one key frame, beside the reference's figures. Clips: a whole segment, core
seconds by stage, and what else merging could be. Fails when a bound is missed; bounds hold for the
default quality. Seconds are CPU time of this process, which works on one thread, the median of the
repetitions; machine code is made beforehand. ``--picture`` draws two of the cases.

``--device``: the cases alone, painted there, so many chains of each at once; seconds are those of
the clock for one chain, with what has to be sent to the device and back.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks import propagation_picture, propagation_segment
from benchmarks.propagation_cases import Case, cases_in
from fresco_core.propagation.options import PropagationOptions

ERROR_EACH, ERROR_MEAN = 1.03, 1.02
"""Mean patch error over the reference's: on every case, and on average."""
PSNR_LOSS = 0.1
"""dB below the reference, on every case."""
SPEED_UP = 40
"""Reference seconds over ours, on average over the cases of 512 pixels."""


def measure(
    case: Case, options: PropagationOptions, repeat: int, device: str = "", chains: int = 1
) -> dict[str, Any]:
    """All figures of a case."""
    seconds = []
    for _ in range(repeat):
        if device:
            start = time.perf_counter()
            result = case.on_device(options, device, chains)
            seconds.append((time.perf_counter() - start) / chains)
        else:
            start = time.process_time()
            result = case.synthesize(options)
            seconds.append(time.process_time() - start)
    reference = case.meta["reference"]
    error = float(result.error_HW.mean(dtype=np.float64))
    return {
        "case": case.name,
        "large": case.large,
        "seconds": statistics.median(seconds),
        "reference_seconds": reference["cpu_s"],
        "speed_up": reference["cpu_s"] / statistics.median(seconds),
        "error": error,
        "reference_error": reference["E"]["mean"],
        "error_ratio": error / reference["E"]["mean"],
        "reference": case.fidelity(case.picture("out.png")),
        **case.fidelity(result.image_HWC),
    }


def missed(rows: list[dict[str, Any]]) -> list[str]:
    """The bounds that are missed, in words."""
    words = []
    for row in rows:
        if row["error_ratio"] > ERROR_EACH:
            words.append(f"{row['case']}: patch error x {row['error_ratio']:.4f} > {ERROR_EACH}")
        if row["psnr"] < row["reference"]["psnr"] - PSNR_LOSS:
            words.append(f"{row['case']}: PSNR {row['psnr'] - row['reference']['psnr']:+.3f} dB")
    mean = statistics.mean(row["error_ratio"] for row in rows)
    if mean > ERROR_MEAN:
        words.append(f"patch error x {mean:.4f} > {ERROR_MEAN} on average")
    speed_ups = [row["speed_up"] for row in rows if row["large"]]
    if speed_ups and statistics.mean(speed_ups) < SPEED_UP:
        words.append(f"{statistics.mean(speed_ups):.1f} times quicker, not {SPEED_UP}")
    return words


def table(rows: list[dict[str, Any]]) -> list[str]:
    """A Markdown table, each figure with the reference's."""
    lines = [
        "| case | seconds (reference) | times quicker | patch error, x reference "
        "| PSNR (reference) | SSIM (reference) | warp error (reference) |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        theirs = row["reference"]
        lines.append(
            f"| {row['case']} | {row['seconds']:.4g} ({row['reference_seconds']:.1f}) "
            f"| {row['speed_up']:.0f} | {row['error_ratio']:.4f} "
            f"| {row['psnr']:.2f} ({theirs['psnr']:.2f}) "
            f"| {row['ssim']:.4f} ({theirs['ssim']:.4f}) "
            f"| {row['warp_error']:.2f} ({theirs['warp_error']:.2f}) |"
        )
    error = statistics.mean(row["error_ratio"] for row in rows)
    large = [row["speed_up"] for row in rows if row["large"]] or [0.0]
    lines.append(f"| mean | | {statistics.mean(large):.0f} (512 px) | {error:.4f} | | | |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=Path, default=Path("../shared/propagation"))
    parser.add_argument("--clips", type=Path, default=Path("../shared/clips"))
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--quality", help="reference, balanced or fast; default: the default")
    parser.add_argument("--only", default="", help="cases and clips with this in their name")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--picture", type=Path, help="draw reference, ours and difference here")
    parser.add_argument("--device", default="", help="paint there, not on the CPU: cuda")
    parser.add_argument("--chains", type=int, default=1, help="painted at once on the device")
    arguments = parser.parse_args()
    cases = [case for case in cases_in(arguments.cases) if arguments.only in case.name]
    clips = [clip for clip in sorted(arguments.clips.glob("*.mp4")) if arguments.only in clip.name]
    clips = [] if arguments.device else clips
    if not cases:
        sys.exit(f"{arguments.cases}: no case there: name their folder with --cases")
    cv2.setNumThreads(1)
    options = PropagationOptions()
    if arguments.quality:
        options = PropagationOptions(quality=arguments.quality)
    start = time.perf_counter()
    measure(cases[0], options, 1, arguments.device)  # machine code is made or read
    print(f"first run {time.perf_counter() - start:.1f} s, compilation included\n")
    where = arguments.device, arguments.chains
    rows = [measure(case, options, arguments.repeat, *where) for case in cases]
    print("\n".join(table(rows)), flush=True)
    words = missed(rows)
    figures: dict[str, Any] = {"cases": rows}
    if clips:
        segments = propagation_segment.measure_all(clips, options)
        print("\n" + "\n".join(propagation_segment.table(segments)))
        words += propagation_segment.missed(segments)
        figures["segments"] = segments
    else:
        print("\nno clip was measured: the bounds of segments were not checked (--clips)")
    if arguments.picture:
        propagation_picture.draw(cases, options, arguments.picture)
    if arguments.json:
        arguments.json.write_text(json.dumps({**figures, "missed": words}, indent=1) + "\n")
    if words and not arguments.quality:
        sys.exit("\n" + "\n".join(words))


if __name__ == "__main__":
    main()
