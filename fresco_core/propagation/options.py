"""What a caller may choose about propagation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fresco_core.propagation.effort import DEVICE_QUALITIES, QUALITIES, Effort, Quality

Rounding = Literal["nearest", "down"]

LARGEST_PATCH = 15
"""Of whose pixels a sum fits into 16 bits."""
PUBLISHED_WEIGHTS = (2.5, 0.5, 0.5)
PUBLISHED_CLIP = 100.0


@dataclass(frozen=True)
class PropagationOptions:
    """How key frames are carried to the frames between them.

    ``engine``: what paints a frame, ``builtin`` (`synthesize`) or ``ebsynth``, the original
    program, found by ``program``: a name on the PATH, or a path.

    Synthesis: ``quality`` against time, ``reference``, ``balanced`` or ``fast``; in place of what
    it stands for may be given ``votes`` search-vote rounds a level (0: as the quality has it),
    ``sweeps`` search passes a round (0 likewise), ``still`` grey levels up to which a pixel counts
    as unchanged and is not searched again (-1: search all, -2: as the quality has it). ``patch``
    side in pixels (odd); ``uniformity`` penalty on source pixels used too often; ``seed`` of the
    random search. The program has no ``still`` and no ``seed``, and one quality: its own.

    Guide weights: ``colour``, ``edge``, ``temporal``, ``positional`` (the style has 1). Where the
    flow is occluded, guides are filled: with ``inpaint_scale`` 0 by averages of what is around,
    else by inpainting (Telea) from within ``inpaint_radius`` pixels, at one ``inpaint_scale``-th of
    the size.

    Merging: ``timing`` of the second key frame's weight, ``symmetric`` or ``published``; ``blend``
    of both directions, ``histogram`` or ``selection`` (each pixel from one of them); ``poisson``
    removes seams, with ``poisson_weights`` of the gradients for L, a, b and gradients limited to
    ``poisson_clip`` levels (None: not limited), its result rounded ``nearest`` or ``down``
    (``poisson_rounding``).
    """

    quality: Quality = "balanced"
    patch: int = 5
    votes: int = 0
    sweeps: int = 0
    uniformity: float = 3500.0
    still: int = -2
    seed: int = 0
    colour: float = 6.0
    edge: float = 0.5
    temporal: float = 0.5
    positional: float = 2.0
    inpaint_radius: int = 48
    inpaint_scale: int = 0
    timing: Literal["symmetric", "published"] = "symmetric"
    blend: Literal["histogram", "selection"] = "histogram"
    poisson: bool = True
    poisson_weights: tuple[float, float, float] = (0.5, 0.5, 0.5)
    poisson_clip: float | None = None
    poisson_rounding: Rounding = "nearest"
    engine: Literal["builtin", "ebsynth"] = "builtin"
    program: str = "ebsynth"

    def __post_init__(self) -> None:
        for name, good in (
            ("engine", self.engine in ("builtin", "ebsynth")),
            ("quality", self.quality in QUALITIES),
            ("patch", 1 <= self.patch <= LARGEST_PATCH and self.patch % 2 == 1),
            ("votes", self.votes >= 0),
            ("sweeps", self.sweeps >= 0),
            ("still", -2 <= self.still <= 255),
            ("uniformity", self.uniformity >= 0),
            ("inpaint_radius", self.inpaint_radius >= 1),
            ("inpaint_scale", self.inpaint_scale >= 0),
            ("timing", self.timing in ("symmetric", "published")),
            ("blend", self.blend in ("histogram", "selection")),
            ("poisson_rounding", self.poisson_rounding in ("nearest", "down")),
            ("poisson_weights", len(self.poisson_weights) == 3),
        ):
            if not good:
                raise ValueError(f"{name} cannot be {getattr(self, name)!r}")

    @property
    def effort(self) -> Effort:
        """What the quality stands for, and what is given in its place."""
        return self._changed(QUALITIES["reference" if self.engine == "ebsynth" else self.quality])

    @property
    def device_effort(self) -> Effort:
        """The same on a device."""
        return self._changed(DEVICE_QUALITIES[self.quality])

    def _changed(self, usual: Effort) -> Effort:
        return Effort(
            votes=self.votes or usual.votes,
            sweeps=self.sweeps or usual.sweeps,
            still=usual.still if self.still == -2 else self.still,
            far=usual.far,
        )

    @classmethod
    def published(cls) -> PropagationOptions:
        """The values of FRESCO (Yang et al., CVPR 2024), slower and not better."""
        return cls(
            quality="reference",
            inpaint_radius=30,
            inpaint_scale=1,
            timing="published",
            poisson_weights=PUBLISHED_WEIGHTS,
            poisson_clip=PUBLISHED_CLIP,
            poisson_rounding="down",
        )
