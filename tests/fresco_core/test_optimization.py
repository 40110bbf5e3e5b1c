import torch

from fresco_core.optimization import (
    OptimizationOptions,
    correlation,
    match_statistics,
    normalise_tokens,
    optimize_features,
    spatial_loss,
    temporal_loss,
)
from tests.fresco_core.scenes import shifted_pairs

FEW = OptimizationOptions(iterations=5)


def test_tokens_have_unit_length_and_zero_stays_zero():
    feature = torch.randn(1, 3, 2, 2)
    feature[..., 0, 0] = 0
    tokens = normalise_tokens(feature)
    assert torch.allclose(tokens[0, 1:].norm(dim=1), torch.ones(3))
    assert torch.equal(tokens[0, 0], torch.zeros(3))
    assert torch.allclose(correlation(tokens)[0].diagonal()[1:], torch.ones(3))


def test_half_precision_features_do_not_overflow():
    tokens = normalise_tokens(torch.full((1, 4, 2, 2), 60000.0, dtype=torch.half))
    assert torch.allclose(tokens.norm(dim=2), torch.ones(1, 4))


def test_losses_vanish_where_the_constraints_hold():
    feature = torch.randn(2, 4, 8, 8)
    target = correlation(normalise_tokens(feature))
    assert spatial_loss(feature, target) == 0
    same = feature[:1].expand(2, -1, -1, -1)
    assert temporal_loss(same, shifted_pairs(2, 64, 64, 0).on_grid(8)) < 1e-6


def test_occluded_pixels_do_not_count():
    pairs = shifted_pairs(2, 64, 64, 0)
    hidden = torch.ones_like(pairs.forward_occlusions)
    pairs = type(pairs)(pairs.forward_flows, pairs.backward_flows, hidden, hidden)
    assert temporal_loss(torch.randn(4, 3, 8, 8), pairs.on_grid(8)) == 0


def test_optimisation_lowers_the_loss_and_keeps_the_statistics():
    torch.manual_seed(0)
    feature, losses = torch.randn(4, 8, 8, 8), []
    found = optimize_features(
        feature,
        reference_BPC=normalise_tokens(torch.randn(4, 8, 8, 8)),
        correspondence=shifted_pairs(2, 64, 64, 8),
        on_iteration=lambda loss, _: losses.append(loss),
    )
    assert losses[-1] < 0.7 * losses[0]
    assert torch.allclose(found.mean((2, 3)), feature.mean((2, 3)), atol=1e-5)


def test_without_constraints_the_feature_itself_comes_back():
    feature = torch.randn(2, 4, 8, 8)
    assert optimize_features(feature) is feature
    unweighted = OptimizationOptions(spatial_weight=0)
    reference = normalise_tokens(feature)
    assert optimize_features(feature, reference_BPC=reference, options=unweighted) is feature
    single = torch.randn(2, 4, 1, 1)  # a single token has no statistics
    assert optimize_features(single, correspondence=shifted_pairs(2, 64, 64, 0)) is single


def test_it_works_where_gradients_are_off_and_in_half_precision():
    feature = torch.randn(2, 4, 8, 8).half()
    with torch.no_grad():
        found = optimize_features(feature, correspondence=shifted_pairs(2, 64, 64, 8), options=FEW)
    assert found.dtype == torch.half
    assert found.isfinite().all()
    assert not torch.equal(found, feature)


def test_statistics_are_those_of_the_style():
    content, style = torch.randn(1, 2, 8, 8) * 3, torch.randn(1, 2, 8, 8) * 2 + 5
    out = match_statistics(content, style)
    assert torch.allclose(out.mean((2, 3)), style.mean((2, 3)), atol=1e-5)
    expected = (style.var((2, 3)) + 1).sqrt()  # the published stabiliser
    assert torch.allclose(out.std((2, 3)), expected, rtol=1e-4)
