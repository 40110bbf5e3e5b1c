"""What each key frame counts over time."""

from __future__ import annotations


def time_weight(number: int, count: int, timing: str) -> float:
    """Weight of the second key frame for in-between frame ``number`` of ``count``.

    ``symmetric``: the share of the way covered. ``published``: 0 for the first in-between frame and
    never as large as its mirror image at the end.
    """
    if timing == "published":
        return number / count
    return (number + 1) / (count + 1)
