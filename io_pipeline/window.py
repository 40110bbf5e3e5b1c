"""A window's place in its clip, and the arrays that it is made of.

Shapes: T frames of a window, K new key frames, M ControlNets, S sampling steps, H x W working size,
h x w = H/8 x W/8 latent grid, N key frames with those carried over from before, RGB.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from io_pipeline.blocks import Layout
from io_pipeline.plan import ClipPlan

# Whose control maps of a key frame count: each side writes its own, so that a worker that comes
# second never changes what the other one's reader has seen.
BY_CPU, BY_DEVICE = 0, 1


@dataclass(frozen=True)
class Window:
    """The frames that one batch of key frames needs.

    Attributes:
        index, count: which window of how many.
        first_frame: clip frame number of its first frame: 0, or the last key frame of the window
            before, whose frame is thus in both.
        key_numbers: clip frame numbers of the new key frames; the last is the window's last frame.
        height, width: working size.
        steps: sampling steps that are executed, S.
        controls: control maps of a key frame, one for each ControlNet: M, 0 without.
        flows: whether the device computes the flows that propagation needs.
        given: those of the M that come with the clip; the others are drawn.
        between: whether the frames between key frames are made.
        matched: whether the CPU pool finds the flows of its key frames, ahead of the device.
        salient: whether it finds what is salient in them by that, too.
        searched: whether it finds the flows that propagation needs.
    """

    index: int
    count: int
    first_frame: int
    key_numbers: tuple[int, ...]
    height: int
    width: int
    steps: int
    controls: int
    flows: bool
    given: tuple[int, ...] = ()
    between: bool = True
    matched: bool = False
    salient: bool = False
    searched: bool = False

    @property
    def frame_count(self) -> int:
        """T, the frame shared with the window before included."""
        return self.key_numbers[-1] + 1 - self.first_frame

    @property
    def key_offsets(self) -> tuple[int, ...]:
        """Where the new key frames are among the window's frames."""
        return tuple(number - self.first_frame for number in self.key_numbers)

    @property
    def ring(self) -> int:
        """N: its key frames and the two carried ones, which are translated together."""
        return len(self.key_numbers) + (2 if self.index else 0)

    @property
    def ring_pairs(self) -> int:
        """How many pairs of key frames the CPU pool matches; one alone has nothing to match."""
        return self.ring if self.matched and self.ring > 1 else 0

    @property
    def to_draw(self) -> tuple[int, ...]:
        """Which of a key frame's control maps are drawn by detectors."""
        return tuple(control for control in range(self.controls) if control not in self.given)

    @property
    def segments(self) -> tuple[tuple[int, int], ...]:
        """Offsets of the first and the last frame of every segment, key frames both.

        Segment i ends at new key frame i, or, in a clip's first window, at key frame i + 1. None
        where the frames between key frames are not made.
        """
        if not self.between:
            return ()
        ends = self.key_offsets if self.index == 0 else (0, *self.key_offsets)
        return tuple(itertools.pairwise(ends))

    @property
    def new_frames(self) -> slice:
        """The frames that no window before holds, as offsets."""
        return slice(0 if self.index == 0 else 1, self.frame_count)

    @property
    def shown(self) -> Sequence[int]:
        """The frames of it that the result has, as offsets."""
        return range(self.frame_count)[self.new_frames] if self.between else self.key_offsets

    def layout(self) -> Layout:
        """The window's arrays, in one block through all stages.

        * ``frames`` (T,H,W,3) uint8: the input at working size. By prepare.
        * ``controls`` (2,K,M,H,W) uint8: control maps of the new key frames, made on the CPU
          (`BY_CPU`) or on the device (`BY_DEVICE`), those that are ``given`` on both sides; absent
          without ControlNet.
        * ``previous_control`` (M,H,W) uint8: the control maps that count until the first new key
          frame, the last ones of the window before (zeros in the first window); absent without
          ControlNet. By translate.
        * ``keys`` (K+1,H,W,3) uint8: the last translated key frame of the window before (zeros in
          the first window), then the new ones. By translate.
        * ``carry_latents`` (S,2,4,h,w) float32, ``carry_frames`` (2,H,W,3) uint8 and
          ``carry_controls`` (2,M,H,W) uint8 (absent without ControlNet): what ties the next window
          to this one (`fresco_core.batch.Carry`). By translate.
        * ``flows`` (2,T-1,2,H,W) float16: forward, backward flow of neighbouring frames; absent
          where propagation computes them itself. By translate, or where they are ``searched`` by
          the CPU pool.
        * ``first_frame`` (H,W,3) uint8: the clip's first frame, of which the first window has no
          copy; absent where nothing is matched. By prepare.
        * ``ring_flows`` (2,N,H,W,2) float32: forward, backward flow from each key frame to the next
          and from the last to the first, the carried ones before the new ones
          (`fresco_core.batch.Matched`); absent where nothing is matched. By match.
        * ``salient`` (N,H/2,W/2) uint8: 1 where one of those is salient; absent where that is not
          found ahead. By match.
        * ``results`` (T,H,W,3) uint8: the frames between key frames; absent where they are not
          made. By propagate.
        """
        frames, keys = self.frame_count, len(self.key_numbers)
        height, width = self.height, self.width
        arrays: dict[str, tuple[tuple[int, ...], type[np.generic]]] = {
            "frames": ((frames, height, width, 3), np.uint8),
            "keys": ((keys + 1, height, width, 3), np.uint8),
            "carry_latents": ((self.steps, 2, 4, height // 8, width // 8), np.float32),
            "carry_frames": ((2, height, width, 3), np.uint8),
        }
        if self.between:
            arrays["results"] = (frames, height, width, 3), np.uint8
        if self.controls:
            maps = self.controls, height, width
            arrays["controls"] = (2, keys, *maps), np.uint8
            arrays["previous_control"] = maps, np.uint8
            arrays["carry_controls"] = (2, *maps), np.uint8
        if self.flows or self.searched:
            arrays["flows"] = (2, frames - 1, 2, height, width), np.float16
        if self.ring_pairs:
            arrays["ring_flows"] = (2, self.ring, height, width, 2), np.float32
            if self.salient:
                arrays["salient"] = (self.ring, height // 2, width // 2), np.uint8
            if self.index:
                arrays["first_frame"] = (height, width, 3), np.uint8
        return Layout.of(**arrays)


def windows(
    plan: ClipPlan,
    *,
    steps: int,
    flows: bool,
    between: bool = True,
    matched: bool = False,
    salient: bool = False,
    searched: bool = False,
) -> Iterator[Window]:
    """The windows of a clip, in order; arguments as the attributes of `Window`."""
    count, controls = len(plan.batches), len(plan.controls)
    given = tuple(i for i, source in enumerate(plan.controls) if source is not None)
    first = 0
    for index, batch in enumerate(plan.batches):
        yield Window(
            index,
            count,
            first,
            batch.new,
            *plan.working_size,
            steps,
            controls,
            flows and between,
            given,
            between,
            matched,
            salient,
            searched and between,
        )
        first = batch.new[-1]
