"""The kernel of background smoothing against its plain twin. Skipped without a GPU."""

import pytest
import torch

from fresco_core.correspondence import Correspondence
from fresco_core.fallback import Fallback
from fresco_core.smoothing import BackgroundSmoother

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

# Frames, channels, rows, columns; the frames are eight times as large, or as large.
FEATURES = [(1, 8, 8, 8), (2, 5, 8, 24), (3, 640, 8, 16), (8, 130, 16, 24), (17, 320, 8, 8)]
PICTURES = [(2, 3, 64, 64), (5, 3, 64, 128)]


def both(frames: int, rows: int, columns: int, spread: float = 6.0):
    """A batch's smoother by kernel and the plain one."""
    torch.manual_seed(frames + rows)
    flows = spread * torch.randn(2, frames, 2, rows, columns, device="cuda")
    hidden = (torch.rand(2, frames, 1, rows, columns, device="cuda") > 0.99).float()
    pairs = Correspondence(flows[0], flows[1], hidden[0], hidden[1])
    background = torch.rand(frames, 1, rows // 2, columns // 2, device="cuda")
    background = (background * 2).clamp(0, 1)  # a good part of it surely background
    kernels = Fallback("smoothing")
    return BackgroundSmoother(pairs, background, kernels), BackgroundSmoother(pairs, background)


@pytest.mark.parametrize("shape", FEATURES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_features_are_those_of_the_twin(shape, dtype: torch.dtype, layout: torch.memory_format):
    frames, channels, rows, columns = shape
    by_kernel, plain = both(frames, 8 * rows, 8 * columns)
    feature = torch.randn(2 * frames, channels, rows, columns, device="cuda").to(dtype)
    feature = feature.contiguous(memory_format=layout)
    kept = feature.clone()
    found, expected = by_kernel(feature), plain(feature)
    assert torch.equal(feature, kept)
    assert found.dtype == dtype
    assert found.stride() == feature.stride()
    assert (found - expected).abs().max() < max(8 * torch.finfo(dtype).eps, 1e-3)
    if frames > 1:
        assert (found - feature).abs().max() > 0.1


@pytest.mark.parametrize("shape", PICTURES)
def test_pictures_are_those_of_the_twin(shape):
    by_kernel, plain = both(shape[0], *shape[2:])
    pictures = torch.rand(shape, device="cuda")
    assert (by_kernel(pictures) - plain(pictures)).abs().max() < 1e-4


def test_flows_that_leave_the_picture():
    by_kernel, plain = both(3, 64, 64, spread=1e3)
    feature = torch.randn(6, 40, 8, 8, device="cuda")
    found = by_kernel(feature)
    assert found.isfinite().all()
    assert (found - plain(feature)).abs().max() < 1e-3


@pytest.mark.parametrize("value", [0.0, 1e-7, 6e4])
def test_extreme_features_stay_finite(value: float):
    by_kernel, _ = both(8, 128, 128)
    feature = torch.randn(16, 64, 16, 16, device="cuda").half()
    feature[:, ::3] = value
    feature[::2, ::3] = -value
    assert by_kernel(feature).isfinite().all()


def test_what_is_not_seen_does_no_harm():
    by_kernel, _ = both(2, 64, 64, spread=0.0)
    feature = torch.randn(2, 8, 8, 8, device="cuda")
    feature[0, :, 0, 0] = float("inf")
    found = by_kernel(feature)
    assert not found[0, :, 0, 0].isfinite().any()
    found[:, :, 0, 0] = 0
    assert found.isfinite().all()


def test_the_same_bits_every_time():
    by_kernel, _ = both(8, 128, 128)
    feature = torch.randn(16, 320, 16, 16, device="cuda").half()
    assert torch.equal(by_kernel(feature), by_kernel(feature))
