"""What the supervisor asks of its workers: small frozen messages, and what they answer.

Arrays travel beside them, as blocks: a task about a window comes with that window's block.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fresco_core.keyframes import Batch
from fresco_core.options import TranslationOptions
from fresco_core.propagation import PropagationOptions
from io_pipeline.control_source import ControlFile
from io_pipeline.options import KeyFrameOptions, MapOptions
from io_pipeline.plan import ClipPlan
from io_pipeline.prompt import Prompt
from io_pipeline.window import Window


@dataclass(frozen=True)
class MeasureClip:
    """How much work a clip is, by its header alone. For a reader; answers a `ClipSize`."""

    path: Path


@dataclass(frozen=True)
class ClipSize:
    """Frames (0: the header does not say) and pixels a frame."""

    frames: int
    pixels: int


@dataclass(frozen=True)
class PlanClip:
    """Decode a clip once, count its frames, choose key frames. For a reader; answers a `ClipPlan`.

    The reader that planned a clip also reads its windows. ``decoder`` is one of `Engine`.
    ``controls``: the files of control maps beside the clip. ``kinds``: of the ControlNets, in
    order; empty without.
    """

    path: Path
    decoder: str
    options: KeyFrameOptions
    controls: tuple[ControlFile, ...] = ()
    kinds: tuple[str, ...] = ()


@dataclass(frozen=True)
class OpenClip:
    """Read a clip that another reader has planned, from a window on. For a reader."""

    plan: ClipPlan
    window: int


@dataclass(frozen=True)
class ReadWindow:
    """Fill ``frames`` of the next window of the open clip, and given control maps. For a reader.

    And ``first_frame``, where the window has that. The first to touch a block: it allocates the
    memory, and raises BlockError where there is none.
    """

    window: Window


@dataclass(frozen=True)
class DrawMap:
    """Draw the control maps of new key frame ``key`` into ``controls[BY_CPU]``. For the CPU pool.

    Those that come with the clip are left as they are.
    """

    window: Window
    key: int
    options: MapOptions


@dataclass(frozen=True)
class MatchPair:
    """Find flows, and what is salient, of ring pair ``pair`` of the key frames. For the CPU pool.

    All of a window's pairs fill ``ring_flows`` and ``salient``.
    """

    window: Window
    pair: int


@dataclass(frozen=True)
class TranslateWindow:
    """Translate a window's new key frames. For a device; answers a `Translated`.

    Where ring pairs are matched, all of them have been.

    Attributes:
        job: name of the job: a device keeps the carry of the window it translated last.
        clip: tells the job's clip from another one that had its name before.
        maps: for every new key frame BY_CPU, where its control maps are drawn, or BY_DEVICE, where
            the device is to draw them; empty without ControlNet.
        batch_size: key frames translated together, the two carried ones included; a window of more
            is translated in several batches.
        checkpoint: of the window before, for a device that has not translated that one; None for a
            clip's first window.
        options, map_options: of the job.
    """

    job: str
    clip: str
    window: Window
    prompt: Prompt
    maps: tuple[int, ...]
    batch_size: int
    checkpoint: Path | None
    options: TranslationOptions
    map_options: MapOptions


@dataclass(frozen=True)
class Translated:
    """The batches that were translated, and the prompts that belong to the carry.

    ``warnings``: what the user should know; those about a prompt come with the
    first window that has it.
    """

    batches: tuple[Batch, ...]
    carry_prompts: tuple[str, str]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class FindFlows:
    """Fill ``flows`` of a window that was translated before. For a device.

    Translating a window fills them too.
    """

    window: Window


@dataclass(frozen=True)
class SaveCheckpoint:
    """Keep a translated window's key frames and carry on disk, durably. For the CPU pool.

    ``maps`` as in `TranslateWindow`: the control maps that counted are kept too.
    """

    staging: Path
    window: Window
    translated: Translated
    maps: tuple[int, ...] = ()


@dataclass(frozen=True)
class LoadCheckpoint:
    """Fill ``keys`` of a window that was translated before. For the CPU pool.

    Its control maps come back too, all as ``BY_CPU``, and ``previous_control``. Answers the
    `Translated` that was saved with it.
    """

    staging: Path
    window: Window


@dataclass(frozen=True)
class CompilePropagation:
    """Make the machine code that propagates, where this machine has none yet. For the CPU pool."""

    options: PropagationOptions


@dataclass(frozen=True)
class PropagateSegment:
    """Make the frames between two key frames, into ``results``. For the CPU pool.

    Keys of segment i are ``keys[i]`` and ``keys[i + 1]``; in a clip's first window i + 1 and i + 2.
    """

    window: Window
    segment: int
    options: PropagationOptions


@dataclass(frozen=True)
class SearchFlows:
    """Fill a segment's part of ``flows`` by inverse search. For the CPU pool."""

    window: Window
    segment: int


@dataclass(frozen=True)
class PropagateSegments:
    """`PropagateSegment` for several segments of a window at once; reads ``flows``. For a device.

    ``memory``: bytes of the device's that it may take.
    """

    window: Window
    segments: tuple[int, ...]
    options: PropagationOptions
    memory: int


@dataclass(frozen=True)
class PublishWindow:
    """Encode a window's new frames into its own files of the staging folder, durably. CPU pool.

    ``maps`` as in `TranslateWindow`, ``batches`` as in `Translated`.
    """

    staging: Path
    window: Window
    maps: tuple[int, ...]
    encoding: Any  # io_pipeline.publish.Encoding
    batches: tuple[Batch, ...] = ()


@dataclass(frozen=True)
class PublishClip:
    """Join what the windows left in the staging folder and show the result. For the CPU pool.

    Answers warnings.
    """

    output: Path
    name: str
    plan: ClipPlan
    encoding: Any
    manifest: dict[str, Any]
