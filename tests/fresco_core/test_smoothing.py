import sys

import pytest
import torch

from fresco_core.fallback import Fallback
from fresco_core.smoothing import BackgroundSmoother, background_map
from tests.fresco_core.scenes import shifted_pairs


def test_background_follows_the_frame_before():
    pairs = shifted_pairs(3, 16, 16, 0)
    pictures = torch.arange(3.0).view(3, 1, 1, 1).expand(3, 2, 16, 16)
    smoothed = BackgroundSmoother(pairs, torch.ones(3, 1, 8, 8))(pictures)
    assert torch.allclose(smoothed, torch.zeros_like(smoothed), atol=1e-6)
    assert torch.equal(pictures[2], torch.full((2, 16, 16), 2.0))  # the argument stays


def test_salient_and_occluded_regions_are_left_alone():
    pairs = shifted_pairs(2, 64, 64, 0)
    pictures = torch.rand(2, 3, 64, 64)
    assert torch.equal(BackgroundSmoother(pairs, torch.zeros(2, 1, 32, 32))(pictures), pictures)
    hidden = torch.ones_like(pairs.backward_occlusions)
    pairs = type(pairs)(pairs.forward_flows, pairs.backward_flows, hidden, hidden)
    assert torch.equal(BackgroundSmoother(pairs, torch.ones(2, 1, 32, 32))(pictures), pictures)


def test_both_halves_of_guidance_are_smoothed_alike():
    pairs, features = shifted_pairs(3, 64, 64, 1), torch.rand(3, 4, 8, 8)
    background = torch.rand(3, 1, 32, 32)
    doubled = BackgroundSmoother(pairs, background)(features.repeat(2, 1, 1, 1))
    assert torch.equal(doubled[:3], doubled[3:])
    assert torch.equal(doubled[:3], BackgroundSmoother(pairs, background)(features))


def test_half_precision_comes_back_as_it_was():
    pairs = shifted_pairs(2, 64, 64, 1)
    assert (
        BackgroundSmoother(pairs, torch.ones(2, 1, 32, 32))(torch.rand(2, 4, 8, 8).half()).dtype
        == torch.half
    )


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_memory_layout_stays(layout: torch.memory_format):
    pairs, features = shifted_pairs(3, 64, 64, 1), torch.rand(6, 4, 8, 8)
    smooth = BackgroundSmoother(pairs, torch.ones(3, 1, 32, 32))
    smoothed = smooth(features.contiguous(memory_format=layout))
    assert smoothed.is_contiguous(memory_format=layout)
    assert torch.equal(smoothed, smooth(features))


def test_without_its_kernel_the_twin_does_the_work(monkeypatch):
    monkeypatch.setitem(sys.modules, "fresco_core.smoothing_kernels", None)
    pairs, features = shifted_pairs(3, 64, 64, 1), torch.rand(3, 4, 8, 8)
    background, kernels = torch.rand(3, 1, 32, 32), Fallback("background smoothing")
    with pytest.warns(UserWarning, match="background smoothing without its GPU kernels"):
        found = BackgroundSmoother(pairs, background, kernels)(features)
    assert torch.equal(found, BackgroundSmoother(pairs, background)(features))
    again = BackgroundSmoother(pairs, background, kernels)(features)  # warnings are errors
    assert torch.equal(again, found)


def test_one_frame_has_nothing_to_follow():
    pictures = torch.rand(1, 3, 64, 64)
    smoothed = BackgroundSmoother(shifted_pairs(1, 64, 64, 0), torch.ones(1, 1, 32, 32))(pictures)
    assert torch.equal(smoothed, pictures)


def test_background_map_keeps_away_from_salient_pixels():
    salient = torch.zeros(1, 1, 20, 20)
    salient[..., 10, 10] = 1
    background = background_map(salient)
    assert background[..., 10, 13] == 0
    assert background[..., 10, 14] == 1
