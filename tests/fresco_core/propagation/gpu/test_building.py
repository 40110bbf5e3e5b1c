import pytest
import torch

from fresco_core.errors import KernelsError
from fresco_core.propagation.gpu.building import failure


def told(kind: type[Exception], text: str, module: str) -> Exception | None:
    """What is told of an error that a module raises."""
    names = {"__name__": module, "kind": kind, "text": text}
    exec("def build():\n    raise kind(text)", names)
    try:
        names["build"]()  # type: ignore[operator]
    except Exception as raised:
        return failure(raised)
    raise AssertionError


@pytest.mark.parametrize("module", ["triton.runtime.build", "fresco_core.else"])
@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (torch.OutOfMemoryError, "CUDA out of memory"),
        (RuntimeError, "Triton Error [CUDA]: out of memory"),
        (RuntimeError, "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"),
    ],
)
def test_memory_is_short_whoever_says_so(kind: type[Exception], text: str, module: str) -> None:
    found = told(kind, text, module)
    assert isinstance(found, torch.OutOfMemoryError)
    assert str(found) == text
    assert found.__traceback__ is None


@pytest.mark.parametrize(
    "text",
    [
        "CUDA error: device-side assert triggered",
        "Triton Error [CUDA]: an illegal memory access was encountered",
        "Triton Error [CUDA]: unspecified launch failure",
    ],
)
def test_a_device_that_has_given_up_says_nothing_of_kernels(text: str) -> None:
    assert told(RuntimeError, text, "triton.backends.nvidia.driver") is None


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (RuntimeError, "Failed to find C compiler"),
        (RuntimeError, "Triton Error [CUDA]: device kernel image is invalid"),
        (OSError, "no such file"),
    ],
)
def test_what_triton_cannot_do_is_the_kernels(kind: type[Exception], text: str) -> None:
    assert isinstance(told(kind, text, "triton.runtime.build"), KernelsError)
    assert told(kind, text, "fresco_core.else") is None


def test_without_triton() -> None:
    text = "No module named 'triton'"
    assert isinstance(told(ModuleNotFoundError, text, "fresco_core.else"), KernelsError)
