import pytest
import torch

from fresco_core.fallback import Fallback


def refuses() -> int:
    raise RuntimeError("no compiler\nfor this device")


def test_kernels_do_the_work_while_they_can():
    assert Fallback("adding")(lambda: 1, lambda: 2) == 1


def test_from_the_first_failure_on_the_twin_does_and_that_is_said_once():
    adding = Fallback("adding")
    with pytest.warns(UserWarning, match="adding without .* slower: no compiler for this device"):
        assert adding(refuses, lambda: 2) == 2
    assert adding(lambda: 1, lambda: 2) == 2  # warnings are errors
    assert not adding.usable


def test_an_error_without_words_is_named():
    def stops() -> int:
        raise NotImplementedError

    with pytest.warns(UserWarning, match="NotImplementedError"):
        Fallback("adding")(stops, lambda: 2)


def test_kernels_switched_off_are_not_tried():
    assert Fallback("adding", usable=False)(refuses, lambda: 2) == 2


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError(),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("Triton Error [CUDA]: out of memory"),
        RuntimeError("Triton Error [CUDA]: an illegal memory access was encountered"),
        RuntimeError("CUDA error: device-side assert triggered"),
    ],
)
def test_too_little_memory_or_a_broken_device_is_for_others_to_deal_with(error: Exception):
    def stops() -> int:
        raise error

    adding = Fallback("adding")
    with pytest.raises(type(error)) as caught:
        adding(stops, lambda: 2)
    assert caught.value is error
    assert adding.usable


def test_what_a_library_does_not_know_the_twin_may_do_without():
    def multiplies() -> int:
        raise RuntimeError("CUDA error: CUBLAS_STATUS_NOT_SUPPORTED when calling `cublasGemmEx`")

    with pytest.warns(UserWarning, match="NOT_SUPPORTED"):
        assert Fallback("adding")(multiplies, lambda: 2) == 2
