"""Propagation in one direction: from a key frame to the next frame, and the next, and the next.

Shape suffixes: T frames of the run, the key frame's first; H, W rows and columns; C channels;
2 = horizontal (x), vertical (y) displacement in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from fresco_core.propagation import program
from fresco_core.propagation.guides import carry, edges
from fresco_core.propagation.options import PropagationOptions
from fresco_core.propagation.painter import Painter, Synthesis
from fresco_core.propagation.patchmatch import Guide
from fresco_core.propagation.pictures import Picture
from fresco_core.propagation.positions import positions
from fresco_core.propagation.warp import occlusion


def propagate_key(
    frames_THWC: NDArray[np.uint8],
    key_HWC: Picture,
    flows: NDArray[np.float32],
    flows_back: NDArray[np.float32],
    options: PropagationOptions,
    on_frame: Callable[[], None] | None = None,
) -> list[Synthesis]:
    """Paint frames 1..T-1 in the style of the key frame, which belongs to frame 0; T-1 results.

    ``flows[j]`` is on the grid of frame j+1 towards frame j, ``flows_back[j]`` the other way round.
    Frames may run backwards in time. ``on_frame`` is called after each.
    """
    source = frames_THWC[0]
    position = positions(*source.shape[:2])
    sources = [source, edges(source), key_HWC, position]
    weights = [options.colour, options.edge, options.temporal, options.positional]
    paint = _painter(key_HWC, sources, weights, options)
    previous = key_HWC
    inpainting = options.inpaint_radius, options.inpaint_scale
    results: list[Synthesis] = []
    for j, frame in enumerate(frames_THWC[1:]):
        occluded = occlusion(flows[j], flows_back[j])
        temporal = carry(previous, flows[j], occluded, *inpainting)
        position = carry(position, flows[j], occluded, *inpainting)
        result = paint([frame, edges(frame), temporal, position])
        results.append(result)
        previous = np.ascontiguousarray(result.image_HWC)
        if on_frame is not None:
            on_frame()
    return results


def _painter(
    key_HWC: Picture,
    sources: Sequence[Picture],
    weights: Sequence[float],
    options: PropagationOptions,
) -> Callable[[Sequence[Picture]], Synthesis]:
    """Paints a frame from its side of the guides, by the engine of the options."""
    if options.engine == "ebsynth":

        def by_program(targets: Sequence[Picture]) -> Synthesis:
            guides = [Guide(*guide) for guide in zip(sources, targets, weights, strict=True)]
            return program.paint(key_HWC, guides, options)

        return by_program
    painter = Painter(
        key_HWC,
        sources,
        weights,
        (key_HWC.shape[0], key_HWC.shape[1]),
        patch=options.patch,
        uniformity=options.uniformity,
    )
    return lambda targets: painter.paint(targets, options.effort, options.seed)
