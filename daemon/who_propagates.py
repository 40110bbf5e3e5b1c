"""Who propagates: when a device takes segments, and when a core leaves them to devices.

All times are seconds. How long something will take follows from its amount, frames times pixels,
and from what the last ones took; until then from what an H200 and its host take.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median_low

# A device takes for some segments as long as for these and so many more of the longest of them, if
# each took its share of a full device: an H200 does six of 512x512 in little more time than one.
SPARE = 12
# Segments of a window, usually: what a device takes at once.
SEGMENTS = 6
# Measurements that count; the first that there are were made by nobody.
LAST = 5


class Rate:
    """Seconds for an amount of one: the middle of the last measurements.

    So one among them that was held up, or for which something was compiled, counts for nothing.
    """

    def __init__(self, first: float) -> None:
        self._last = deque([first], maxlen=LAST)

    def measured(self, seconds: float, amount: float) -> None:
        """An amount has taken so long."""
        if amount > 0:
            self._last.append(seconds / amount)

    def seconds(self, amount: float) -> float:
        """How long an amount will take."""
        return amount * median_low(self._last)


@dataclass
class Rates:
    """What each side takes: for key frames times pixels translated, for frames propagated.

    Attributes:
        around: what cores do for key frames times pixels apart from propagation: read, match,
            encode.
    """

    translate: Rate = field(default_factory=lambda: Rate(1.5e-6))
    core: Rate = field(default_factory=lambda: Rate(5e-6))
    device: Rate = field(default_factory=lambda: Rate(2e-8))
    around: Rate = field(default_factory=lambda: Rate(4e-6))

    def group(self, amounts: Sequence[float]) -> float:
        """Seconds that a device takes for segments of these amounts, all at once."""
        return self.device.seconds(filled(amounts))

    def windows(self, amount: float) -> float:
        """Seconds that a device takes for so much, window by window."""
        return self.device.seconds(amount * (1 + SPARE / SEGMENTS))

    def free_cores(self, cores: int, devices: int) -> int:
        """Those that may propagate while so many devices translate: the rest feeds these.

        A segment takes a core for longer than a device takes for a window, and nothing that a
        device waits for can push it aside.
        """
        busy = devices * self.around.seconds(1.0) / self.translate.seconds(1.0)
        return max(0, round(cores - busy))


def filled(amounts: Sequence[float]) -> float:
    """The amount that takes a full device as long as these take one that they do not fill."""
    return sum(amounts) + SPARE * max(amounts, default=0.0)


def device_takes(group: float, pool: float, core: float, window: float | None) -> bool:
    """Whether a device is to propagate a group of segments now.

    With a window to translate, it does if the cores have enough to do until it has both propagated
    and translated: nobody waits for that window's key frames, and all that waits is done sooner.
    Without one, if it is done with the group sooner than the cores would be.

    Args:
        group: what it takes the device.
        pool: what takes the cores, all of them at it, all that waits for them.
        core: what one of the segments takes a core.
        window: what the window that the device would translate takes it; None: there is none.
    """
    return group < pool + core if window is None else group + window < pool


def core_begins(core: float, devices: float) -> bool:
    """Whether a free core is to begin a segment: else the devices do it.

    It does unless the devices are done with everything, all that is to be translated and to be
    propagated, before the core would be done with this one.

    Args:
        core: what the segment takes a core.
        devices: what everything takes the devices.
    """
    return core <= devices


def devices_need(
    clips: Sequence[float], propagation: float, running: Sequence[tuple[float, float]], count: int
) -> float:
    """What everything takes the devices.

    Args:
        clips: what is left to translate, by clip: each has one device at a time.
        propagation: all segments, those to come included.
        running: what groups in work were to take, and have taken by now; one that is late is
            expected to take as long again.
        count: of the devices.
    """
    begun = sum(whole - taken if taken < whole else taken for whole, taken in running)
    return max(max(clips, default=0.0), (sum(clips) + propagation + begun) / count)
