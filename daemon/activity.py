"""What tracks of a timeline do now, and how busy they were lately: in memory of a fixed size."""

from array import array
from dataclasses import dataclass

SLOT = 5.0  # seconds
SLOTS = 61  # five minutes, and the slot that has just begun


@dataclass(frozen=True)
class Working:
    """What a track has been doing for so many seconds.

    Attributes:
        window: None where it is not about one.
    """

    stage: str
    job: str
    window: int | None
    seconds: float


@dataclass(frozen=True)
class Wait:
    """A wait that goes on, for so many seconds until now.

    Attributes:
        track: who waits; empty where it is nobody in particular.
        job: empty where it is about none.
    """

    track: str
    cause: str
    job: str
    seconds: float


class BusyTime:
    """Seconds of work of a track: the last five minutes by slots, and their sum since the start.

    Times are seconds since a common zero; spans may be added in any order.
    """

    __slots__ = ("_newest", "_seconds", "total")

    def __init__(self) -> None:
        self._seconds = array("d", bytes(8 * SLOTS))
        self._newest = 0
        self.total = 0.0

    def add(self, begin: float, end: float) -> None:
        """Work from one time to another."""
        self.total += end - begin
        last = int(end / SLOT)
        if last > self._newest:
            self._advance(last)
        for slot in range(max(int(begin / SLOT), last - SLOTS + 1), last + 1):
            if slot > self._newest - SLOTS:
                self._seconds[slot % SLOTS] += min(end, slot * SLOT + SLOT) - max(
                    begin, slot * SLOT
                )

    def since(self, first: float, now: float) -> float:
        """Seconds of work from ``first``, at most five minutes ago, until now.

        Work within the slot of ``first`` is taken to have been spread evenly over it.
        """
        self._advance(int(now / SLOT))
        oldest = max(int(first / SLOT), self._newest - SLOTS + 1)
        seconds = sum(self._seconds[slot % SLOTS] for slot in range(oldest + 1, self._newest + 1))
        after = 1 - max(0.0, first - oldest * SLOT) / SLOT
        return seconds + after * self._seconds[oldest % SLOTS]

    def _advance(self, slot: int) -> None:
        for number in range(max(self._newest + 1, slot - SLOTS + 1), slot + 1):
            self._seconds[number % SLOTS] = 0.0
        self._newest = max(self._newest, slot)
