import pytest
import torch

from fresco_core.device_errors import Trouble, trouble

DRIVERS = ("CUDA error: ", "CUDA driver error: ", "Triton Error [CUDA]: ")


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."),
        torch.OutOfMemoryError(),
        *(RuntimeError(f"{by}out of memory") for by in DRIVERS),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
        RuntimeError("cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDn`"),
    ],
)
def test_shortage(error: Exception) -> None:
    assert trouble(error) is Trouble.SHORTAGE
    assert trouble(error).has_no_other_way


@pytest.mark.parametrize("by", DRIVERS)
@pytest.mark.parametrize(
    "text",
    [
        "an illegal memory access was encountered",
        "an illegal instruction was encountered",
        "misaligned address",
        "device-side assert triggered",
        "unspecified launch failure",
        "the launch timed out and was terminated",
        "uncorrectable ECC error encountered",
        "unknown error",
    ],
)
def test_a_broken_context(by: str, text: str) -> None:
    error = RuntimeError(f"{by}{text}\nCUDA kernel errors might be asynchronously reported")
    assert trouble(error) is Trouble.BROKEN
    assert trouble(error).has_no_other_way


@pytest.mark.parametrize(
    "text",
    [
        "CUDA error: operation not permitted when stream is capturing",
        "CUDA error: operation failed due to a previous error during capture",
        "CUDA error: no kernel image is available for execution on the device",
        "CUDA error: CUBLAS_STATUS_NOT_SUPPORTED when calling `cublasGemmEx(handle)`",
        "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
        "CUDA driver error: invalid argument",
    ],
)
def test_what_another_way_may_do_without(text: str) -> None:
    assert trouble(RuntimeError(text)) is Trouble.UNCLEAR
    assert not trouble(RuntimeError(text)).has_no_other_way


def test_an_error_of_an_accelerator_is_of_the_device_whatever_its_words() -> None:
    kind = type("AcceleratorError", (RuntimeError,), {})
    assert trouble(kind("something new")) is Trouble.UNCLEAR
    assert trouble(kind("CUDA error: out of memory")) is Trouble.SHORTAGE
    assert trouble(kind("CUDA error: device-side assert triggered")) is Trouble.BROKEN


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("Triton Error [CUDA]: device kernel image is invalid"),
        RuntimeError("Failed to find C compiler. Please specify via CC environment variable."),
        RuntimeError("out of resource: shared memory"),
        RuntimeError("shapes"),
        MemoryError(),
        ValueError("CUDA error: out of memory"),
        ModuleNotFoundError("No module named 'triton'"),
    ],
)
def test_others(error: Exception) -> None:
    assert trouble(error) is Trouble.NONE
    assert not trouble(error).has_no_other_way
