"""Machine code is made once on a machine, however many processes want it at once."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import platform
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import llvmlite.binding
import numba

from fresco_core.propagation import compiled

_LOG = logging.getLogger(__name__)
_ready: set[str] = set()


def ready(what: str, rehearse: Callable[[], None]) -> None:
    """Have the machine code that ``rehearse`` uses read, or made and kept for other processes.

    Of processes that come at once the first compiles, and says so in the log; the others wait for
    it. Where nothing can be kept, or what is kept cannot be read, this process compiles for itself.
    ``what`` tells one rehearsal from another; each is done once in a process.
    """
    if what in _ready:
        return
    _ready.add(what)
    folder = compiled.folder()
    if folder is None:
        _LOG.warning(
            "propagation is compiled in every process, which takes each some seconds: no folder "
            "for machine code can be written; set NUMBA_CACHE_DIR"
        )
        return
    try:
        mark = _mark(folder, what)
        if mark.exists():
            rehearse()
            return
        with _alone(folder):
            if not mark.exists():
                _LOG.info("propagation is compiled for this machine, once, into %s", folder)
            rehearse()
            mark.touch()
    except Exception as error:  # of a damaged file the unpickler may raise anything
        _LOG.warning(
            "propagation is compiled for this process alone, which takes some seconds: machine "
            "code cannot be kept in %s or read from there (%s: %s); empty the folder, or set "
            "NUMBA_CACHE_DIR",
            folder,
            type(error).__name__,
            error,
        )
        compiled.keep_nothing()


def is_made(what: str) -> bool:
    """Whether nothing is left to make and keep for others."""
    folder = compiled.folder()
    return folder is None or _mark(folder, what).exists()


def _mark(folder: Path, what: str) -> Path:
    return folder / f"frescod-{_digest(what)}.ready"


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; who dies lets go of it.

    Without one where there can be none (the file is another user's, the file system knows no
    locks): several processes may compile then, and each keeps what it has made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as held:
        with suppress(OSError):
            lock = held.enter_context(open(folder / "frescod.lock", "ab"))
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _digest(what: str) -> str:
    """Of all that decides whether machine code that was kept can be used: as Numba has it."""
    parts = [what, platform.python_version(), numba.__version__, llvmlite.__version__]
    parts += [llvmlite.binding.get_host_cpu_name()]
    parts += [llvmlite.binding.get_host_cpu_features().flatten()]
    parts += [f"{source} {compiled.stamp(source)}" for source in compiled.sources()]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
