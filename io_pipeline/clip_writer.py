"""Write a whole clip, frame by frame: H.264 in mp4 with another clip's times, rate and sound.

Legend: H, W = height and width of a frame, C = 3 (red, green, blue).
"""

import os
import tempfile
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from io_pipeline.chunk import ChunkWriter, Picture
from io_pipeline.clip_info import ClipInfo
from io_pipeline.join import join
from io_pipeline.sound import sample_rates
from io_pipeline.writing import writing


class ClipWriter(AbstractContextManager["ClipWriter"]):
    """Encodes frames one by one, as one chunk beside ``path``, and joins it with the sound.

    The mp4 gets the presentation times, average rate, pixel aspect and colour tags of ``info``
    and, where ``sound_from`` names a file, all its sound tracks. Frames of another size are
    resized to ``width`` x ``height`` (default: ``info``'s).

    A context manager: closes the file, or, when left by an exception, abandons it (an incomplete
    file stays for the caller to delete). ``warnings`` are sentences for the user, complete when
    it is closed. Raises FrescodError where the file cannot be written, ClipError where the sound
    cannot be read.
    """

    def __init__(
        self,
        path: Path,
        info: ClipInfo,
        *,
        crf: int = 18,
        preset: str = "medium",
        sound_from: Path | None = None,
        width: int | None = None,
        height: int | None = None,
    ) -> None:
        self.path = path
        self.info = info
        self.warnings: list[str] = []
        self._sound_from = sound_from
        if sound_from is not None:
            sample_rates(sound_from)  # to be told before anything is encoded
        with writing(path):
            descriptor, name = tempfile.mkstemp(suffix=".mp4", dir=path.parent)
            os.close(descriptor)
        self._part = Path(name)
        picture = Picture.of(info, width=width, height=height, crf=crf, preset=preset)
        try:
            self._chunk = ChunkWriter(self._part, picture)
        except BaseException:
            self._part.unlink()
            raise

    def write(self, frame_HWC: NDArray[np.uint8]) -> None:
        """Encode the next frame: uint8 (h, w, 3) RGB of any size."""
        count = self.info.frame_count
        if self._chunk.written == count:
            raise ValueError(f"{self.path}: all {count} frames are already written")
        self._chunk.write(frame_HWC)

    def close(self) -> None:
        """Finish the file. Raises ValueError where frames are missing."""
        count = self.info.frame_count
        try:
            if self._chunk.written != count:
                raise ValueError(f"{self.path}: {self._chunk.written} of {count} frames written")
            self._chunk.close()
            self.warnings = join(self.path, [self._part], self.info, sound_from=self._sound_from)
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Let go of the file as it is."""
        self._chunk.abandon()
        self._part.unlink(missing_ok=True)

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()
