"""Propagation of many segments at once on a GPU: the same algorithm, in batches over their chains.

`paint_segments` does for many segments what `fresco_core.propagation.propagate` does for one.
Nothing here needs torch before it is called.

Shape suffixes: T frames of a segment, both key frames included; H, W rows and columns; C = RGB.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fresco_core.propagation.inputs import Segment
from fresco_core.propagation.options import PropagationOptions

if TYPE_CHECKING:
    import torch

__all__ = ["Segment", "paint_segments", "unsupported"]


def unsupported(options: PropagationOptions) -> str | None:
    """Why a device cannot propagate with these options, in words; None where it can."""
    if options.engine != "builtin":
        return f"engine {options.engine!r} runs on the CPU"
    if options.inpaint_scale != 0:
        return f"inpainting (inpaint_scale = {options.inpaint_scale}) runs on the CPU"
    return None


def paint_segments(
    segments: Sequence[Segment],
    options: PropagationOptions,
    device: torch.device | str,
    *,
    memory: int | None = None,
    on_frame: Callable[[], None] | None = None,
) -> list[NDArray[np.uint8]]:
    """The frames between the key frames of each segment, (T-2,H,W,3) uint8 RGB.

    Both chains of all segments advance together, as many as ``memory`` bytes of the device hold at
    once (None: all). A segment's frames do not depend on the others. ``on_frame`` is called 3(T-2)
    times a segment, as a frame is given to the device, which may be a little behind.

    Raises:
        ValueError: options that are `unsupported`.
        torch.OutOfMemoryError: the device, or ``memory``, has not enough even for one segment.
            What was taken has been freed.
        KernelsError: the synthesis cannot be built here (no Triton, no C compiler), and will not be
            by trying again.
    """
    reason = unsupported(options)
    if reason is not None:
        raise ValueError(f"propagation on a device: {reason}")
    from fresco_core.propagation.gpu.segments import paint

    return paint(segments, options, device, memory=memory, on_frame=on_frame)
