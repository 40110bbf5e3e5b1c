"""A clip in work, and a window of it in work: what they hold until they are done."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from daemon.devices import Device
from daemon.fingerprints import Fingerprints
from daemon.jobs import Job, JobState
from daemon.memory import Account
from daemon.settings import Settings
from fresco_core.keyframes import Batch
from io_pipeline.blocks import Block
from io_pipeline.control_source import ControlFile
from io_pipeline.plan import ClipPlan
from io_pipeline.prompt import Prompt
from io_pipeline.publish import Encoding
from io_pipeline.window import BY_CPU, BY_DEVICE, Window

STAGES = ("prepare", "match", "translate", "propagate", "publish")
_FAR = 100  # windows


async def _nothing() -> None:
    pass


@dataclass(eq=False)
class ClipWork:
    """A clip in work.

    Attributes:
        number: place in the order of clips; the lower ones go first wherever they meet.
        settings: the job's own over those of the program.
        published, translated: indices of windows that an earlier run has finished, or translated.
        source: where the clip is to be opened; None: by its name.
        controls: control maps beside the clip, as they are to be opened.
        named: what workers say, with the clip's own name in place of ``source``.
        seconds: busy seconds by stage.
        batches: what was translated together, by window.
        devices: where.
        blocked: what the clip's next window waits for.
        deaths: of devices that had it, since a window of it was finished; ``on_death`` is called
            at each.
        frames_done, windows_done: on disk.
        propagated: frames, by who did them in this run.
        windows: those that hold a block.
        running: what workers are doing for it.
        plan, encoding: once it is planned.
    """

    job: Job
    number: int
    prints: Fingerprints
    prompt: Prompt
    account: Account
    staging: Path
    settings: Settings = field(default_factory=Settings)
    source: Path | None = None
    controls: tuple[ControlFile, ...] = ()
    named: Callable[[str], str] = str
    published: frozenset[int] = frozenset()
    translated: frozenset[int] = frozenset()
    warnings: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    batches: dict[int, tuple[Batch, ...]] = field(default_factory=dict)
    devices: list[str] = field(default_factory=list)
    device: Device | None = None
    deaths: int = 0
    on_death: Callable[[], Awaitable[None]] = _nothing
    state: JobState = JobState.PREPARING
    windows_done: int = 0
    blocked: str = "frames"
    frames_done: int = 0
    propagated: dict[str, int] = field(default_factory=lambda: {"cpu": 0, "gpu": 0})
    windows: set["WindowWork"] = field(default_factory=set)
    running: set[asyncio.Task[Any]] = field(default_factory=set)
    plan: ClipPlan = field(init=False)
    encoding: Encoding = field(init=False)

    @property
    def name(self) -> str:
        """The job's name."""
        return self.job.name

    @property
    def length(self) -> int:
        """Work left for a device, in key frames times pixels."""
        done = self.published | self.translated
        batches = self.plan.batches
        keys = sum(len(batch.new) for i, batch in enumerate(batches) if i not in done)
        height, width = self.plan.working_size
        return keys * height * width

    @property
    def left(self) -> tuple[int, int] | None:
        """What is left to translate, and to propagate after that, each in frames times pixels.

        Of many windows the last ones: it is told to know how soon all will be done. None while it
        is not planned.
        """
        if not hasattr(self, "plan"):
            return None
        keys = between = 0
        done = self.published | self.translated | self.batches.keys()
        batches = self.plan.batches
        for i in reversed(range(len(batches))[-_FAR:]):
            if i in done:
                break
            new = batches[i].new
            keys += len(new)
            if self.settings.output.frames == "all":
                first = batches[i - 1].new[-1] if i else new[0]
                between += new[-1] - first + (i == 0) - len(new)
        height, width = self.plan.working_size
        return keys * height * width, between * height * width

    def take_over(self, before: "ClipWork") -> None:
        """What is known of the clip from before it was begun anew."""
        self.warnings, self.seconds = before.warnings, before.seconds
        self.devices, self.deaths = before.devices, before.deaths
        self.propagated = before.propagated

    @property
    def begun(self) -> bool:
        """Whether anything of it has been translated, by this run or an earlier one."""
        return bool(self.batches or self.published or self.translated)

    async def settle(self) -> None:
        """Wait until no worker does anything for it."""
        while self.running:
            await asyncio.wait(self.running)

    def abandon(self) -> None:
        """Give up what workers do for it, and its memory."""
        for task in self.running:
            task.cancel()
        for work in self.windows:
            work.abandon()
            work.block.close()


@dataclass(eq=False)
class MapTask:
    """A key frame's control maps that the CPU pool is to draw."""

    task: asyncio.Task[Any]
    started: bool = False

    def begin(self) -> None:
        """A worker has begun to draw it."""
        self.started = True


@dataclass(eq=False)
class WindowWork:
    """A window in work: its block, and what the CPU pool does for it ahead of the device.

    Attributes:
        maps: control maps that are being drawn, of each key frame.
        matches: pairs of key frames that are being matched.
        searches: the CPU pool's for flows, by segment.
        drawn: who has drawn the maps of each key frame.
        seconds: of work by stage, without its reading.
        running: what workers are doing with the block.
        closing: its memory is being given back, which takes a moment.
    """

    window: Window
    block: Block
    maps: list[MapTask] = field(default_factory=list)
    matches: list[asyncio.Task[Any]] = field(default_factory=list)
    searches: list[asyncio.Task[Any]] = field(default_factory=list)
    drawn: tuple[int, ...] = ()
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    running: set[asyncio.Task[Any]] = field(default_factory=set)
    closing: bool = False

    @property
    def has_memory(self) -> bool:
        """Whether its block has taken its memory, or some of it."""
        return self.closing or self.block.taken > 0

    async def maps_for(self, device_draws: bool) -> tuple[int, ...]:
        """Who draws the maps of each key frame, once those that are to come from the CPU are there.

        A device that draws takes over the maps that nobody has begun; for those it need not wait.
        Where it dies and another asks again, what was taken over stays so.
        """
        if not self.window.controls:
            return ()
        if not self.window.to_draw:
            self.drawn = (BY_CPU,) * len(self.window.key_numbers)
            return self.drawn
        if not self.maps:
            self.drawn = (BY_DEVICE,) * len(self.window.key_numbers)
            return self.drawn
        sides = []
        for drawing in self.maps:
            task = drawing.task
            take_over = task.cancelled() or (device_draws and not task.done())
            sides.append(BY_DEVICE if take_over else BY_CPU)
            if take_over and not drawing.started:
                task.cancel()
        for drawing, side in zip(self.maps, sides, strict=True):
            if side == BY_CPU:
                await drawing.task
        self.drawn = tuple(sides)
        return self.drawn

    async def searched(self) -> None:
        """Wait until all flows are there that the CPU pool searches; raises what it raised."""
        if pending := [search for search in self.searches if not search.done()]:
            await asyncio.wait(pending)
        for search in self.searches:
            search.result()

    def abandon(self) -> None:
        """Give up what is not yet begun."""
        for task in self._ahead:
            task.cancel()

    async def settle(self) -> None:
        """Wait until no worker uses the block any more."""
        await asyncio.gather(*self._ahead, return_exceptions=True)
        # What was called off may have been begun in the same moment.
        while self.running:
            await asyncio.wait(self.running)

    @property
    def _ahead(self) -> list[asyncio.Task[Any]]:
        return [*self.matches, *(drawing.task for drawing in self.maps), *self.searches]
