"""A function of a tensor is not asked twice."""

import torch

from fresco_core.last_result import LastResult


def test_asked_once_for_the_same_tensor() -> None:
    calls: list[None] = []
    double = LastResult(lambda tensor: calls.append(None) or 2 * tensor)  # type: ignore
    one = torch.ones(2)
    assert double(one) is double(one)
    assert len(calls) == 1
    assert torch.equal(double(torch.ones(2)), torch.full((2,), 2.0))
    assert len(calls) == 2
    double(one)  # only the last one is kept
    assert len(calls) == 3


def test_a_tensor_that_is_gone_is_never_taken_for_another() -> None:
    double = LastResult(lambda tensor: 2 * tensor)
    for value in range(5):  # may well come to lie in the same place
        assert double(torch.tensor([value])).item() == 2 * value


def test_asked_anew_once_what_it_depends_on_has_changed() -> None:
    factor = 2
    times = LastResult(lambda tensor: factor * tensor)
    one = torch.ones(1)
    assert times(one).item() == 2
    factor = 3
    times.forget()
    assert times(one).item() == 3
