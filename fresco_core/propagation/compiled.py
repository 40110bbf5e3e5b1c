"""How the kernels become machine code: by Numba, for the user's own CPU, on first use."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from numba.core.caching import NullCache

_KERNELS: list[Any] = []


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile without the GIL; keep the machine code on disk where some place can be written.

    Numba looks in ``NUMBA_CACHE_DIR``, beside the module, then in the user's cache folder, and
    raises if it can write to none (a read-only installation run by a service without a home).
    """
    try:
        compiled = numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:
        return numba.njit(nogil=True)(function)
    _KERNELS.append(compiled)
    return compiled


def folder() -> Path | None:
    """Where machine code is kept; None if nowhere."""
    return Path(_KERNELS[0].stats.cache_path) if _KERNELS else None


def sources() -> list[Path]:
    """The files whose functions are kept."""
    return sorted({Path(compiled.py_func.__code__.co_filename) for compiled in _KERNELS})


def keep_nothing() -> None:
    """From now on compile for this process alone, and read nothing."""
    for compiled in _KERNELS:
        compiled._cache = NullCache()
