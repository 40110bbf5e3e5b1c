"""A GPU kernel, or its plain PyTorch twin where the kernel cannot be built."""

import warnings
from collections.abc import Callable
from typing import TypeVar

from fresco_core.device_errors import trouble
from fresco_core.errors import brief

_Result = TypeVar("_Result")


class Fallback:
    """Runs kernels of one kind until one fails, then their twins; a warning says so once.

    Owned by whoever outlives the batches, so that the attempt and the warning come once a process.

    >>> smoothing = Fallback("background smoothing")
    >>> smoothing(lambda: by_kernel(frames), lambda: plain(frames))
    """

    def __init__(self, what: str, *, usable: bool = True) -> None:
        """Name the work, as a warning would.

        Args:
            usable: whether to try the kernel at all; False once it has failed.
        """
        self.what = what
        self.usable = usable

    def __call__(self, kernel: Callable[[], _Result], plain: Callable[[], _Result]) -> _Result:
        """What `kernel` gives, or `plain` where it cannot be had.

        `kernel` must import Triton itself, or what needs it, and leave what it was given as it was.

        Raises:
            Exception: of `plain`; and those of `kernel` that say that the device has too little
                memory, a twin would not need less, or that it has given up this process.
        """
        if self.usable:
            try:
                return kernel()
            except Exception as error:  # whatever a compiler may say
                if trouble(error).has_no_other_way:
                    raise
                self.usable = False
                message = f"{self.what} without its GPU kernels, slower: {brief(error)}"
                warnings.warn(message, stacklevel=2)
        return plain()
