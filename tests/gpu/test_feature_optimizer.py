"""The fused feature optimisation against its plain twin. Skipped without a GPU."""

import pytest
import torch

from fresco_core.correspondence import Correspondence
from fresco_core.fused_optimization import FusedOptimization
from fresco_core.optimization import (
    TEMPORAL_WEIGHT,
    correlation,
    normalise_tokens,
    optimize_features,
    spatial_loss,
    temporal_loss,
)
from fresco_core.options import OptimizationOptions

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

# Samples, frames, channels, rows, columns.
SHAPES = [(4, 2, 24, 8, 8), (6, 3, 40, 5, 7), (2, 1, 130, 16, 24), (16, 8, 320, 33, 17)]


def scene(samples: int, frames: int, channels: int, rows: int, columns: int):
    torch.manual_seed(samples + channels)
    feature = torch.randn(samples, channels, rows, columns, device="cuda")
    reference = normalise_tokens(feature + 0.5 * torch.randn_like(feature))
    flows = 6 * torch.randn(2, frames, 2, 8 * rows, 8 * columns, device="cuda")
    hidden = (torch.rand(2, frames, 1, 8 * rows, 8 * columns, device="cuda") > 0.99).float()
    return feature, reference, Correspondence(flows[0], flows[1], hidden[0], hidden[1])


def loss(feature, reference, correspondence):
    total = feature.new_zeros(())
    if reference is not None:
        total = total + 100 * spatial_loss(feature, correlation(reference))
    if correspondence is not None:
        on_grid = correspondence.on_grid(feature.shape[-2])
        total = total + TEMPORAL_WEIGHT * temporal_loss(feature, on_grid)
    return float(total)


def optimized(feature, reference, correspondence, iterations: int):
    """What the fused kernels make of a feature, before its statistics are put back."""
    from fresco_core.feature_optimizer import FeatureOptimizer

    samples, channels, rows, columns = feature.shape
    optimizer = FeatureOptimizer(
        (samples, channels, rows, columns),
        samples if correspondence is None else len(correspondence.forward_flows),
        OptimizationOptions(iterations=iterations),
        feature.device,
        spatial=reference is not None,
        temporal=correspondence is not None,
    )
    optimizer.set_batch(reference, correspondence, rows)
    found = optimizer.run(feature.permute(0, 2, 3, 1).flatten(1, 2))
    return found.unflatten(1, (rows, columns)).permute(0, 3, 1, 2).contiguous()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("only", ["spatial", "temporal", "both"])
def test_the_loss_is_that_of_the_twin(shape, only: str):
    feature, reference, correspondence = scene(*shape)
    reference = None if only == "temporal" else reference
    correspondence = None if only == "spatial" else correspondence
    variables: list[torch.Tensor] = []
    optimize_features(
        feature,
        reference_BPC=reference,
        correspondence=correspondence,
        on_iteration=lambda _, variable: variables.append(variable.clone()),
    )
    found = optimized(feature, reference, correspondence, 20)
    expected = loss(variables[-1], reference, correspondence)
    # Rounding may find a better way on so few tokens, but must not find a worse one.
    assert loss(found, reference, correspondence) < 1.01 * expected
    assert expected < 0.95 * loss(feature, reference, correspondence)


@pytest.mark.parametrize("shape", SHAPES)
def test_one_step_of_the_temporal_constraint_is_that_of_the_twin(shape):
    feature, _, correspondence = scene(*shape)
    variables: list[torch.Tensor] = []
    optimize_features(
        feature,
        correspondence=correspondence,
        options=OptimizationOptions(iterations=1),
        on_iteration=lambda _, variable: variables.append(variable.clone()),
    )
    found = optimized(feature, None, correspondence, 1)
    differs = (found - variables[0]).abs() > 1e-4
    assert float(differs.float().mean()) < 1e-3  # signs of rounding errors


def test_the_same_bits_every_time_and_whatever_came_between():
    optimize, cases = FusedOptimization(), [scene(*shape) for shape in SHAPES]
    found = [
        [optimize(f.half(), reference_BPC=r, correspondence=c) for f, r, c in cases]
        for _ in range(2)
    ]
    for first, second in zip(*found, strict=True):
        assert torch.equal(first, second)


@pytest.mark.parametrize("value", [0.0, 1e-30, 6e4])
def test_extreme_features_stay_finite(value: float):
    feature, reference, correspondence = scene(*SHAPES[1])
    feature[0] = value
    feature[:, :, 0] = value
    found = FusedOptimization()(feature, reference_BPC=reference, correspondence=correspondence)
    assert found.isfinite().all()
