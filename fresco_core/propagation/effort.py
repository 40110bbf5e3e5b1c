"""How much a synthesis tries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Quality = Literal["reference", "balanced", "fast"]


@dataclass(frozen=True)
class Effort:
    """``votes`` rounds a level, each of so many ``sweeps``: passes of search over the target.

    ``still``: after a level's first vote a pixel is searched again only if some pixel of its patch
    has changed by more than this many grey levels since; -1 searches every pixel.

    ``far``: times the mean patch error above which a pixel is searched for in the whole source;
    others are sought near where they are. There are few such pixels, and most of the error is
    theirs. 0 seeks all of them everywhere.
    """

    votes: int = 12
    sweeps: int = 6
    still: int = -1
    far: float = 0.0

    def __post_init__(self) -> None:
        for name, good in (
            ("votes", self.votes >= 1),
            ("sweeps", self.sweeps >= 1),
            ("still", -1 <= self.still <= 255),
            ("far", self.far >= 0),
        ):
            if not good:
                raise ValueError(f"{name} cannot be {getattr(self, name)!r}")


QUALITIES: dict[Quality, Effort] = {
    "reference": Effort(votes=12, sweeps=6, still=-1, far=0.0),
    "balanced": Effort(votes=14, sweeps=2, still=1, far=1.0),
    "fast": Effort(votes=16, sweeps=1, still=2, far=1.0),
}
"""Their figures: docs/decisions/0090-speed-of-propagation.md."""

DEVICE_QUALITIES: dict[Quality, Effort] = {
    "reference": Effort(votes=12, sweeps=6, still=-1, far=1.0),
    "balanced": Effort(votes=14, sweeps=3, still=0, far=1.0),
    "fast": Effort(votes=14, sweeps=2, still=1, far=1.0),
}
"""The same on a device, where news goes one pixel a sweep and sweeps cost little, but pixels that
all look far away at once rush to the same places: docs/decisions/0110-synthesis-on-a-gpu.md."""
