"""The presentation times of a clip's frames, in ticks: put in order, and what follows from them."""

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise


def rising(times: Sequence[int]) -> tuple[int, ...]:
    """The same number of times, strictly rising; those given where they are that already."""
    if all(a < b for a, b in pairwise(times)):
        return tuple(times)
    ordered = sorted(times)
    for number in range(1, len(ordered)):
        ordered[number] = max(ordered[number], ordered[number - 1] + 1)
    return tuple(ordered)


def end_and_rate(
    times: Sequence[int], last_duration: int, time_base: Fraction, stated: Fraction | None
) -> tuple[int, Fraction]:
    """When the last frame ends, in ticks, and the average rate that goes with it.

    The rate that the container states is taken where it agrees with the frames' times to within
    a frame, so that 30000/1001 stays what it is in containers that round times to milliseconds.
    ``last_duration`` is in ticks, ``time_base`` seconds per tick.
    """
    first, last, count = times[0], times[-1], len(times)
    end = last + last_duration
    if stated is not None:
        stated_end = first + count / (stated * time_base)
        step = 1 / (stated * time_base)
        if stated_end > last and abs(stated_end - end) <= step:
            return max(last + 1, round(stated_end)), stated
    return end, Fraction(count) / ((end - first) * time_base)
