"""A batch of key frames, what it becomes, and what ties it to the next.

Shapes: n new key frames, M ControlNets, S sampling steps, H x W pixels (multiples of 64), h x w =
H/8 x W/8 latent grid; N = n + 2 with the carried key frames, in a clip's first batch N = n.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Frames = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Matched:
    """What was found of a batch's key frames ahead of its translation.

    Attributes:
        flows: (2,N,2,H,W) float32, of the ring pairs: forward as in
            `fresco_core.correspondence.Correspondence`, then backward. In memory they lie as a
            `FlowModel` would have them, or results differ in the last digit.
        salient: (N,H/2,W/2) uint8, 1 where a frame is salient, or None where that was not found.
    """

    flows: NDArray[np.float32]
    salient: NDArray[np.uint8] | None


@dataclass(frozen=True, eq=False)
class KeyFrameBatch:
    """New key frames to translate together.

    Attributes:
        frames: (n,H,W,3) uint8 RGB.
        controls: (n,M,H,W) uint8 control maps, one a frame and ControlNet, or None without any.
        prompts: one positive prompt a frame.
        negative: negative prompt, or None for the default.
        matched: flows and saliency, the carried key frames included, or None: the translator finds
            them.
    """

    frames: Frames
    controls: NDArray[np.uint8] | None
    prompts: tuple[str, ...]
    negative: str | None = None
    matched: Matched | None = None


@dataclass(frozen=True, eq=False)
class Carry:
    """What ties a batch to the one before it; all that a clip's next batch needs to know.

    Attributes:
        latents: (S,2,4,h,w) float32 CPU, latents entering each step: of the clip's first key frame
            and of the last one so far.
        frames: (2,H,W,3) uint8 RGB inputs of those two.
        controls: (2,M,H,W) uint8 control maps of those two, or None.
        prompts: positive prompts of those two.
    """

    latents: Tensor
    frames: Frames
    controls: NDArray[np.uint8] | None
    prompts: tuple[str, str]


@dataclass(frozen=True, eq=False)
class Translation:
    """Translated new key frames, (n,H,W,3) uint8 RGB, and the carry for the next batch."""

    frames: Frames
    carry: Carry


def with_carried(batch: KeyFrameBatch, carry: Carry) -> KeyFrameBatch:
    """The batch with the two carried key frames before its own."""
    controls = None
    if batch.controls is not None and carry.controls is not None:
        controls = np.concatenate((carry.controls, batch.controls))
    return KeyFrameBatch(
        np.concatenate((carry.frames, batch.frames)),
        controls,
        (*carry.prompts, *batch.prompts),
        batch.negative,
        batch.matched,
    )


def check(batch: KeyFrameBatch, carry: Carry | None) -> None:
    """Raise ValueError for shapes that do not fit together or sizes that are no multiples of 64."""
    count, height, width = batch.frames.shape[:3]
    if batch.frames.dtype != np.uint8 or batch.frames.shape[3:] != (3,) or count == 0:
        raise ValueError(f"frames must be uint8 (n,H,W,3), n > 0, not {batch.frames.shape}")
    if height % 64 or width % 64:
        raise ValueError(f"frames must be multiples of 64 in size, not {width}x{height}")
    if batch.controls is not None and (
        batch.controls.ndim != 4
        or batch.controls.shape[1] == 0
        or (batch.controls.shape[0], *batch.controls.shape[2:]) != (count, height, width)
    ):
        raise ValueError(
            f"control maps must be (n,M,H,W), not {batch.controls.shape}, for frames of "
            f"{batch.frames.shape}"
        )
    if len(batch.prompts) != count:
        raise ValueError(f"{len(batch.prompts)} prompts for {count} frames")
    if batch.matched is not None:
        _check_matched(batch.matched, count + 2 * (carry is not None), height, width)
    if carry is not None and carry.frames.shape[1:] != batch.frames.shape[1:]:
        raise ValueError(f"carry of {carry.frames.shape} does not fit {batch.frames.shape}")
    if carry is not None and (carry.controls is None) != (batch.controls is None):
        raise ValueError("either both carry and batch have control maps or neither")
    if (
        carry is not None
        and carry.controls is not None
        and batch.controls is not None
        and carry.controls.shape[1:] != batch.controls.shape[1:]
    ):
        raise ValueError(
            f"control maps {carry.controls.shape} of the carry do not fit {batch.controls.shape}"
        )


def _check_matched(matched: Matched, count: int, height: int, width: int) -> None:
    flows, salient = matched.flows, matched.salient
    if flows.dtype != np.float32 or flows.shape != (2, count, 2, height, width):
        raise ValueError(f"flows {flows.shape} do not fit {count} frames of {width}x{height}")
    if salient is not None and salient.shape != (count, height // 2, width // 2):
        raise ValueError(
            f"saliency {salient.shape} does not fit {count} frames of {width}x{height}"
        )
