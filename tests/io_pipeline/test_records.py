"""What is logged, as it travels."""

import logging
import pickle
import subprocess
import sys
import threading
from typing import Any

import pytest

from io_pipeline.records import LONGEST, Record, RecordHandler


@pytest.fixture
def logger() -> Any:
    """A logger whose records go nowhere else, and what was passed on."""
    logger, told = logging.Logger("test.records"), []
    logger.addHandler(RecordHandler(told.append))
    return logger, told


def test_levels(logger: Any) -> None:
    log, told = logger
    for level in (10, 20, 25, 30, 40, 50):
        log.log(level, "at %d", level)
    assert [(record.level, record.event) for record in told] == [
        ("info", "at 20"),
        ("info", "at 25"),
        ("warning", "at 30"),
        ("error", "at 40"),
        ("critical", "at 50"),
    ]
    assert all(record.fields == {"logger": "test.records"} for record in told)


def test_an_error_and_its_trace(logger: Any) -> None:
    log, told = logger
    try:
        raise ValueError("x" * 2 * LONGEST)
    except ValueError:
        log.exception("went wrong")
    (record,) = told
    assert record.event == "went wrong"
    assert record.fields["error"].startswith("ValueError: xxx")
    assert record.fields["error"].endswith("…")
    assert record.fields["trace"].endswith("xxx\n")
    assert all(len(text) <= LONGEST for text in record.fields.values())
    assert pickle.loads(pickle.dumps(record)) == record


def test_threads_are_named(logger: Any) -> None:
    log, told = logger
    thread = threading.Thread(target=log.info, args=("hello",), name="fetcher")
    thread.start()
    thread.join()
    assert told == [Record("info", "hello", {"logger": "test.records", "thread": "fetcher"})]


def test_arguments_that_do_not_fit(logger: Any) -> None:
    log, told = logger
    log.info("%d of %d", "one")
    assert told[0].event == "%d of %d ('one',)"


def test_who_logs_hears_of_no_error(logger: Any, capsys: pytest.CaptureFixture[str]) -> None:
    class Unshowable:
        def __str__(self) -> str:
            raise RuntimeError

        __repr__ = __str__

    log, told = logger
    log.info("%s", Unshowable())
    log.info("and on")
    assert [record.event for record in told] == ["and on"]
    assert capsys.readouterr().err == ""


def test_the_whole_process_is_captured() -> None:
    program = """
import logging, warnings
from io_pipeline.records import capture
told = []
capture(told.append)
logging.getLogger("a.b").info("one")
warnings.warn("two\\nlines", FutureWarning)
print([(r.level, r.event, r.fields) for r in told])
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
    assert done.stderr == b""
    assert eval(done.stdout) == [
        ("info", "one", {"logger": "a.b"}),
        ("warning", "FutureWarning: two\nlines", {"logger": "py.warnings"}),
    ]
