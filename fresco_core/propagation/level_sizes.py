"""How large a picture is on the levels of its pyramid. Needs no Numba."""

from __future__ import annotations

Size = tuple[int, int]

SMALLEST_SIDE = 11
"""The pyramid ends at the last level whose shorter side is at least this long, and a patch's."""


def level_count(side: int, patch: int) -> int:
    """Of a pyramid, for the shortest side of all pictures; smaller levels hold a whole patch."""
    count = 1
    while side * 0.5**count >= max(SMALLEST_SIDE, patch):
        count += 1
    return count


def level_size(size: Size, level: int) -> Size:
    return int(size[0] * 0.5**level), int(size[1] * 0.5**level)
