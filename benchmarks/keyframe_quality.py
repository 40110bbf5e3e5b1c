"""How far the quick path on a GPU is from the float32 path without the project's kernels.

    python -m benchmarks.keyframe_quality [--clip FILE] [--size 512x512] [--batch 8] [--draws 5]
        [--folder DIR]

Makes random weights of Stable Diffusion 1.5's size (or takes those in DIR) and translates one batch
with all constraints on, and with all but the feature optimisation: in half precision with the
project's kernels, as GPUs do by default, and without them; in float32 without them, and so once
more with noise that is off by a little, in some draws: that tells how far chance carries results
apart, because the feature optimisation takes steps by signs, and enlarges whatever differs. Once
more in float32 with features moved as the quick path has moved them, so that rounding is the only
difference between these two. Prints the PSNR of key frames, and the losses that the feature
optimisation reaches from the same features.
"""

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.device_memory import load_large_model, scene
from benchmarks.keyframe_batch import key_frames
from fresco_core.batch import KeyFrameBatch
from fresco_core.flow import load_flow
from fresco_core.fused_optimization import FusedOptimization
from fresco_core.models import DiffusionModels
from fresco_core.optimization import (
    TEMPORAL_WEIGHT,
    FeatureOptimization,
    correlation,
    optimize_features,
    spatial_loss,
    temporal_loss,
)
from fresco_core.options import TranslationOptions
from fresco_core.sampling import SeededNoise, to_uint8
from fresco_core.translator import FrescoTranslator

# A small one, and what half precision rounds by.
SMALL, ROUNDING = 1e-6, 2.0**-11


class PerturbedNoise(SeededNoise):
    """`SeededNoise` whose latents are off by so much, otherwise in each draw."""

    def __init__(self, seed: int, off: float, draw: int) -> None:
        super().__init__(seed)
        self._off = off
        self._errors = torch.Generator().manual_seed(draw)

    def latent(self, shape: tuple[int, ...]) -> torch.Tensor:
        """See `Noise.latent`."""
        return super().latent(shape) + self._off * torch.randn(shape, generator=self._errors)


class Moves:
    """By how much an optimisation moves features; has others moved just so."""

    def __init__(self, optimize: FeatureOptimization) -> None:
        self._optimize = optimize
        self._noted: list[torch.Tensor] = []

    def note(self, feature_BChw: torch.Tensor, **given: Any) -> torch.Tensor:
        """Optimise, and note it."""
        found = self._optimize(feature_BChw, **given)
        self._noted.append(found.float() - feature_BChw.float())
        return found

    def repeat(self, feature_BChw: torch.Tensor, **given: Any) -> torch.Tensor:
        """What was noted first is done first."""
        return feature_BChw + self._noted.pop(0)


QUICK, HALF = "half precision, kernels", "half precision, plain"
REFERENCE = "float32, plain"
MOVED = f"{REFERENCE}, features moved as the quick path does"
ALL = "all constraints"
OPTIONS = {
    ALL: TranslationOptions(),
    "all but feature optimisation": TranslationOptions(feature_optimization=False),
}


def translator_of(models: DiffusionModels, constraints: str, *, kernels: bool) -> FrescoTranslator:
    return FrescoTranslator(
        models, load_flow("dis", None, "cuda"), OPTIONS[constraints], kernels=kernels
    )


@torch.no_grad()
def key_frames_by(
    translator: FrescoTranslator, batch: KeyFrameBatch, noise: SeededNoise
) -> NDArray[np.uint8]:
    """The batch's key frames, (N,H,W,3)."""
    conditioning = translator.conditioner.condition(batch, translator.options)
    references = translator.reference_pass(conditioning, noise)
    latents_N4hw, _ = translator.sample(conditioning, references, noise)
    frames = to_uint8(translator.codec.decode(latents_N4hw)).cpu().numpy()
    translator.attention.clear()
    return np.asarray(frames)


