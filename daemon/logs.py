"""The log: one record a line on standard error, JSON for machines or coloured text for people.

Anything may log through `log`, with an `Action`; what `about` has bound is in every record of the
same task, and of the tasks and threads that it starts.
"""

import json
import logging
import math
import os
import sys
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import structlog

from daemon.actions import Action
from daemon.log_sink import LogSink
from daemon.printable import printable

__all__ = ["Action", "about", "configure", "log", "worker_record"]

log: Any = structlog.get_logger()

LEVELS = ("debug", "info", "warning", "error", "critical")
# The first fields of a record, in this order.
_FIRST = ("timestamp", "level", "action", "event")
# Fields that the supervisor knows better than a worker.
_OURS = frozenset({*_FIRST, "worker", "job", "clip", "device", "window", "exc_info", "stack_info"})
_MANY_LINES = ("exception", "stack")
# Fields of a worker's record by what they are called in the log.
_WORKERS = {"logger": "library", "trace": "exception"}


class WorkerRecord(Protocol):
    """What a worker sends: `io_pipeline.records.Record`."""

    @property
    def level(self) -> str: ...

    @property
    def event(self) -> str: ...

    @property
    def fields(self) -> Mapping[str, Any]: ...


def configure(format: str = "auto", level: str = "info", sink: LogSink | None = None) -> None:
    """Set the whole process up; may be called again.

    ``format`` is "json", "text" (with colours on a terminal) or "auto": text on a terminal, else
    JSON. Records below ``level`` are dropped. Libraries' records and warnings go the same way.
    """
    sink = sink or LogSink()
    terminal = sys.stderr is not None and sys.stderr.isatty()
    as_text = format == "text" or (format == "auto" and terminal)
    number = getattr(logging, level.upper())
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _Settle(sink),
            _text(terminal) if as_text else _json,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(sink),  # type: ignore[arg-type]
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, _Forward)]:
        root.removeHandler(handler)
    root.addHandler(_Forward())
    root.setLevel(number)
    logging.captureWarnings(True)


@contextmanager
def about(
    *,
    job: int | None = None,
    clip: Path | None = None,
    device: str | None = None,
    window: int | None = None,
) -> Iterator[None]:
    """Bind what records are about, as far as it is given; those of inner tasks too."""
    given = {"job": job, "clip": clip and clip.name, "device": device, "window": window}
    bound = {name: value for name, value in given.items() if value is not None}
    with structlog.contextvars.bound_contextvars(**bound):
        yield


def worker_record(worker_name: str, record: WorkerRecord) -> None:
    """Log what a worker process said; its fields cannot take the place of ours."""
    level = record.level.lower()
    fields = {
        f"{name}_" if name in _OURS else _WORKERS.get(name, name): value
        for name, value in record.fields.items()
    }
    tell = getattr(log, level if level in LEVELS else "info")
    tell(str(record.event), **{**fields, "action": Action.WORKER_RECORD, "worker": worker_name})


class _Settle:
    """The last step before a record is rendered: every value is one that any renderer can show."""

    def __init__(self, sink: LogSink) -> None:
        self._sink = sink

    def __call__(
        self, logger: Any, method: str, record: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        record.setdefault("action", Action.NOTE)
        if self._sink.lost:
            record["lost"] = self._sink.lost
        names = dict.fromkeys([*(name for name in _FIRST if name in record), *record])
        return {
            printable(name): _lines(record[name]) if name in _MANY_LINES else _plain(record[name])
            for name in names
        }


class _Forward(logging.Handler):
    """Passes records of the standard library's logging on."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
        except Exception:  # its arguments do not fit: a library's mistake is not ours
            text = str(record.msg)
        reached = [name for name in LEVELS if record.levelno >= getattr(logging, name.upper())]
        tell = getattr(log, reached[-1] if reached else "debug")
        source = {"action": Action.LIBRARY, "library": record.name}
        tell(text.strip(), exc_info=record.exc_info, **source)


def _plain(value: Any) -> Any:
    """A value as JSON has it; texts are one printable line."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {printable(str(name)): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(each) for each in value]
    return printable(str(value))


def _lines(value: Any) -> str:
    return "\n".join(printable(line) for line in str(value).splitlines())


def _json(logger: Any, method: str, record: MutableMapping[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False)


def _text(terminal: bool) -> structlog.dev.ConsoleRenderer:
    return structlog.dev.ConsoleRenderer(
        colors=terminal and "NO_COLOR" not in os.environ,
        sort_keys=False,
        exception_formatter=structlog.dev.plain_traceback,
    )
