"""Poisson fusion against the CPU's: another cosine transform, else the same."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fresco_core.propagation import poisson as on_cpu
from fresco_core.propagation.gpu.poisson import PoissonFusion
from fresco_core.propagation.options import PropagationOptions
from tests.fresco_core.propagation.gpu.random_input import SIZES, pictures, sent
from tests.fresco_core.propagation.scene import psnr

CPU = torch.device("cpu")
CLIPPED = replace(PropagationOptions(), poisson_weights=(2.5, 0.5, 1.0), poisson_clip=40.0)


@pytest.mark.parametrize("options", [PropagationOptions(), CLIPPED], ids=["default", "clipped"])
@pytest.mark.parametrize("size", SIZES)
def test_the_solution(size: tuple[int, int], options: PropagationOptions):
    many = pictures(size, channels=9)
    first, second = many[..., :3], many[..., 3:6]
    target = many[..., 6:].astype(np.float32) - 128
    mask = many[..., 0] > many[..., 4]
    found = PoissonFusion(*size, options, CPU).solve(*map(sent, (target, first, second, mask)))
    for i, one in enumerate(zip(target, first, second, mask, strict=True)):
        weights = options.poisson_weights
        exact = on_cpu.solve(*one, weights=weights, clip=options.poisson_clip)
        np.testing.assert_allclose(found[i].numpy(), exact, atol=2e-3)


@pytest.mark.parametrize("rounding", ["nearest", "down"])
def test_pictures(rounding: str):
    options = replace(PropagationOptions(), poisson_rounding=rounding)
    size = (61, 45)
    many = pictures(size, channels=9)
    blend, first, second = many[..., :3], many[..., 3:6], many[..., 6:]
    mask = first[..., 0] > 99
    found = PoissonFusion(*size, options, CPU).fuse(*map(sent, (blend, first, second, mask)))
    for i, one in enumerate(zip(blend, first, second, mask, strict=True)):
        expected = on_cpu.fuse(*one, weights=(0.5,) * 3, clip=None, rounding=rounding)
        # A level of Lab, where a value is nearly a half, may be some of RGB.
        assert np.mean(found[i].numpy() != expected) < 1e-3
        assert psnr(found[i].numpy(), expected) > 60


def test_a_constant_picture_comes_back():
    flat = torch.full((1, 30, 40, 3), 77, dtype=torch.uint8)
    mask = torch.zeros((1, 30, 40), dtype=torch.bool)
    for rounding in ("nearest", "down"):
        options = replace(PropagationOptions(), poisson_rounding=rounding)
        found = PoissonFusion(30, 40, options, CPU).fuse(flat, flat, flat, mask)
        assert (found.short() - 77).abs().max() <= 1
