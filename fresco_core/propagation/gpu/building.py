"""Which errors say that kernels cannot be built on this machine."""

from __future__ import annotations

from traceback import walk_tb

from fresco_core.errors import KernelsError, brief


def failure(error: Exception) -> KernelsError | None:
    """What to tell if the error came out of Triton, or for want of it, and not from the device.

    Without the error itself, which holds what it was raised among.
    """
    modules = {
        frame.f_globals.get("__name__", "").partition(".")[0]
        for frame, _ in walk_tb(error.__traceback__)
    }
    if not isinstance(error, ImportError) and ("triton" not in modules or "[CUDA]" in str(error)):
        return None
    return KernelsError(
        f"GPU kernels of propagation cannot be built: {brief(error)}; see `frescod doctor`"
    )
