import weakref
from contextlib import contextmanager

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


def test_too_little_memory_is_for_others_to_deal_with_and_no_reason_to_stop(monkeypatch):
    error = RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate")
    tries = []

    class OutOfMemory:
        def __init__(self, *_: object, **__: object) -> None:
            tries.append(self)
            raise error

    monkeypatch.setattr(feature_optimizer, "FeatureOptimizer", OutOfMemory)
    optimize = FusedOptimization()
    for count in (1, 2):
        with pytest.raises(RuntimeError, match="ALLOC_FAILED"):
            optimize(torch.randn(4, 8, 8, 8), correspondence=shifted_pairs(2, 64, 64, 8))
        assert len(tries) == count


def test_no_pool_is_taken_up_again_once_all_graphs_are_gone(monkeypatch):
    pools = []

    class Optimizer:
        def __init__(self, shape_BChw: tuple[int, ...], *_: object, pool: object, **__: object):
            pools.append(pool)

        def set_batch(self, *_: object) -> None: ...

        def run(self, feature_BPC: torch.Tensor) -> torch.Tensor:
            return feature_BPC

    monkeypatch.setattr(feature_optimizer, "FeatureOptimizer", Optimizer)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", object)
    optimize = FusedOptimization()
    for side in (8, 16):
        optimize(torch.randn(4, 8, side, side), correspondence=shifted_pairs(2, 64, 64, 8))
    assert pools[0] is pools[1]
    optimize.clear()
    optimize(torch.randn(4, 8, 8, 8), correspondence=shifted_pairs(2, 64, 64, 8))
    assert pools[2] is not pools[0]


def test_calls_of_other_threads_do_not_spoil_a_capture(monkeypatch):
    modes = []

    @contextmanager
    def capturing(*_: object, capture_error_mode: str = "global", **__: object):
        modes.append(capture_error_mode)
        yield

    monkeypatch.setattr(torch.cuda, "CUDAGraph", object)
    monkeypatch.setattr(torch.cuda, "graph", capturing)
    monkeypatch.setattr(feature_optimizer.FeatureOptimizer, "_iterate", lambda _: None)
    feature_optimizer.FeatureOptimizer(
        (2, 4, 8, 8), 2, FEW, torch.device("cpu"), spatial=True, temporal=True
    )
    assert modes == ["thread_local"]


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
    assert torch.equal(optimizer.reference_BPC, reference)
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
    assert torch.equal(optimizer.reference_BPC, other)
    assert optimizer.back.weight.any()
