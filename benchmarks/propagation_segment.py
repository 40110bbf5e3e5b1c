"""A whole segment of a real clip: core seconds by stage, and how near the frames are to the truth.

No key frame of a diffusion model is needed: a fixed stylisation of every frame stands for it, so
that the frames between are known.

Shape suffixes: T frames; H, W rows and columns; C = RGB.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.metrics import structural_similarity

from fresco_core.flow.inverse_search import InverseSearch
from fresco_core.propagation import blending, chain, propagate
from fresco_core.propagation.options import PropagationOptions
from fresco_core.propagation.painter import Painter
from fresco_core.propagation.warp import occlusion

Picture = NDArray[np.uint8]

KEY_DISTANCE = 5
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
    truth_THWC = np.stack([stylise(frame) for frame in segment.frames_THWC])
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
    pairs = list(zip(frames_THWC, truth_THWC[1:-1], strict=True))
    return {
        "clip": segment.name,
        "occluded": segment.occluded,
        "seconds": {stage: seconds[stage] / count for stage in STAGES},
        "total": total / count,
        "around": (total - seconds["synthesis"]) / count,
        "psnr": float(np.mean([cv2.PSNR(*pair) for pair in pairs])),
        "ssim": float(np.mean([structural_similarity(*pair, channel_axis=2) for pair in pairs])),
        "sharpness": float(np.mean([_detail(ours) / _detail(true) for ours, true in pairs])),
    }


def _detail(picture_HWC: Picture) -> float:
    grey = cv2.cvtColor(picture_HWC, cv2.COLOR_RGB2GRAY)
    return float(cv2.Laplacian(grey, cv2.CV_64F).std())
