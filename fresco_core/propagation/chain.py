"""Propagation in one direction: from a key frame to the next frame, and the next, and the next.

Shape suffixes: T frames of the run, the key frame's first; H, W rows and columns; C channels;
2 = horizontal (x), vertical (y) displacement in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from fresco_core.propagation import program
from fresco_core.propagation.guides import Picture, carry, edges, occlusion, positions
from fresco_core.propagation.options import PropagationOptions
from fresco_core.propagation.patchmatch import Guide, Synthesis, synthesize


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
    source_edges = edges(source)
    source_positions = position = positions(*source.shape[:2])
    previous = key_HWC
    inpainting = options.inpaint_radius, options.inpaint_scale
    results: list[Synthesis] = []
    for j, frame in enumerate(frames_THWC[1:]):
        occluded = occlusion(flows[j], flows_back[j])
        temporal = carry(previous, flows[j], occluded, *inpainting)
        position = carry(position, flows[j], occluded, *inpainting)
        guides = [
            Guide(source, frame, options.colour),
            Guide(source_edges, edges(frame), options.edge),
            Guide(key_HWC, temporal, options.temporal),
            Guide(source_positions, position, options.positional),
        ]
        result = _paint(key_HWC, guides, options)
        results.append(result)
        previous = np.ascontiguousarray(result.image_HWC)
        if on_frame is not None:
            on_frame()
    return results


def _paint(key_HWC: Picture, guides: Sequence[Guide], options: PropagationOptions) -> Synthesis:
    """One frame, by the engine of the options."""
    if options.engine == "ebsynth":
        return program.paint(key_HWC, guides, options)
    return synthesize(
        key_HWC,
        guides,
        patch=options.patch,
        votes=options.votes,
        sweeps=options.sweeps,
        uniformity=options.uniformity,
        still=options.still,
        seed=options.seed,
    )
