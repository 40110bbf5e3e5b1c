"""What went wrong, in one line for the user."""

from daemon.workers import WorkerDied
from fresco_core.errors import FrescodError
from io_pipeline.worker import TaskError


def first_cause(error: Exception) -> Exception:
    """The error that came first, out of the groups of tasks that it went through."""
    while isinstance(error, ExceptionGroup):
        # Tasks that were cancelled because of it are not in the group: the first one is the cause.
        error = error.exceptions[0]
    return error


def reason(error: Exception) -> str:
    """One line: a message of ours as it is, anything else with its kind."""
    if isinstance(error, FrescodError):
        return str(error)
    if isinstance(error, WorkerDied):
        return f"a process that worked on it ended, again and again: {error.reason}"
    kind, message = type(error).__name__, str(error)
    if isinstance(error, TaskError):
        kind, message = error.type_name, error.message
    text = " ".join(message.split())
    return f"unexpected {kind}: {text[:300]} (run with --debug for details)"


def details(error: Exception) -> str:
    """For whoever looks for the cause: a worker's traceback, or where its threads stood."""
    for found in (error, error.__cause__):
        if isinstance(found, TaskError):
            return found.trace
        if isinstance(found, WorkerDied):
            return found.output
    return repr(error)
