"""A segment that is to be propagated, and what each side has propagated."""

import asyncio
import contextvars
from collections.abc import Sequence
from dataclasses import dataclass, field

from daemon.work import ClipWork, WindowWork
from fresco_core.propagation import PropagationOptions

CORES, DEVICES = SIDES = "cpu", "gpu"


class Left:
    """What comes of a segment that a core, when it had one, was not to begin."""


@dataclass
class Share:
    """What one side has done: on cores the seconds of all of them are added up."""

    segments: int = 0
    frames: int = 0
    seconds: float = 0.0


@dataclass(eq=False)
class Segment:
    """A segment that waits, or is being propagated.

    Attributes:
        done: whether it was, or why not.
        by_core: waits for a core, and has it do this.
        begun: when a core began it.
        cores_only: no device can do it, or one has tried.
        context: of whoever wants it: what is logged is about that.
    """

    clip: ClipWork
    work: WindowWork
    index: int
    options: PropagationOptions
    done: asyncio.Future[None]
    by_core: asyncio.Task[None] | None = None
    begun: float | None = None
    cores_only: bool = False
    context: contextvars.Context = field(default_factory=contextvars.copy_context)

    @property
    def frames(self) -> int:
        """Those between its key frames."""
        first, last = self.work.window.segments[self.index]
        return last - first - 1

    @property
    def has_flows(self) -> bool:
        """Whether flows of its frames are in the block, where devices want them."""
        return self.work.window.flows or self.work.window.searched

    @property
    def pixels(self) -> int:
        """Of a frame."""
        return self.work.window.height * self.work.window.width

    @property
    def amount(self) -> int:
        """Frames times pixels."""
        return self.frames * self.pixels


def settle(segments: Sequence[Segment], error: Exception | None = None) -> None:
    """They are propagated, or will not be; whoever has given one up hears nothing."""
    for segment in segments:
        if segment.done.done():
            continue
        if error is None:
            segment.done.set_result(None)
        else:
            segment.done.set_exception(error)
