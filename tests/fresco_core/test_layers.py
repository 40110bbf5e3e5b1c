"""Plain forms of layers. Their kernels: test_interpreted_kernels.py, tests/gpu/test_layers.py."""

import pytest
import torch
from torch import nn

from fresco_core.layers import Layers


@pytest.mark.parametrize("groups", [1, 4])
@torch.no_grad()
def test_a_shift_counts_before_the_moments(groups: int) -> None:
    sample, norm = torch.randn(2, 8, 3, 5), nn.GroupNorm(groups, 8)
    shift = torch.randn(2, 8)
    found = Layers(kernels=False).group_norm(sample, norm, shift, silu=True)
    want = nn.functional.silu(norm(sample + shift[:, :, None, None]))
    torch.testing.assert_close(found, want)


@pytest.mark.parametrize("shape", [(5,), (3, 5)])
@torch.no_grad()
def test_a_layer_norm_of_several_axes_or_without_weights_is_the_plain_one(
    shape: tuple[int, ...],
) -> None:
    sample = torch.randn(2, 3, 5)
    for weighted in (False, True):
        norm = nn.LayerNorm(shape, elementwise_affine=weighted)
        torch.testing.assert_close(Layers(kernels=False).layer_norm(sample, norm), norm(sample))
    # The kernel is not asked: on the CPU it would fail, and say so.
    several = nn.LayerNorm((3, 5))
    torch.testing.assert_close(Layers().layer_norm(sample, several), several(sample))
    unweighted = nn.LayerNorm(5, elementwise_affine=False)
    torch.testing.assert_close(Layers().layer_norm(sample, unweighted), unweighted(sample))
