"""What a worker's libraries log and warn of, on its way to the supervisor's log."""

import logging
import traceback
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

LONGEST = 4096  # characters of a text
_LEVELS = ((logging.CRITICAL, "critical"), (logging.ERROR, "error"), (logging.WARNING, "warning"))


@dataclass(frozen=True)
class Record:
    """Something a worker has to say.

    Attributes:
        level: "info", "warning", "error" or "critical".
        event: what.
        fields: ``logger``; ``thread`` where it is not the main one; ``error`` with its ``trace``.
    """

    level: str
    event: str
    fields: Mapping[str, str]

    @classmethod
    def of(cls, record: logging.LogRecord) -> "Record":
        """What was logged, long texts cut: of a trace the end is kept."""
        level = next((name for least, name in _LEVELS if record.levelno >= least), "info")
        fields = {"logger": record.name}
        if record.threadName not in (None, "MainThread"):
            fields["thread"] = str(record.threadName)
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            fields["error"] = _cut(f"{type(error).__name__}: {error}")
            fields["trace"] = "".join(traceback.format_exception(error))[-LONGEST:]
        return cls(level, _cut(_message(record)), fields)


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # arguments that do not go with the text
        return f"{record.msg} {record.args!r}"


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


class RecordHandler(logging.Handler):
    """Passes records on, from any thread. Nobody who logs is to wait, or to hear of an error."""

    def __init__(self, pass_on: Callable[[Record], None]) -> None:
        super().__init__(logging.INFO)
        self._pass_on = pass_on

    def emit(self, record: logging.LogRecord) -> None:
        """Pass a record on."""
        with suppress(Exception):
            self._pass_on(Record.of(record))


def capture(pass_on: Callable[[Record], None]) -> None:
    """From now on pass on what this process logs, INFO and up, and what it warns of."""
    root = logging.getLogger()
    root.setLevel(logging.INFO)
    root.addHandler(RecordHandler(pass_on))
    warnings.showwarning = _log_warning


def _log_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    # one line: where in a library it comes from helps nobody who reads the log
    logging.getLogger("py.warnings").warning("%s: %s", category.__name__, message)
