"""How the kernels become machine code: by Numba, for the user's own CPU, on first use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile without the GIL; keep the machine code on disk where some place can be written.

    Numba looks beside the module, then in the user's cache folder, and raises if it can write
    to neither (a read-only installation run by a service without a home).
    """
    try:
        return numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:
        return numba.njit(nogil=True)(function)
