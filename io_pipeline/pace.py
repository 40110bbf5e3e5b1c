"""Progress that is reported a few times a second, however often there is some."""

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the worker that loads this is running as the main module
    from io_pipeline.worker import Report

# Seconds between two reports: every one is a message, and restarts the phase's deadline.
PACE = 0.25


class Pace:
    """Passes progress on, at most every `PACE` seconds.

    Call it with the number, from 0, of what has just been done of ``count`` things, or call
    `one_more`. That none is done yet is reported at once.
    """

    def __init__(self, report: "Report", phase: str, count: int) -> None:
        self._report, self._phase, self._count = report, phase, count
        self._done = 0
        self._tell()

    def __call__(self, number: int) -> None:
        """Thing ``number`` is done, and so are those before it."""
        self._done = number + 1
        if time.monotonic() - self._told >= PACE:
            self._tell()

    def one_more(self) -> None:
        """Another thing is done."""
        self(self._done)

    def _tell(self) -> None:
        self._report(self._phase, self._done, self._count)
        self._told = time.monotonic()
