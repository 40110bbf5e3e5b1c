"""Two results of the same scenes side by side, for a person to look at.

    python -m benchmarks.propagation_picture FILE

draws two scenes of the project's own, by our quality ``reference`` and by the default; the pictures
of the reference implementation are drawn by ``python -m benchmarks.propagation --picture FILE``.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from benchmarks.propagation_segment import stylise
from fresco_core.propagation.options import PropagationOptions
from fresco_core.propagation.patchmatch import Guide, Synthesis, synthesize
from fresco_core.propagation.positions import positions

Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Scene:
    """Discs before a soft ground; ``move`` pixels later they have moved, each its own way."""

    name: str
    move: float

    def picture(self, name: str) -> Picture:
        """What a case has: truth.png, and for out.png what ours makes at quality ``reference``."""
        if name == "truth.png":
            return stylise(self.frame(self.move))
        return self.synthesize(PropagationOptions(quality="reference")).image_HWC

    def synthesize(self, options: PropagationOptions) -> Synthesis:
        source, target = self.frame(0), self.frame(self.move)
        place = positions(*source.shape[:2])
        guides = [Guide(source, target, 6.0), Guide(place, place, 2.0)]
        return synthesize(stylise(source), guides, effort=options.effort, seed=options.seed)

    def frame(self, move: float, side: int = 256) -> Picture:
        random = np.random.default_rng(len(self.name))
        noise = random.normal(size=(side, side, 3)).astype(np.float32)
        ground = cv2.GaussianBlur(noise, (0, 0), 12)
        picture = 120 + 60 * ground / ground.std()
        y, x = np.indices((side, side), np.float32)
        for _ in range(14):
            place, way = random.uniform(0, side, 2), random.normal(size=2)
            colour, radius = random.uniform(30, 225, 3), random.uniform(10, 34)
            distance = np.hypot(x - place[0] - move * way[0], y - place[1] - move * way[1])
            inside = np.clip(radius - distance, 0, 1)[..., None]
            picture = picture * (1 - inside) + inside * colour * (1 - distance / 90)[..., None]
        return np.clip(picture, 0, 255).astype(np.uint8)


def draw(
    cases: list[Any], options: PropagationOptions, file: Path, first: str = "reference"
) -> None:
    """The first and the last large case (any, where none is large), one row each.

    ``first``: who made the cases' out.png, for the title.
    """
    large = [case for case in cases if getattr(case, "large", True)] or cases
    chosen = [large[0], large[-1]] if len(large) > 1 else large
    figure = Figure(figsize=(16, 4.6 * len(chosen)), layout="constrained")
    for row, case in enumerate(chosen):
        theirs, ours = case.picture("out.png"), case.synthesize(options).image_HWC
        difference = np.abs(theirs.astype(np.int16) - ours).astype(np.float64)
        columns = {
            f"{case.name}: {first}": theirs,
            f"ours, quality {options.quality}": ours,
            f"4 x difference, mean {difference.mean():.1f} of 255": np.minimum(
                4 * difference, 255
            ).astype(np.uint8),
            "the true frame": case.picture("truth.png"),
        }
        for number, (title, picture) in enumerate(columns.items(), 1):
            axes = figure.add_subplot(len(chosen), 4, 4 * row + number)
            axes.imshow(picture)
            axes.set_title(title)
            axes.axis("off")
    figure.savefig(file, dpi=70)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("python -m benchmarks.propagation_picture FILE")
    cv2.setNumThreads(1)
    scenes = [Scene("near", 6), Scene("farther", 14)]
    draw(scenes, PropagationOptions(), Path(sys.argv[1]), "ours, quality reference")
