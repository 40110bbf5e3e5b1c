"""What one pass over a clip tells."""

from dataclasses import dataclass, replace
from pathlib import Path

from fresco_core.keyframes import Batch
from io_pipeline.clip_info import ClipInfo


@dataclass(frozen=True)
class ControlVideo:
    """A video of control maps, one frame for each frame of its clip."""

    info: ClipInfo

    @property
    def path(self) -> Path:
        """The video."""
        return self.info.path


@dataclass(frozen=True)
class ControlPictures:
    """A folder of control maps: the ``names`` of its pictures, one for each frame of the clip."""

    path: Path
    names: tuple[str, ...]


ControlSource = ControlVideo | ControlPictures


@dataclass(frozen=True)
class ClipPlan:
    """A clip's frames, key frames and batches.

    `working_size` is (height, width); `batches` hold frame numbers of the clip. `controls` tell for
    every ControlNet where its maps come from; None: they are drawn.
    """

    info: ClipInfo
    working_size: tuple[int, int]
    key_numbers: tuple[int, ...]
    batches: tuple[Batch, ...]
    controls: tuple[ControlSource | None, ...] = ()

    @property
    def frame_count(self) -> int:
        """Frames up to the last key frame: those that are read. All, but for a preview."""
        return self.key_numbers[-1] + 1

    @property
    def resolution(self) -> int:
        """Short side of the working size in pixels."""
        return min(self.working_size)

    def read_with(self, engine: str) -> "ClipPlan":
        """The same plan, its clip and its control videos read by another decoder."""
        controls = tuple(
            ControlVideo(replace(source.info, engine=engine))
            if isinstance(source, ControlVideo)
            else source
            for source in self.controls
        )
        return replace(self, info=replace(self.info, engine=engine), controls=controls)
