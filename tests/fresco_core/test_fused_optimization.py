import weakref

import pytest
import torch

from fresco_core.fused_optimization import FusedOptimization
from fresco_core.optimization import normalise_tokens, optimize_features
from fresco_core.options import OptimizationOptions
from tests.fresco_core.scenes import shifted_pairs

# Without Triton there is nothing to refuse.
feature_optimizer = pytest.importorskip("fresco_core.feature_optimizer", exc_type=ImportError)
FEW = OptimizationOptions(iterations=3)


class Refuses:
    def __init__(self, *_: object, **__: object) -> None:
        raise RuntimeError("no compiler\nfor this device")


class OutOfMemory:
    def __init__(self, *_: object, **__: object) -> None:
        raise torch.OutOfMemoryError


def test_without_kernels_the_plain_form_works_and_that_is_said_once(monkeypatch):
    monkeypatch.setattr(feature_optimizer, "FeatureOptimizer", Refuses)
    optimize, feature = FusedOptimization(), torch.randn(4, 8, 8, 8)
    given = {
        "reference_BPC": normalise_tokens(torch.randn(4, 8, 8, 8)),
        "correspondence": shifted_pairs(2, 64, 64, 8),
        "options": FEW,
    }
    with pytest.warns(UserWarning, match="slower: no compiler for this device"):
        found = optimize(feature, **given)
    assert torch.equal(found, optimize_features(feature, **given))
    assert torch.equal(optimize(feature, **given), found)  # warnings are errors


def test_too_little_memory_is_for_others_to_deal_with(monkeypatch):
    monkeypatch.setattr(feature_optimizer, "FeatureOptimizer", OutOfMemory)
    with pytest.raises(torch.OutOfMemoryError):
        FusedOptimization()(torch.randn(4, 8, 8, 8), correspondence=shifted_pairs(2, 64, 64, 8))


def test_without_constraints_the_feature_itself_comes_back():
    feature = torch.randn(2, 4, 8, 8)
    assert FusedOptimization()(feature) is feature
    unweighted = OptimizationOptions(spatial_weight=0)
    reference = normalise_tokens(feature)
    assert FusedOptimization()(feature, reference_BPC=reference, options=unweighted) is feature


def test_a_batch_is_taken_once_and_not_kept_alive():
    optimizer = feature_optimizer.FeatureOptimizer(
        (2, 4, 8, 8), 2, FEW, torch.device("cpu"), spatial=True, temporal=True, graph=False
    )
    reference, pairs = normalise_tokens(torch.randn(2, 4, 8, 8)), shifted_pairs(2, 64, 64, 8)
    optimizer.set_batch(reference, pairs, 8)
    assert torch.equal(optimizer.reference_BPC, reference.half())
    assert optimizer.back.weight.any()
    optimizer.reference_BPC.zero_()
    optimizer.back.weight.zero_()
    optimizer.set_batch(reference, pairs, 8)
    assert not optimizer.reference_BPC.any()
    assert not optimizer.back.weight.any()
    alive = weakref.ref(reference), weakref.ref(pairs)
    del reference, pairs
    assert [each() for each in alive] == [None, None]
    other = normalise_tokens(torch.randn(2, 4, 8, 8))
    optimizer.set_batch(other, shifted_pairs(2, 64, 64, 8), 8)
    assert torch.equal(optimizer.reference_BPC, other.half())
    assert optimizer.back.weight.any()
