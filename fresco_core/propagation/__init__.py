"""Propagation: key frames carried to the frames of the segment between them.

One public function, and one that spares it seconds the first time. FRESCO (Yang et al., CVPR 2024),
section on long videos; the synthesis is EBSynth's (Jamriška et al., 2019).

Shape suffixes: T frames of the segment, both key frames included; H, W rows and columns; C = RGB;
2 = horizontal (x), vertical (y) displacement in pixels.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fresco_core.propagation.inputs import Segment
from fresco_core.propagation.options import PropagationOptions

_DEFAULT = PropagationOptions()

__all__ = ["PropagationOptions", "compile_ahead", "propagate"]


def propagate(
    frames_THWC: NDArray[np.uint8],
    first_key_HWC: NDArray[np.uint8],
    second_key_HWC: NDArray[np.uint8],
    forward_flows: NDArray[np.float32],
    backward_flows: NDArray[np.float32],
    *,
    options: PropagationOptions = _DEFAULT,
    on_frame: Callable[[], None] | None = None,
) -> NDArray[np.uint8]:
    """The frames between two key frames, (T-2,H,W,3) uint8 RGB.

    ``frames_THWC``: the segment's input frames, those of both key frames included, T >= 2.
    Flows are float32 (T-1,2,H,W) in pixels: ``forward_flows[i]`` on the grid of frame i towards
    frame i+1, ``backward_flows[i]`` on the grid of frame i+1 towards frame i. Runs on one thread;
    the same arguments give the same frames. ``on_frame`` is called 3(T-2) times: after each frame
    painted from either key frame, and after each merged. Raises ValueError for shapes that do not
    fit, and what `fresco_core.propagation.program.paint` does where that is the options' engine.
    """
    segment = Segment(frames_THWC, first_key_HWC, second_key_HWC, forward_flows, backward_flows)
    if segment.between == 0:
        return np.empty((0, *frames_THWC.shape[1:]), np.uint8)
    # Whoever only names options is spared the seconds and the memory of Numba and SciPy.
    from fresco_core.propagation.machine_code import ready
    from fresco_core.propagation.segment import paint_segment, rehearse

    ready(_what(options), lambda: rehearse(options.patch))
    return paint_segment(
        frames_THWC, first_key_HWC, second_key_HWC, forward_flows, backward_flows, options, on_frame
    )


def compile_ahead(options: PropagationOptions = _DEFAULT) -> None:
    """Make the machine code that `propagate` needs, where this machine has none yet: some 20 s."""
    from fresco_core.propagation.machine_code import is_made, ready
    from fresco_core.propagation.segment import rehearse

    if not is_made(_what(options)):
        ready(_what(options), lambda: rehearse(options.patch))


def _what(options: PropagationOptions) -> str:
    return f"patch {options.patch}"
