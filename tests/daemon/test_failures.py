import pytest

from daemon.failures import details, first_cause, reason
from daemon.workers import WorkerDied, WorkerTimeout
from fresco_core.errors import ClipError, FrescodError
from io_pipeline.worker import TaskError


def test_the_first_cause_is_inside_of_all_groups() -> None:
    cause = ClipError("a.mp4: bad")
    group = ExceptionGroup("x", [ExceptionGroup("y", [cause, ValueError()]), KeyError()])
    assert first_cause(group) is cause
    assert first_cause(cause) is cause


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ClipError("a.mp4: bad; copy it again"), "a.mp4: bad; copy it again"),
        (
            WorkerDied("killed by SIGKILL"),
            "a process that worked on it ended, again and again: killed by SIGKILL",
        ),
        (
            WorkerTimeout("step made no progress in 3 s"),
            "a process that worked on it ended, again and again: step made no progress in 3 s",
        ),
        (
            TaskError("KeyError", "'a'", "trace"),
            "unexpected KeyError: 'a' (run with --debug for details)",
        ),
        (
            ValueError("two\n  lines"),
            "unexpected ValueError: two lines (run with --debug for details)",
        ),
    ],
)
def test_one_line(error: Exception, text: str) -> None:
    assert reason(error) == text


def test_a_long_message_is_cut() -> None:
    assert len(reason(ValueError("x" * 1000))) < 400


def test_details() -> None:
    trace = "Traceback ..."
    error = TaskError("RuntimeError", "no", trace)
    lost = FrescodError("no device is left")
    lost.__cause__ = error
    assert details(error) == details(lost) == trace
    assert details(WorkerDied("step made no progress in 5 s", "Thread 0x1")) == "Thread 0x1"
    assert details(ValueError("odd")) == "ValueError('odd')"
