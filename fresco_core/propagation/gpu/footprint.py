"""Device memory that propagation takes, estimated ahead. Needs no torch."""

from __future__ import annotations

from fresco_core.propagation.inputs import Segment

PAINTING = 240
"""Bytes a pixel of a chain's synthesis."""
PART_PIXELS = 1 << 21
"""Of all pictures that guides and merging work on at once: eight of 512x512. More are not quicker,
and leave the cache.
"""
PART = 150
"""Bytes a pixel of what they take for a moment."""
TABLES = 100 << 20
"""Tables of colours, and of the libraries."""


def of_segment(segment: Segment) -> int:
    """Bytes of a segment: both chains' synthesis, what they start from and what they make."""
    height, width = segment.size
    frames, between = segment.between + 2, segment.between
    flows = segment.forward_flows.itemsize + segment.backward_flows.itemsize
    inputs = 3 * frames + 2 * 3 + 2 * flows * (frames - 1)
    # Both chains' pictures and errors, the masks, both sides of the merge and its result.
    results = (2 * (3 + 4) + 1 + 3 * 3) * between
    return height * width * (2 * PAINTING + inputs + results)


def of_any(size: tuple[int, int]) -> int:
    """Bytes that are taken besides, however many segments of this size are painted."""
    return TABLES + PART * max(size[0] * size[1], PART_PIXELS)
