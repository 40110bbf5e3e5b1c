"""The log as a test reads it."""

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import structlog

from daemon.logs import configure


class Log:
    """Records that were written since it was last asked."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def records(self) -> list[dict[str, Any]]:
        """They are JSON, one a line."""
        return [json.loads(line) for line in self._capsys.readouterr().err.splitlines()]


@contextmanager
def configured(capsys: pytest.CaptureFixture[str]) -> Iterator[Log]:
    """The process's log, JSON at the lowest level; afterwards all is put back as it was."""
    root = logging.getLogger()
    handlers, level, show = list(root.handlers), root.level, warnings.showwarning
    configure("json", "debug")
    yield Log(capsys)
    logging.captureWarnings(False)
    warnings.showwarning = show
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
