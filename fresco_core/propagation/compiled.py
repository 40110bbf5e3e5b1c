"""How the kernels become machine code: by Numba, for the user's own CPU, on first use."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from numba.core.caching import NullCache

_KERNELS: list[Any] = []
_BUILT_IN = (Path(__file__), Path(__file__).with_name("vectors.py"))
"""What kernels of other files are made with: Numba by itself looks at a kernel's own file only."""


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile without the GIL; keep the machine code on disk where some place can be written.

    Numba looks in ``NUMBA_CACHE_DIR``, beside the module, then in the user's cache folder, and
    raises if it can write to none (a read-only installation run by a service without a home).
    """
    try:
        compiled = numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:
        return numba.njit(nogil=True)(function)
    # Machine code is kept as long as its stamp stays the same.
    kept = compiled._cache._cache_file
    kept._source_stamp = (kept._source_stamp, *map(stamp, _BUILT_IN))
    _KERNELS.append(compiled)
    return compiled


def folder() -> Path | None:
    """Where machine code is kept; None if nowhere."""
    return Path(_KERNELS[0].stats.cache_path) if _KERNELS else None


def sources() -> list[Path]:
    """The files that machine code is made of."""
    files = {Path(compiled.py_func.__code__.co_filename) for compiled in _KERNELS}
    return sorted(files.union(_BUILT_IN))


def stamp(source: Path) -> tuple[int, int]:
    """Changes when the file does."""
    status = source.stat()
    return status.st_mtime_ns, status.st_size


def keep_nothing() -> None:
    """From now on compile for this process alone, and read nothing."""
    for compiled in _KERNELS:
        compiled._cache = NullCache()
