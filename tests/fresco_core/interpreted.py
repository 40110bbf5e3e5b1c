"""GPU kernels run by Triton's interpreter on the CPU, each against its plain twin.

A process of its own, since Triton asks when it is imported whether it is to interpret:
``TRITON_INTERPRET=1 python -m tests.fresco_core.interpreted`` prints one line for each check, its
name and how far off the kernel's results are.
"""

import torch

from fresco_core import feature_optimizer
from fresco_core.attention import temporal_guided
from fresco_core.correspondence import Trajectories
from fresco_core.fallback import Fallback
from fresco_core.feature_optimizer import FeatureOptimizer
from fresco_core.layers import Layers
from fresco_core.optimization import correlation, normalise_tokens, optimize_features
from fresco_core.options import OptimizationOptions
from fresco_core.smoothing import BackgroundSmoother
from tests.fresco_core.scenes import shifted_pairs


def temporal_attention() -> float:
    from fresco_core.attention_kernels import mix_along_paths

    frames, tokens, depth = 3, 7, 5
    forward = torch.stack([torch.randperm(tokens) for _ in range(frames)])
    linked = (torch.rand(tokens, frames, frames) > 0.5) | torch.eye(frames, dtype=torch.bool)
    paths = Trajectories(forward, forward.argsort(1), linked)
    queries, keys, out = torch.randn(3, 2 * frames, tokens, 2, depth).transpose(2, 3)
    found = mix_along_paths(out, queries, keys, paths, 1.3, tile=64)
    return float((found - temporal_guided(out, queries, keys, paths, 1.3)).abs().max())


def smoothing() -> float:
    pairs, background = shifted_pairs(3, 32, 32, 3), torch.rand(3, 1, 16, 16)
    kernels = Fallback("smoothing")
    by_kernel = BackgroundSmoother(pairs, background, kernels)
    plain = BackgroundSmoother(pairs, background)
    worst = 0.0
    for sample in (torch.randn(6, 5, 4, 4), torch.rand(3, 3, 32, 32)):
        sample = sample.contiguous(memory_format=torch.channels_last)
        found = by_kernel(sample)
        assert found.stride() == sample.stride()
        worst = max(worst, float((found - plain(sample)).abs().max()))
    assert kernels.usable
    return worst


def correlation_signs() -> float:
    """Over several tiles, those below the diagonal mirrored."""
    from fresco_core.feature_kernels import gram_signs

    given = [normalise_tokens(torch.randn(2, 8, 1, 37)).half().contiguous() for _ in range(2)]
    tokens, reference = given
    signs = torch.full((2, 37, 37), 9, dtype=torch.float16)
    gram_signs[(6, 2)](tokens, reference, signs, 37, 8, 3, BLOCK=16, DEPTH=16)
    difference = correlation(tokens.float()) - correlation(reference.float())
    wrong = (signs != difference.sign()) & (difference.abs() > 1e-6)
    return float(wrong.float().mean())


def layers() -> float:
    by_kernel, plain = Layers(), Layers(kernels=False)
    sample, other, shift = torch.randn(2, 20, 3, 5), torch.randn(2, 20, 3, 5), torch.randn(2, 20)
    norm = torch.nn.GroupNorm(4, 20)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    row_norm = torch.nn.LayerNorm(5)
    torch.nn.init.normal_(row_norm.weight)
    torch.nn.init.normal_(row_norm.bias)
    pairs = [
        [each.layer_norm(sample, row_norm) for each in (by_kernel, plain)],
        [each.group_norm(sample, norm, shift, silu=True) for each in (by_kernel, plain)],
        [each.group_norm(sample, norm) for each in (by_kernel, plain)],
        [each.add(sample, other, shift[0]) for each in (by_kernel, plain)],
        [each.double(sample) for each in (by_kernel, plain)],
        [each.gate(sample.flatten(2).mT) for each in (by_kernel, plain)],
    ]
    return max(float((found - expected).abs().max()) for found, expected in pairs)


def optimization() -> float:
    """Share of numbers that two steps move elsewhere, as signs of rounding errors may.

    The larger one, with correlations in half precision by the kernel and in float32.
    """
    few, shares = feature_optimizer.FEW, []
    for feature_optimizer.FEW in (0, few):
        torch.manual_seed(0)
        shares.append(_moved_elsewhere())
    return max(shares)


def _moved_elsewhere() -> float:
    options = OptimizationOptions(iterations=2)
    shape, cpu = (2, 8, 2, 3), torch.device("cpu")
    feature, reference = torch.randn(shape), normalise_tokens(torch.randn(shape))
    pairs = shifted_pairs(2, 16, 24, 12)
    variables: list[torch.Tensor] = []
    optimize_features(
        feature,
        reference_BPC=reference,
        correspondence=pairs,
        options=options,
        on_iteration=lambda _, variable: variables.append(variable.clone()),
    )
    optimizer = FeatureOptimizer(shape, 2, options, cpu, spatial=True, temporal=True, graph=False)
    optimizer.set_batch(reference, pairs, 2)
    found = optimizer.run(feature.permute(0, 2, 3, 1).flatten(1, 2))
    expected = variables[-1].permute(0, 2, 3, 1).flatten(1, 2)
    return float(((found - expected).abs() > 1e-3).float().mean())


if __name__ == "__main__":
    torch.set_num_threads(1)
    with torch.no_grad():
        for check in (temporal_attention, smoothing, layers, correlation_signs, optimization):
            torch.manual_seed(0)
            print(check.__name__, check())
