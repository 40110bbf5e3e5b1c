"""What a process of the CPU pool does: one task after the other, on one core, nothing kept."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import cv2

from fresco_core.propagation import compile_ahead
from io_pipeline.pace import Pace
from io_pipeline.tasks import (
    CompilePropagation,
    DrawMap,
    LoadCheckpoint,
    MatchPair,
    PropagateSegment,
    PublishClip,
    PublishWindow,
    SaveCheckpoint,
    SearchFlows,
)
from io_pipeline.window import BY_CPU

if TYPE_CHECKING:
    from io_pipeline.blocks import Block
    from io_pipeline.control_maps import Detectors
    from io_pipeline.match import Match
    from io_pipeline.propagate import Propagate
    from io_pipeline.worker import Report


@dataclass(frozen=True)
class CpuStage:
    """Maps drawn, key frames matched, segments propagated, windows and clips published.

    One thread each: those of torch, Numba and BLAS are limited by the environment.

    Attributes:
        detectors: the arguments of `io_pipeline.control_maps.Detectors`; None where no control map
            is left to the CPU.
    """

    detectors: Mapping[str, Any] | None

    def load(self, report: "Report") -> "CpuTasks":
        """Ready the process; what a task needs is loaded when the first of its kind comes."""
        # A task holds one core. With one thread OpenCV works in the caller's.
        cv2.setNumThreads(1)
        return CpuTasks(self)


class CpuTasks:
    """Handles the tasks of the CPU pool.

    Reports phases "load", "map", "match", "flow", "propagate" and "publish".
    """

    facts: Any = None

    def __init__(self, stage: CpuStage) -> None:
        self._stage = stage

    def __call__(self, task: Any, blocks: "tuple[Block, ...]", report: "Report") -> Any:
        """Do a task.

        Raises:
            FrescodError: weights, checkpoint or disk are not as they should be.
        """
        match task:
            case DrawMap(window, key, options):
                report("load", 0, 1)
                detectors = self._detectors
                report("map", 0, 1)
                frame_HWC = blocks[0]["frames"][window.key_offsets[key]]
                maps = detectors(frame_HWC, options, window.to_draw)
                blocks[0]["controls"][BY_CPU, key, list(window.to_draw)] = maps
            case MatchPair(window, pair):
                report("match", 0, 1)
                self._match(window, pair, blocks[0])
            case CompilePropagation(options):
                report("propagate", 0, 1)
                compile_ahead(options)
            case PropagateSegment(window, segment, options):
                self._propagate(window, segment, options, blocks[0], report)
            case SearchFlows(window, segment):
                self._propagate.search(window, segment, blocks[0], report)
            case _:
                return _on_disk(task, blocks, report)
        return None

    @cached_property
    def _detectors(self) -> "Detectors":
        from io_pipeline.control_maps import Detectors

        assert self._stage.detectors is not None
        return Detectors(**self._stage.detectors, offline=True)

    @cached_property
    def _match(self) -> "Match":
        from io_pipeline.match import Match

        return Match()

    @cached_property
    def _propagate(self) -> "Propagate":
        from io_pipeline.propagate import Propagate

        return Propagate()


def _on_disk(task: Any, blocks: "tuple[Block, ...]", report: "Report") -> Any:
    from io_pipeline import checkpoint, publish

    match task:
        case SaveCheckpoint(staging, window, translated, maps):
            report("publish", 0, 1)
            return checkpoint.save(staging, window, blocks[0], translated, maps)
        case LoadCheckpoint(staging, window):
            report("publish", 0, 1)
            return checkpoint.restore(staging, window, blocks[0])
        case PublishWindow(staging, window, maps, encoding, batches):
            on_frame = Pace(report, "publish", len(window.shown))
            return publish.publish_window(
                staging, window, maps, encoding, blocks[0], batches, on_frame.one_more
            )
        case PublishClip(output, name, plan, encoding, manifest):
            videos = sum(video is not None for video in (encoding.blend, encoding.comparison))
            on_packet = Pace(report, "publish", 2 * videos * plan.info.frame_count)
            return publish.publish_clip(output, name, plan, encoding, manifest, on_packet.one_more)
    raise TypeError(f"no task of the CPU pool: {type(task).__name__}")
