"""A whole segment of a real clip: core seconds by stage, and how near the frames are to the truth.

No key frame of a diffusion model is needed: a fixed stylisation of every frame stands for it, so
that the frames between are known.

Shape suffixes: T frames; H, W rows and columns; C = RGB.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from operator import itemgetter
from pathlib import Path
from typing import Any
from unittest.mock import patch

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import diags, identity, kron
from scipy.sparse.linalg import cg
from skimage.metrics import structural_similarity

from fresco_core.flow.inverse_search import InverseSearch
from fresco_core.propagation import blending, chain, poisson, propagate
from fresco_core.propagation import segment as segment_module
from fresco_core.propagation.options import PUBLISHED_CLIP, PUBLISHED_WEIGHTS, PropagationOptions
from fresco_core.propagation.painter import Painter
from fresco_core.propagation.warp import occlusion

Picture = NDArray[np.uint8]

KEY_DISTANCE, SIDE = 5, 512
AROUND = 0.25
"""Core seconds a frame for all but synthesis."""
LEVEL = 1.0
"""Grey levels by which Poisson fusion may miss the least-squares minimum."""
MERGING: dict[str, dict[str, Any]] = {
    "selection": {"blend": "selection", "poisson": False},
    "selection, Poisson 0.5": {"blend": "selection"},
    "histogram": {"poisson": False},
    "histogram, Poisson 0.25": {"poisson_weights": (0.25,) * 3},
    "histogram, Poisson 0.5 (default)": {},
    "histogram, Poisson 0.5, rounded down": {"poisson_rounding": "down"},
    "histogram, Poisson 1": {"poisson_weights": (1.0,) * 3},
    "histogram, Poisson 2.5 on L, clip 100 (published)": {
        "poisson_weights": PUBLISHED_WEIGHTS,
        "poisson_clip": PUBLISHED_CLIP,
        "poisson_rounding": "down",
    },
}
"""What of the options merging could be."""
STAGES = {
    "guides": [(chain, "occlusion"), (chain, "carry"), (chain, "edges"), (chain, "positions")],
    "synthesis": [(Painter, "__init__"), (Painter, "paint")],
    "selection": [(blending, "choose"), (blending, "steady"), (blending, "assemble")],
    "histogram": [(blending.histogram, "blend")],
    "Poisson": [(blending.poisson, "fuse")],
}
"""What is timed as what."""


@dataclass(frozen=True)
class Segment:
    """Frames from one key frame to the next, both included, and their flows."""

    name: str
    frames_THWC: Picture
    forward: NDArray[np.float32]
    backward: NDArray[np.float32]

    @cached_property
    def truth_THWC(self) -> Picture:
        return np.stack([stylise(frame) for frame in self.frames_THWC])

    @property
    def occluded(self) -> float:
        """Share of the pixels, of both directions."""
        pairs = list(zip(self.forward, self.backward, strict=True))
        masks = [occlusion(a, b) for a, b in pairs] + [occlusion(b, a) for a, b in pairs]
        return float(np.mean(masks))


def segment_of(clip: Path, side: int) -> Segment:
    """The first frames of a clip, the middle square of each at ``side`` pixels."""
    capture = cv2.VideoCapture(str(clip))
    frames = []
    while len(frames) <= KEY_DISTANCE:
        found, frame = capture.read()
        if not found:
            raise FileNotFoundError(f"{clip}: no clip of more than {KEY_DISTANCE} frames")
        frames.append(square(frame[..., ::-1], side))
    frames_THWC = np.stack(frames)
    return Segment(clip.stem, frames_THWC, *InverseSearch()(frames_THWC[:-1], frames_THWC[1:]))


def square(picture_HWC: Picture, side: int) -> Picture:
    """The middle square at ``side`` x ``side`` pixels."""
    height, width = picture_HWC.shape[:2]
    short = min(height, width)
    top, left = (height - short) // 2, (width - short) // 2
    middle = picture_HWC[top : top + short, left : left + short]
    inter = cv2.INTER_AREA if short >= side else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(middle, (side, side), interpolation=inter), np.uint8)


def stylise(picture_HWC: Picture) -> Picture:
    """Smoothed areas in other colours, with dark lines where the picture has edges."""
    smooth = cv2.bilateralFilter(np.ascontiguousarray(picture_HWC), 7, 40, 5) / 255.0
    mixed = np.stack(
        [
            smooth[..., 0] ** 0.6,
            0.7 * smooth[..., 1] + 0.3 * (1 - smooth[..., 2]),
            np.sin(np.pi * smooth[..., 2] / 2) ** 2,
        ],
        axis=-1,
    )
    grey = cv2.GaussianBlur(smooth.mean(-1), (0, 0), 1.0)
    line = np.clip((cv2.GaussianBlur(grey, (0, 0), 2.5) - grey - 0.015) * 25, 0, 0.85)
    return np.rint(255 * mixed * (1 - line[..., None])).astype(np.uint8)


@contextmanager
def stopwatch() -> Iterator[dict[str, float]]:
    """Process CPU seconds of every stage; what else there is comes under no name."""
    seconds: dict[str, float] = defaultdict(float)

    def timed(stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **options: Any) -> Any:
            start = time.process_time()
            try:
                return function(*arguments, **options)
            finally:
                seconds[stage] += time.process_time() - start

        return run

    with ExitStack() as stack:
        for stage, places in STAGES.items():
            for place, name in places:
                stack.enter_context(patch.object(place, name, timed(stage, getattr(place, name))))
        yield seconds


def measure(segment: Segment, options: PropagationOptions) -> dict[str, Any]:
    """Core seconds by stage for each frame between, and its fidelity."""
    truth_THWC = segment.truth_THWC
    with stopwatch() as seconds:
        start = time.process_time()
        frames_THWC = propagate(
            segment.frames_THWC,
            truth_THWC[0],
            truth_THWC[-1],
            segment.forward,
            segment.backward,
            options=options,
        )
        total = time.process_time() - start
    count = len(frames_THWC)
    return {
        "clip": segment.name,
        "occluded": segment.occluded,
        "seconds": {stage: seconds[stage] / count for stage in STAGES},
        "total": total / count,
        "around": (total - seconds["synthesis"]) / count,
        **fidelity(frames_THWC, truth_THWC[1:-1]),
    }


def fidelity(frames_THWC: Picture, truth_THWC: Picture) -> dict[str, float]:
    """Means of PSNR and SSIM; sharpness: deviation of the Laplacian over that of the truth."""
    pairs = list(zip(frames_THWC, truth_THWC, strict=True))
    return {
        "psnr": float(np.mean([cv2.PSNR(*pair) for pair in pairs])),
        "ssim": float(np.mean([structural_similarity(*pair, channel_axis=2) for pair in pairs])),
        "sharpness": float(np.mean([_detail(ours) / _detail(true) for ours, true in pairs])),
    }


def _detail(picture_HWC: Picture) -> float:
    grey = cv2.cvtColor(picture_HWC, cv2.COLOR_RGB2GRAY)
    return float(cv2.Laplacian(grey, cv2.CV_64F).std())


def measure_all(clips: list[Path], options: PropagationOptions) -> dict[str, Any]:
    """Segments at two sizes of occlusion and more, the ways of merging, and Poisson's accuracy."""
    segments = [segment_of(clip, SIDE) for clip in clips]
    measure(segments[0], replace(options, votes=2, sweeps=1))  # machine code is made or read
    rows = sorted((measure(segment, options) for segment in segments), key=itemgetter("occluded"))
    last = segments[-1]
    return {
        "segments": rows,
        "merging": compare_merging(segments, options),
        "poisson_off_by": poisson_off_by(last.truth_THWC[0], last.truth_THWC[-1]),
    }


