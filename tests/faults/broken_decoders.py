"""Readers whose decoders hang or abort: loaded by worker processes, in place of good ones."""

import ctypes
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from io_pipeline import decord_engine
from io_pipeline.clip_source import ClipSource
from io_pipeline.reading import Reader, ReaderStage
from io_pipeline.worker import Report


def hang() -> None:
    """What a decoder's dead lock looks like: it never returns, and keeps the interpreter."""
    ctypes.PyDLL(None).sleep(3600)


BREAK: dict[str, Callable[[], None]] = {"hangs": hang, "aborts": os.abort}


@dataclass(frozen=True)
class BrokenDecoders:
    """``stage`` in a process where some decoders ("pyav", "decord") get no further than a frame.

    Attributes:
        how: what they do there, of `BREAK`.
        after: frames of a pass that still come.
        when: they are sound while there is no such file.
    """

    stage: ReaderStage
    decoders: tuple[str, ...]
    how: str
    after: int
    when: Path

    def load(self, report: Report) -> Reader:
        """Break what is to be broken."""
        if "pyav" in self.decoders:
            frames = ClipSource.frames

            def broken_frames(source: ClipSource) -> Iterator[Any]:
                for number, frame in enumerate(frames(source)):
                    self.pass_or_break(number)
                    yield frame

            ClipSource.frames = broken_frames  # type: ignore[method-assign]
        if "decord" in self.decoders:
            opened = decord_engine._open
            decord_engine._open = lambda path, threads: BrokenReader(opened(path, threads), self)
        return self.stage.load(report)

    def pass_or_break(self, number: int) -> None:
        """A frame is asked for."""
        if number >= self.after and self.when.exists():
            BREAK[self.how]()


class BrokenReader:
    """A decord.VideoReader that breaks."""

    def __init__(self, reader: Any, stage: BrokenDecoders) -> None:
        self.get_frame_timestamp = reader.get_frame_timestamp
        self._reader, self._stage = reader, stage
        self._number = -1

    def __len__(self) -> int:
        return len(self._reader)

    def next(self) -> Any:
        """The next frame, if there is one to come."""
        self._number += 1
        self._stage.pass_or_break(self._number)
        return self._reader.next()
