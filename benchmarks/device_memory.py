"""Device memory of a batch, by working size and batch size.

    python -m benchmarks.device_memory [--sizes 512x512,512x896] [--batches 4,8,16] [--folder DIR]

Makes random weights of Stable Diffusion 1.5's size (or takes those in DIR) and translates a later
batch with all constraints on: one sampling step in which all of them act, whose peak is that of a
whole batch. Prints a table of the memory that torch has reserved at most, in GiB; a dash where the
device has not enough. Sizes are width x height, multiples of 64.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from fresco_core.batch import KeyFrameBatch
from fresco_core.flow import load_flow
from fresco_core.models import DiffusionModels, load_diffusion_models
from fresco_core.options import OptimizationOptions, TranslationOptions
from fresco_core.translator import FrescoTranslator

SIZES = "384x384,512x512,896x512,768x768,1344x768,1024x1024"
BATCHES = "3,4,6,8,12,16"
GIB = 1 << 30
# The last step of the schedule alone, and every constraint in it.
ONE_STEP = TranslationOptions(
    steps=20,
    warmup_steps=19,
    temporal_attention_end=0,
    optimization_end=20,
    smoothing_begin=0.0,
    smoothing_end=1.0,
    optimization=OptimizationOptions(iterations=2),
)


def scene(count: int, width: int, height: int, seed: int = 0) -> KeyFrameBatch:
    """Key frames of a picture that pans, with control maps."""
    random = np.random.default_rng(seed)
    small = random.integers(0, 256, (height // 16, width // 16 + count, 3), np.uint8)
    wide = small.repeat(16, 0).repeat(16, 1)
    frames = np.stack([wide[:, 16 * i : 16 * i + width] for i in range(count)])
    return KeyFrameBatch(frames, frames[..., 0][:, None], ("a road",) * count)


def part(batch: KeyFrameBatch, chosen: slice) -> KeyFrameBatch:
    """Some key frames of a batch."""
    assert batch.controls is not None
    return KeyFrameBatch(batch.frames[chosen], batch.controls[chosen], batch.prompts[chosen])


def load_large_model(folder: Path | None) -> DiffusionModels:
    """The models of `large_model` on the device, made where they are not there."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = folder or Path(temporary)
        if not (folder / "sd").is_dir():
            # In a process of its own, whose memory on the device goes with it.
            command = [sys.executable, "-m", "benchmarks.large_model", str(folder)]
            subprocess.run(command, check=True)
        return load_diffusion_models(
            str(folder / "sd"),
            controlnets=[str(folder / "controlnet")],
            device="cuda",
            dtype=torch.float16,
            offline=True,
        )


def peak(translator: FrescoTranslator, count: int, width: int, height: int) -> float | None:
    """GiB reserved at most by a later batch of so many key frames; None: not enough memory."""
    whole = scene(count, width, height)
    first, later = part(whole, slice(2)), part(whole, slice(2, None))
    translator.release()
    try:
        carry = translator.translate(first).carry
        translator.release()
        torch.cuda.reset_peak_memory_stats()
        for _ in range(2):  # the second time everything is captured that ever is
            translator.translate(later, carry)
    except torch.OutOfMemoryError:
        return None
    return torch.cuda.max_memory_reserved() / GIB


def table(translator: FrescoTranslator, sizes: Sequence[str], batches: Sequence[int]) -> str:
    """A row for each size, a column for each batch size."""
    lines = [
        "| working size | " + " | ".join(f"batch {count}" for count in batches) + " |",
        "| --- |" + " --- |" * len(batches),
    ]
    for size in sizes:
        width, height = map(int, size.split("x"))
        cells = []
        for count in batches:
            found = peak(translator, count, width, height)
            cells.append("-" if found is None else f"{found:.1f}")
            print(f"{size}, batch {count}: {cells[-1]}", file=sys.stderr, flush=True)
        lines.append(f"| {size} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default=SIZES)
    parser.add_argument("--batches", default=BATCHES)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--flow", default="dis")
    arguments = parser.parse_args()
    models = load_large_model(arguments.folder)
    translator = FrescoTranslator(models, load_flow(arguments.flow, None, "cuda"), ONE_STEP)
    print(f"{torch.cuda.get_device_name()}, models alone {torch.cuda.memory_allocated() / GIB:.1f}")
    batches = [int(count) for count in arguments.batches.split(",")]
    print(table(translator, arguments.sizes.split(","), batches))


if __name__ == "__main__":
    main()
