"""What devices could not propagate, and leave to cores from then on."""

import math
from collections.abc import Awaitable, Callable, Sequence

from daemon.actions import Action
from daemon.devices import Device
from daemon.segments import Segment
from daemon.work import ClipWork
from daemon.workers import WorkerDied
from io_pipeline.worker import FatalError, NoMemoryToPropagate, OutOfDeviceMemory

# What the error says where the setting was the limit and not the card (`gpu.segments.batches`). The
# error's class is the same: either way nothing was kept, and the process goes on.
_ALLOWANCE = "that propagation may use"

Charge = Callable[[ClipWork, Device, Exception, str], Awaitable[None]]
OnWarning = Callable[[ClipWork, str, Action], None]


class Setbacks:
    """Draws the conclusions, and tells the user of them once.

    Args:
        deaths: of devices at segments, after which they do none any more.
        charge: tells of a device's death at a window of a clip; raises a FrescodError where it was
            one too many.
        on_warning: hears what the user should know of a clip.

    Attributes:
        given_up: whether cores alone propagate.
    """

    def __init__(self, deaths: int, charge: Charge, on_warning: OnWarning) -> None:
        self.given_up = False
        self._deaths = deaths
        self._charge = charge
        self._on_warning = on_warning
        self._too_large = math.inf  # pixels

    def too_large(self, segment: Segment) -> bool:
        """Whether a device had no memory for frames of a segment's size, or smaller ones."""
        return segment.pixels >= self._too_large

    async def add(self, device: Device, group: Sequence[Segment], failure: Exception) -> None:
        """A device has not done segments of a window: cores will.

        Raises:
            FrescodError: a process has died of their clip once too often.
        """
        clip, window = group[0].clip, group[0].work.window
        if isinstance(failure, NoMemoryToPropagate | OutOfDeviceMemory):
            if group[0].pixels < self._too_large:
                self._too_large = group[0].pixels
                text = (
                    f"{device.name} has no memory to propagate at {window.width}x{window.height} "
                    f"({failure}): from here on the CPU does that; {_remedy(failure)}"
                )
                self._on_warning(clip, text, Action.WARNING)
            return
        died = isinstance(failure, WorkerDied | FatalError)
        self._deaths -= 1 if died else self._deaths
        why = "too many processes died of it" if died else f"{device.name}: {failure}"
        if self._deaths <= 0 and not self.given_up:
            self.given_up = True
            text = f"from here on the CPU alone propagates: {why}"
            self._on_warning(clip, text, Action.WARNING)
        if died:
            await self._charge(clip, device, failure, "the CPU propagates what it had")


def _remedy(failure: Exception) -> str:
    if _ALLOWANCE in str(failure):
        return "raise propagation.device_memory or lower key_frames.resolution"
    return (
        "the GPU is full: lower propagation.device_memory or key_frames.resolution, or end what "
        "else uses it"
    )
