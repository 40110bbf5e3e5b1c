"""Device memory that propagation takes, estimated ahead. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence

from fresco_core.propagation.inputs import Segment

PAINTING = 120
"""Bytes a pixel of a chain's synthesis, and of what a step is given; 99 were measured."""
PART_PIXELS = 1 << 23
"""Of all pictures that guides and merging work on at once: 32 of 512x512. A part costs the same
launches however small it is; four times smaller ones took up to six times as long.
"""
PART = 125
"""Bytes a pixel of what they take for a moment; 122 were measured."""
TABLES = 100 << 20
"""Tables of colours, and of the libraries."""


def of_batch(segments: Sequence[Segment]) -> int:
    """Bytes that segments of one size take while they are painted together, at most."""
    pixels = segments[0].size[0] * segments[0].size[1]
    # As many as are carried, or merged.
    pictures = sum(max(2, segment.between) for segment in segments)
    part = max(pixels, min(PART_PIXELS, pictures * pixels))
    return TABLES + PART * part + sum(map(of_segment, segments))


def of_segment(segment: Segment) -> int:
    """Bytes of a segment: both chains' synthesis, what they start from and what they make."""
    height, width = segment.size
    frames, between = segment.between + 2, segment.between
    flows = segment.forward_flows.itemsize + segment.backward_flows.itemsize
    inputs = 3 * frames + 2 * 3 + 2 * flows * (frames - 1)
    # Both chains' pictures and errors, the masks, both sides of the merge and its result.
    results = (2 * (3 + 4) + 1 + 3 * 3) * between
    return height * width * (2 * PAINTING + inputs + results)
