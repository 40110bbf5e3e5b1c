"""Kernels of layers against their plain twins. Skipped without a GPU."""

import warnings

import pytest
import torch
from torch import nn

from fresco_core.layers import Layers

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

# Samples, channels, groups, rows, columns.
SHAPES = [(2, 64, 32, 9, 7), (1, 20, 4, 1, 1), (3, 960, 32, 33, 17), (2, 128, 32, 300, 211)]
TOLERANCES = {torch.float16: 4e-3, torch.bfloat16: 3e-2, torch.float32: 2e-5}


@pytest.fixture(autouse=True)
def no_warnings():
    """A kernel that cannot be built must not pass as its twin."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def a_norm(channels: int, groups: int, dtype: torch.dtype) -> nn.GroupNorm:
    norm = nn.GroupNorm(groups, channels, device="cuda", dtype=dtype)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return norm.requires_grad_(False)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("channels_last", [False, True])
def test_group_norm(shape, dtype, channels_last):
    samples, channels, groups, rows, columns = shape
    torch.manual_seed(channels)
    sample = 2 * torch.randn(samples, channels, rows, columns, device="cuda") + 3
    sample = sample.to(dtype)
    if channels_last:
        sample = sample.contiguous(memory_format=torch.channels_last)
    norm = a_norm(channels, groups, dtype)
    shift = torch.randn(samples, channels, device="cuda")
    for given in (None, shift):
        for silu in (False, True):
            found = Layers().group_norm(sample, norm, given, silu=silu)
            double = Layers(kernels=False).group_norm(
                sample.double(),
                norm.double(),
                given if given is None else given.double(),
                silu=silu,
            )
            norm.to(dtype)
            assert found.dtype == dtype
            bound = TOLERANCES[dtype]
            torch.testing.assert_close(found.double(), double, rtol=bound, atol=bound)
            assert torch.equal(found, Layers().group_norm(sample, norm, given, silu=silu))


def test_group_norm_of_large_means_and_of_none():
    norm = a_norm(64, 32, torch.float32)
    sample = 1e4 + torch.randn(1, 64, 40, 40, device="cuda")
    found = Layers().group_norm(sample, norm)
    want = Layers(kernels=False).group_norm(sample.double(), norm.double()).float()
    torch.testing.assert_close(found, want, rtol=1e-2, atol=1e-2)
    norm.float()
    still = Layers().group_norm(torch.full_like(sample, 65504.0).half(), norm.half(), silu=True)
    assert still.isfinite().all()


@pytest.mark.parametrize(
    "shape", [(2, 9, 320), (1, 1, 1), (3, 1027, 37), (2, 5, 5000), (1025, 640)]
)
@pytest.mark.parametrize("dtype", TOLERANCES)
def test_layer_norm(shape, dtype):
    torch.manual_seed(shape[-1])
    norm = nn.LayerNorm(shape[-1], device="cuda", dtype=dtype).requires_grad_(False)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    rows = (2 * torch.randn(shape, device="cuda") + 3).to(dtype)
    found = Layers().layer_norm(rows, norm)
    assert torch.equal(found, Layers().layer_norm(rows, norm))
    want = Layers(kernels=False).layer_norm(rows.double(), norm.double())
    bound = TOLERANCES[dtype]
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), want, rtol=bound, atol=bound)


def test_layer_norm_of_large_means_and_of_none():
    norm = nn.LayerNorm(640, device="cuda")
    rows = 1e4 + torch.randn(70, 640, device="cuda")
    want = Layers(kernels=False).layer_norm(rows.double(), norm.double()).float()
    torch.testing.assert_close(Layers().layer_norm(rows, norm.float()), want, rtol=1e-2, atol=1e-2)
    for value in (0.0, 65504.0):
        still = Layers().layer_norm(torch.full_like(rows, value).half(), norm.half())
        assert still.isfinite().all()


@pytest.mark.parametrize("shape", [(2, 64, 5, 7), (1, 37, 1, 1), (3, 320, 33, 17)])
@pytest.mark.parametrize("dtype", TOLERANCES)
def test_add_and_gate(shape, dtype):
    torch.manual_seed(shape[1])
    a, b = (torch.randn(shape, device="cuda").to(dtype) for _ in range(2))
    bias = torch.randn(shape[1], device="cuda").to(dtype)
    bound = TOLERANCES[dtype]
    want = a.float() + b.float() + bias.float()[:, None, None]
    torch.testing.assert_close(Layers().add(a, b, bias).float(), want, rtol=bound, atol=bound)
    doubled = torch.randn(*shape[:1], shape[2] * shape[3], 2 * shape[1], device="cuda").to(dtype)
    plain = Layers(kernels=False).gate(doubled.float())
    found = Layers().gate(doubled)
    torch.testing.assert_close(found.float(), plain, rtol=bound, atol=bound)
    assert Layers().gate(8 * doubled).isfinite().all()


@pytest.mark.parametrize("shape", [(2, 64, 5, 7), (1, 37, 1, 1), (3, 1500, 3, 17)])
def test_double(shape):
    sample = torch.randn(shape, device="cuda").half()
    want = torch.nn.functional.interpolate(sample, scale_factor=2.0, mode="nearest")
    assert torch.equal(Layers().double(sample), want)