def psnr(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> float:
    """Of two pictures or more, in dB."""
    error = float(np.mean((first.astype(np.float64) - second) ** 2))
    return float(10 * np.log10(255**2 / max(error, 1e-12)))


def compared(frames: NDArray[np.uint8], others: NDArray[np.uint8]) -> str:
    """PSNR of key frames, and that of the one that differs most."""
    lowest = min(psnr(*pair) for pair in zip(frames, others, strict=True))
    return f"{psnr(frames, others):.1f} ({lowest:.1f}) dB"


class Losses:
    """Stands for an optimisation; notes the losses that it and the plain one reach."""

    def __init__(self) -> None:
        self.fused = FusedOptimization()
        self.reached: dict[tuple[int, ...], list[tuple[float, float]]] = {}

    def __call__(self, feature_BChw: torch.Tensor, **given: Any) -> torch.Tensor:
        raw: list[torch.Tensor] = []
        optimize_features(feature_BChw, **given, on_iteration=lambda _, found: raw.append(found))
        found = self.fused(feature_BChw, **given)
        optimizer = next(reversed(self.fused._optimizers.values()))
        rows, columns = feature_BChw.shape[-2:]
        fused = optimizer.feature_BPC.mT.reshape(*feature_BChw.shape[:2], rows, columns)
        pair = self._loss(raw[-1], **given), self._loss(fused, **given)
        self.reached.setdefault(tuple(feature_BChw.shape), []).append(pair)
        return found

    @torch.no_grad()
    def _loss(
        self, feature_BChw: torch.Tensor, reference_BPC: Any, correspondence: Any, options: Any
    ) -> float:
        spatial = spatial_loss(feature_BChw.float(), correlation(reference_BPC.float()))
        temporal = temporal_loss(
            feature_BChw.float(), correspondence.on_grid(feature_BChw.shape[-2])
        )
        return float(options.spatial_weight * spatial + TEMPORAL_WEIGHT * temporal)


Translations = dict[tuple[str, str], NDArray[np.uint8]]


def translations(models: DiffusionModels, batch: KeyFrameBatch, draws: int) -> Translations:
    """The batch's key frames by path and constraints; the models are in float32 afterwards."""
    found: Translations = {}
    begin = time.perf_counter()

    def find(
        path: str, constraints: str, translator: FrescoTranslator, noise: SeededNoise | None = None
    ) -> None:
        found[path, constraints] = key_frames_by(translator, batch, noise or SeededNoise(0))
        passed = time.perf_counter() - begin
        print(f"{passed:.0f} s: {path}, {constraints}", file=sys.stderr, flush=True)

    for constraints in OPTIONS:
        quick = translator_of(models, constraints, kernels=True)
        if constraints == ALL:
            moves = Moves(quick.optimize)
            quick.optimize = moves.note
        find(QUICK, constraints, quick)
        del quick
        find(HALF, constraints, translator_of(models, constraints, kernels=False))
    for network in (models.unet, models.vae, models.text_encoder, *models.controlnets):
        network.float()
    models = replace(models, dtype=torch.float32)
    for constraints in OPTIONS:
        plain = translator_of(models, constraints, kernels=False)
        find(REFERENCE, constraints, plain)
        for draw in range(draws if constraints == ALL else 1):
            noise = PerturbedNoise(0, SMALL, draw)
            find(f"{REFERENCE}, noise off by {SMALL:.0e} ({draw})", constraints, plain, noise)
        noise = PerturbedNoise(0, ROUNDING, 0)
        find(f"{REFERENCE}, noise off by {ROUNDING:.1e}", constraints, plain, noise)
        if constraints == ALL:
            plain.optimize = moves.repeat
            find(MOVED, ALL, plain)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clip", type=Path)
    parser.add_argument("--size", default="512x512")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    width, height = map(int, arguments.size.split("x"))
    count = arguments.batch
    if arguments.clip is None:
        batch = scene(count, width, height)
    else:
        batch = key_frames(arguments.clip, count, width, height)
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False

    models = load_large_model(arguments.folder)
    quick = translator_of(models, ALL, kernels=True)
    quick.optimize = losses = Losses()
    key_frames_by(quick, batch, SeededNoise(0))
    del quick
    found = translations(models, batch, arguments.draws)
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {arguments.size}")
    print("PSNR to float32, plain (the lowest of a key frame)\n")
    print("| path | " + " | ".join(OPTIONS) + " |")
    print("| --- |" + " --- |" * len(OPTIONS))
    for name in dict.fromkeys(name for name, _ in found):
        if name in (REFERENCE, MOVED):
            continue
        cells = [
            compared(found[name, constraints], found[REFERENCE, constraints])
            if (name, constraints) in found
            else ""
            for constraints in OPTIONS
        ]
        print(f"| {name} | " + " | ".join(cells) + " |")
    rounding = compared(found[QUICK, ALL], found[MOVED, ALL])
    print(f"\n{QUICK}, to {MOVED} (rounding alone): {rounding}")
    print("\n| feature | loss, plain | loss, kernels | largest difference |")
    print("| --- | --- | --- | --- |")
    for shape, pairs in losses.reached.items():
        plain_loss, fused_loss = (sum(losses) / len(pairs) for losses in zip(*pairs, strict=True))
        worst = max(abs(fused / one - 1) for one, fused in pairs)
        name = "x".join(map(str, shape[1:]))
        print(f"| {name} | {plain_loss:.4f} | {fused_loss:.4f} | {worst:.2%} |")


if __name__ == "__main__":
    main()
