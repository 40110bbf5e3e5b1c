"""How time and memory of a key frame batch grow with its size and that of the pictures, on a GPU.

    python -m benchmarks.keyframe_growth [--sizes 384x384,512x512] [--batches 3,8,16] [--folder DIR]
        [--runs 3] [--plot FILE] [--json FILE]

Later batches of a scene that pans, all constraints on, as `keyframe_batch` makes them: every batch
size at 512x512, and every size of pictures with batches of 8. The two batches that warm up tell
what a new size costs: kernels and graphs that are made for it. Memory is that of the one size.
"""

import argparse
import json
import time
from math import prod
from pathlib import Path
from statistics import median

import torch

from benchmarks.device_memory import GIB, load_large_model, part, scene
from benchmarks.keyframe_batch import matched
from fresco_core.flow import load_flow
from fresco_core.options import TranslationOptions
from fresco_core.translator import FrescoTranslator

SIZES = "384x384,512x512,896x512,640x640,768x768,1024x1024"
BATCHES = "3,4,6,8,12,16"
USUAL = "512x512", 8

Figures = dict[str, float]


def measured(translator: FrescoTranslator, size: str, count: int, runs: int) -> Figures | None:
    """Seconds of a new size's first batches and of later ones, GiB; None: not enough memory."""
    width, height = map(int, size.split("x"))
    wholes = [scene(2 * count - 2, width, height, seed) for seed in range(runs)]
    translator.release()
    torch.cuda.reset_peak_memory_stats()
    seconds = []
    try:
        first = matched(part(wholes[0], slice(count)), None)
        begin = time.perf_counter()
        carry = translator.translate(first).carry
        seconds.append(time.perf_counter() - begin)
        # What warms up is measured again: pictures differ in what they take.
        for whole in (wholes[0], *wholes):
            batch = matched(part(whole, slice(count, None)), carry)
            begin = time.perf_counter()
            translator.translate(batch, carry)
            seconds.append(time.perf_counter() - begin)
    except torch.OutOfMemoryError:
        return None
    later = median(seconds[2:])
    return {
        "later batch, s": later,
        "per new key frame, s": later / (count - 2),
        "new size, s": sum(seconds[:2]) - 2 * seconds[2],
        "peak, GiB": torch.cuda.max_memory_reserved() / GIB,
    }


def table(figures: dict[str, Figures | None], first: str) -> str:
    """A row for each measurement."""
    names = next(iter(each for each in figures.values() if each is not None)).keys()
    lines = [f"| {first} | " + " | ".join(names) + " |", "| --- |" + " --- |" * len(names)]
    for key, found in figures.items():
        cells = [f"{found[name]:.2f}" if found else "-" for name in names]
        lines.append(f"| {key} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def plot(by_size: dict[str, Figures | None], by_batch: dict[str, Figures | None], to: Path) -> None:
    """Seconds and GiB over the batch and over the pixels."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    pixels = {size: prod(map(int, size.split("x"))) for size in by_size}
    for axis, xs, found, label in (
        (left, [float(count) for count in by_batch], by_batch, "key frames in a batch (512x512)"),
        (right, [pixels[size] / 1e6 for size in by_size], by_size, "megapixels (batches of 8)"),
    ):
        points = sorted((x, each) for x, each in zip(xs, found.values(), strict=True) if each)
        memory = axis.twinx()
        places = [x for x, _ in points]
        axis.plot(places, [each["later batch, s"] for _, each in points], "o-", color="C0")
        memory.plot(places, [each["peak, GiB"] for _, each in points], "s--", color="C1")
        axis.set(xlabel=label, ylim=(0, None))
        axis.set_ylabel("seconds", color="C0")
        memory.set_ylabel("GiB", color="C1")
        memory.set_ylim(0, None)
    figure.suptitle(f"A later batch on one {torch.cuda.get_device_name()}")
    figure.savefig(to, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default=SIZES)
    parser.add_argument("--batches", default=BATCHES)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    translator = FrescoTranslator(
        load_large_model(arguments.folder), load_flow("dis", None, "cuda"), TranslationOptions()
    )
    by_size: dict[str, Figures | None] = {}
    by_batch: dict[str, Figures | None] = {}
    for size in arguments.sizes.split(","):
        by_size[size] = measured(translator, size, USUAL[1], arguments.runs)
        print(size, by_size[size], flush=True)
    for count in arguments.batches.split(","):
        usual = by_size.get(USUAL[0]) if int(count) == USUAL[1] else None
        by_batch[count] = usual or measured(translator, USUAL[0], int(count), arguments.runs)
        print(count, by_batch[count], flush=True)
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}\n")
    print(table(by_batch, "batch, 512x512"), table(by_size, "size, batch 8"), sep="\n\n")
    if arguments.plot:
        plot(by_size, by_batch, arguments.plot)
    if arguments.json:
        arguments.json.write_text(json.dumps({"size": by_size, "batch": by_batch}, indent=1))


if __name__ == "__main__":
    main()
