"""What errors say of kernels: that they cannot be built on this machine, or find no memory."""

from __future__ import annotations

from traceback import walk_tb

import torch

from fresco_core.device_errors import Trouble, trouble
from fresco_core.errors import KernelsError, brief


def failure(error: Exception) -> torch.OutOfMemoryError | KernelsError | None:
    """What to tell of an error, without the error itself, which holds what it was raised among.

    Returns:
        that memory is short, whoever noticed; that kernels cannot be built, if the error came out
        of Triton, or for want of it; None of all others, and where the device has given up this
        process.
    """
    found = trouble(error)
    if found is Trouble.SHORTAGE:
        return torch.OutOfMemoryError(brief(error))
    modules = {
        frame.f_globals.get("__name__", "").partition(".")[0]
        for frame, _ in walk_tb(error.__traceback__)
    }
    from_triton = isinstance(error, ImportError) or "triton" in modules
    if not from_triton or found is Trouble.BROKEN:
        return None
    return KernelsError(
        f"GPU kernels of propagation cannot be built: {brief(error)}; see `frescod doctor`"
    )
