"""What one pass over a clip tells."""

from dataclasses import dataclass

from fresco_core.keyframes import Batch
from io_pipeline.clip_info import ClipInfo


@dataclass(frozen=True)
class ClipPlan:
    """A clip's frames, key frames and batches.

    `working_size` is (height, width); `batches` hold frame numbers of the clip.
    """

    info: ClipInfo
    working_size: tuple[int, int]
    key_numbers: tuple[int, ...]
    batches: tuple[Batch, ...]

    @property
    def resolution(self) -> int:
        """Short side of the working size in pixels."""
        return min(self.working_size)
