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
