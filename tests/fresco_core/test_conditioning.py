"""What a batch brings along is taken in place of what would be found, to the last bit."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fresco_core.batch import KeyFrameBatch, Matched
from fresco_core.conditioning import Conditioner, Conditioning
from fresco_core.flow import load_flow
from fresco_core.options import TranslationOptions
from fresco_core.saliency.motion import MotionSaliency
from tests.fresco_core.scenes import panning

MODELS: Any = SimpleNamespace(
    device=torch.device("cpu"), controlnets=(), tokenizer=None, text_encoder=None
)
BATCH = KeyFrameBatch(panning(3, 64, 128, step=5), None, ("a car",) * 3)


class Never:
    """A flow or saliency model that is not to be asked."""

    name = "never"

    def __call__(self, *arguments: Tensor) -> Any:
        raise AssertionError("asked")


def condition(batch: KeyFrameBatch, flow: Any, saliency: Any, **changes: bool) -> Conditioning:
    return Conditioner(MODELS, flow, saliency).condition(batch, TranslationOptions(**changes))


@pytest.fixture(autouse=True)
def no_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Conditioner, "embed", lambda *arguments: torch.zeros(1))


@pytest.fixture
def found() -> Conditioning:
    return condition(BATCH, load_flow("dis"), MotionSaliency())


def brought(found: Conditioning) -> Matched:
    """What `found` is made of, as arrays."""
    pair = found.correspondence.forward_flows, found.correspondence.backward_flows
    flows = np.stack([flow.permute(0, 2, 3, 1).numpy() for flow in pair])
    salient = np.zeros((3, 32, 64), np.uint8)
    salient[:, 10:20, 10:30] = 1
    return Matched(flows.transpose(0, 1, 4, 2, 3), salient)


def test_flows_are_taken_as_they_are(found: Conditioning) -> None:
    matched = replace(brought(found), salient=None)
    again = condition(replace(BATCH, matched=matched), Never(), MotionSaliency())
    for one, other in (
        (again.correspondence.forward_flows, found.correspondence.forward_flows),
        (again.correspondence.backward_flows, found.correspondence.backward_flows),
    ):
        assert torch.equal(one, other)
        assert one.stride() == other.stride()  # sums go by it
    masks = again.correspondence.forward_occlusions, found.correspondence.forward_occlusions
    assert torch.equal(*masks)
    assert found.background_N1HW is not None
    assert torch.equal(again.background_N1HW, found.background_N1HW)


def test_saliency_is_taken_as_it_is(found: Conditioning) -> None:
    again = condition(replace(BATCH, matched=brought(found)), Never(), Never())
    background = again.background_N1HW
    assert background is not None
    assert background.dtype == torch.float32
    assert background.shape == (3, 1, 32, 64)
    assert background[:, :, 12:18, 12:28].max() == 0
    assert background[:, :, 25:].min() == 1


def test_no_saliency_where_nothing_is_smoothed(found: Conditioning) -> None:
    batch = replace(BATCH, matched=brought(found))
    assert condition(batch, Never(), Never(), background_smoothing=False).background_N1HW is None