def compare_merging(segments: list[Segment], options: PropagationOptions) -> dict[str, Any]:
    """Fidelity of each way of `MERGING`, mean over the segments; both directions painted once."""
    figures: dict[str, list[dict[str, float]]] = defaultdict(list)
    for segment in segments:
        held: list[Any] = []

        def hold(*arguments: Any, held: list[Any] = held) -> Iterator[Any]:
            held[:] = arguments[:-1]
            return blending.merge(*arguments)

        with patch.object(segment_module, "merge", hold):
            measure(segment, options)
        for name, changes in MERGING.items():
            merged = blending.merge(*held, replace(options, **changes))
            frames_THWC = np.stack([frame for frame, _ in merged])
            figures[name].append(fidelity(frames_THWC, segment.truth_THWC[1:-1]))
    return {
        name: {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
        for name, rows in figures.items()
    }


def poisson_off_by(first_HWC: Picture, second_HWC: Picture) -> dict[str, float]:
    """Largest difference to the least-squares minimum, in levels, by the weight of gradients.

    The minimum is that of conjugate gradients in float64 on the sparse matrix of differences.
    """
    mask = np.random.default_rng(0).random(first_HWC.shape[:2]) < 0.5
    mask = cv2.medianBlur(mask.astype(np.uint8) * 255, 15) > 0
    target = first_HWC.astype(np.float32)
    off = {}
    for weight in (0.5, 2.5):
        ours = poisson.solve(target, first_HWC, second_HWC, mask, weights=(weight,) * 3, clip=None)
        off[str(weight)] = 0.0
        for c in range(3):
            exact = _minimum(target[..., c], first_HWC[..., c], second_HWC[..., c], mask, weight)
            off[str(weight)] = max(off[str(weight)], float(np.abs(exact - ours[..., c]).max()))
    return off


def _minimum(
    target_HW: NDArray[np.float32],
    first_HW: Picture,
    second_HW: Picture,
    mask_HW: NDArray[np.bool_],
    weight: float,
) -> NDArray[np.float64]:
    """Of weight² |differences of u - chosen ones|² + |u - target|²."""
    height, width = mask_HW.shape
    matrix = identity(height * width, format="csr")
    right = target_HW.astype(np.float64).ravel()
    for step in (
        kron(diags([1.0, -1.0], [0, 1], shape=(height - 1, height)), identity(width)),
        kron(identity(height), diags([1.0, -1.0], [0, 1], shape=(width - 1, width))),
    ):
        step = step.tocsr()
        of_second = step.maximum(0) @ mask_HW.ravel() > 0  # the upper or left pixel decides
        chosen = np.where(
            of_second, step @ second_HW.ravel().astype(float), step @ first_HW.ravel().astype(float)
        )
        matrix = matrix + weight**2 * (step.T @ step)
        right += weight**2 * (step.T @ chosen)
    solution, stopped = cg(matrix, right, rtol=1e-12)
    assert stopped == 0
    return np.asarray(solution).reshape(height, width)


def missed(figures: dict[str, Any]) -> list[str]:
    """The bounds that are missed, in words."""
    words = [
        f"{row['clip']}: guides, selection and blending {row['around']:.3f} s > {AROUND}"
        for row in figures["segments"]
        if row["around"] > AROUND
    ]
    off = max(figures["poisson_off_by"].values())
    return words + ([f"Poisson off by {off:.3f} levels"] if off > LEVEL else [])


def table(figures: dict[str, Any]) -> list[str]:
    """Markdown tables of the segments and of the ways of merging."""
    lines = [
        f"| clip | occluded | {' | '.join(STAGES)} | all but synthesis | PSNR | SSIM |",
        f"| --- | --- | {'--- | ' * len(STAGES)}--- | --- | --- |",
    ]
    for row in figures["segments"]:
        seconds = " | ".join(f"{row['seconds'][stage]:.3f}" for stage in STAGES)
        lines.append(
            f"| {row['clip']} | {100 * row['occluded']:.1f} % | {seconds} "
            f"| {row['around']:.3f} | {row['psnr']:.2f} | {row['ssim']:.3f} |"
        )
    lines += ["", "| merging | PSNR | SSIM | sharpness |", "| --- | --- | --- | --- |"]
    for name, row in figures["merging"].items():
        lines.append(f"| {name} | {row['psnr']:.2f} | {row['ssim']:.4f} | {row['sharpness']:.3f} |")
    off = ", ".join(f"{off:.4f} at {key}" for key, off in figures["poisson_off_by"].items())
    return [*lines, "", f"Poisson is off by at most {off} (levels, by weight of gradients)."]
