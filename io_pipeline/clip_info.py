"""What is known of a clip after one complete pass over it."""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from io_pipeline.colour import Colour


@dataclass(frozen=True)
class ClipInfo:
    """A clip as it is displayed: every frame that decodes, and when it is shown.

    ``width`` and ``height`` are pixels after the rotation flag. ``times`` holds one presentation
    time per frame, in units of ``time_base`` seconds, strictly rising; ``end`` is the time at
    which the last frame ends, in the same units. ``frame_rate`` is the average in frames per
    second. ``rotation`` is the clockwise turn in degrees that was applied to the stored frames
    (0, 90, 180 or 270), after a left-right mirror where ``mirrored``. ``pixel_aspect`` is a
    displayed pixel's width over its height. ``engine`` decodes the frames ("decord" or "pyav").
    ``warnings`` are sentences for the user.
    """

    path: Path
    width: int
    height: int
    frame_count: int
    times: tuple[int, ...]
    end: int
    time_base: Fraction
    frame_rate: Fraction
    rotation: int
    mirrored: bool
    pixel_aspect: Fraction
    colour: Colour
    sound_tracks: int
    codec: str
    pixel_format: str
    engine: str
    warnings: tuple[str, ...]

    def seconds(self, frame_number: int) -> float:
        """Presentation time of a frame in seconds."""
        return float(self.times[frame_number] * self.time_base)

    @property
    def steady(self) -> bool:
        """Whether every frame is shown within half a frame of its place at ``frame_rate``."""
        step = 1 / (self.frame_rate * self.time_base)
        first = self.times[0]
        return all(
            abs(time - first - number * step) * 2 < step for number, time in enumerate(self.times)
        )
