"""What an error says of the device that it came from: what may be done after it."""

import re
from enum import Enum, auto

import torch

# The runtime's errors by PyTorch, and the driver's by PyTorch and by Triton, which all tell them in
# the driver's own words.
_BY = r"(CUDA error|CUDA driver error|Triton Error \[CUDA\]): "
# Libraries that allocate for themselves have names for it: CUBLAS_STATUS_ALLOC_FAILED,
# CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED.
_SHORTAGE = re.compile(rf"{_BY}out of memory|_ALLOC(ATION)?_FAILED")
# Those after which, by CUDA's documentation, all else in the process fails too.
_BROKEN = re.compile(
    rf"{_BY}(an illegal memory access|an illegal instruction|misaligned address|invalid program"
    " counter|operation not supported on global/shared address space|hardware stack error"
    "|unspecified launch failure|device-side assert triggered|the launch timed out"
    "|uncorrectable |Invalid access of peer GPU memory|context is destroyed|unknown error)"
)
_UNCLEAR = re.compile("CUDA (driver )?error|cuDNN error|CUDNN_STATUS|CUBLAS_STATUS")


class Trouble(Enum):
    """What an error says of a device.

    Attributes:
        SHORTAGE: it has too little memory. The process may go on, with less.
        BROKEN: it has given up the process: whatever is tried next fails as well.
        UNCLEAR: CUDA or one of its libraries has refused something. That may be a call that this
            device does not know, or the trace of something worse: another way is worth one try,
            and who has no other way should begin anew.
        NONE: nothing. What was run cannot be built here, or has a mistake.
    """

    SHORTAGE = auto()
    BROKEN = auto()
    UNCLEAR = auto()
    NONE = auto()

    @property
    def has_no_other_way(self) -> bool:
        """Whether the same, done in a plainer way, would fail too."""
        return self in (Trouble.SHORTAGE, Trouble.BROKEN)


def trouble(error: BaseException) -> Trouble:
    """What an error says of the device.

    By its words: most are a `RuntimeError`, of Triton all, and of PyTorch those of libraries.
    """
    if isinstance(error, torch.OutOfMemoryError):
        return Trouble.SHORTAGE
    if not isinstance(error, RuntimeError):
        return Trouble.NONE
    text = str(error)
    if _SHORTAGE.search(text):
        return Trouble.SHORTAGE
    if _BROKEN.search(text):
        return Trouble.BROKEN
    # By name: PyTorch has had this kind since 2.8 only.
    if type(error).__name__ == "AcceleratorError" or _UNCLEAR.search(text):
        return Trouble.UNCLEAR
    return Trouble.NONE
