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


def test_too_little_memory_is_for_others_to_deal_with():
    def allocates() -> int:
        raise torch.OutOfMemoryError

    adding = Fallback("adding")
    with pytest.raises(torch.OutOfMemoryError):
        adding(allocates, lambda: 2)
    assert adding.usable
