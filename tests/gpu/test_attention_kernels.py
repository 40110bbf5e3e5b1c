"""Attention's kernel and padded shapes against their twins. Skipped without a GPU."""

import pytest
import torch
from diffusers.models.attention_processor import Attention

from fresco_core.attention import (
    attend,
    attend_padded,
    cross_frame,
    fresco_attention,
    temporal_guided,
)
from fresco_core.correspondence import KeyTokens, Trajectories
from fresco_core.fallback import Fallback

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

# Frames, tokens, heads, channels a head.
SHAPES = [(1, 64, 2, 8), (2, 77, 3, 40), (3, 1, 1, 5), (8, 1000, 8, 40), (8, 259, 8, 80)]
SHAPES += [(17, 131, 4, 40), (17, 30, 2, 160)]
LINKS = {"all": 0.0, "some": 0.5, "none": 1.0}


def states(frames: int, tokens: int, heads: int, depth: int, dtype: torch.dtype):
    """Three times (B,A,P,D) of two copies, in the memory of linear layers."""
    torch.manual_seed(frames + tokens)
    shape = (3, 2 * frames, tokens, heads, depth)
    return torch.randn(shape, device="cuda").to(dtype).transpose(2, 3)


def random_paths(frames: int, tokens: int, links: str = "some") -> Trajectories:
    torch.manual_seed(tokens)
    forward = torch.stack([torch.randperm(tokens, device="cuda") for _ in range(frames)])
    linked = torch.rand(tokens, frames, frames, device="cuda") >= LINKS[links]
    linked |= torch.eye(frames, dtype=torch.bool, device="cuda")
    return Trajectories(forward, forward.argsort(1), linked)


def fused(*given):
    from fresco_core.attention_kernels import mix_along_paths

    return mix_along_paths(*given)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("links", LINKS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_outputs_along_paths_are_those_of_the_twin(shape, links: str, dtype: torch.dtype):
    queries, keys, out = states(*shape, dtype)
    paths = random_paths(*shape[:2], links)
    found = fused(out, queries, keys, paths, 1.3)
    expected = temporal_guided(out.float(), queries.float(), keys.float(), paths, 1.3)
    assert found.dtype == dtype
    assert (found - expected).abs().max() < max(8 * torch.finfo(dtype).eps, 1e-5)
    if links == "none":
        assert torch.equal(found, out)


def test_any_memory_layout_will_do():
    shape = (3, 50, 2, 40)
    queries, keys, out = states(*shape, torch.float16)
    paths = random_paths(3, 50)
    expected = fused(out, queries, keys, paths, 1.0)
    wide = torch.randn(6, 2, 50, 48, device="cuda").half()
    wide[..., :40] = out
    odd = torch.randn(6, 2, 50, 43, device="cuda").half()
    odd[..., 3:] = queries
    last = keys.transpose(2, 3).contiguous().transpose(2, 3)
    found = fused(wide[..., :40], odd[..., 3:], last, paths, 1.0)
    assert (found - expected).abs().max() < 8 * torch.finfo(torch.float16).eps


@pytest.mark.parametrize("value", [0.0, 1e-7, 6e4])
def test_extreme_states_stay_finite(value: float):
    queries, keys, out = states(8, 70, 2, 40, torch.float16)
    for x, sign in ((queries, 1), (keys, -1), (out, 1)):
        x[:, :, ::3] = sign * value
    paths = random_paths(8, 70)
    assert fused(out, queries, keys, paths, 1.0).isfinite().all()


def test_the_same_bits_every_time():
    queries, keys, out = states(8, 1000, 8, 40, torch.float16)
    paths = random_paths(8, 1000)
    first = fused(out, queries, keys, paths, 1.0)
    assert torch.equal(fused(out, queries, keys, paths, 1.0), first)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_padded_keys_have_no_weight(shape, dtype: torch.dtype):
    queries, keys, values = states(*shape, dtype)
    mask = torch.rand(shape[:2], device="cuda") > 0.7
    mask[0] = True
    key_tokens = KeyTokens.of(mask)
    values = values.clone()
    values[:: shape[0], :, 0] = 100  # of the token that stands for padding
    found = attend_padded(queries, keys, values, key_tokens)
    expected = attend(queries.float(), *cross_frame(keys.float(), values.float(), key_tokens))
    assert (found - expected).abs().max() < 4 * torch.finfo(dtype).eps * 100


@pytest.mark.parametrize("sign", [1, -1])
def test_padding_stays_without_weight_beside_large_scores(sign: int):
    queries, keys, values = states(2, 100, 2, 40, torch.float16)
    mask = torch.ones(2, 100, dtype=torch.bool, device="cuda")
    queries, keys = 10 * queries.abs(), sign * 10 * keys.abs()  # scores of hundreds
    key_tokens = KeyTokens.of(mask)
    values = values.clone()
    values[::2, :, 0] = 100
    found = attend_padded(queries, keys, values, key_tokens)
    expected = attend(queries.float(), *cross_frame(keys.float(), values.float(), key_tokens))
    assert found.isfinite().all()
    assert (found - expected).abs().max() < 4 * torch.finfo(torch.float16).eps * 100


def test_a_layer_with_kernels_is_the_layer_without():
    torch.manual_seed(0)
    layer = Attention(query_dim=320, heads=8, dim_head=40).eval().requires_grad_(False).cuda()
    hidden = torch.randn(16, 256, 320, device="cuda")
    mask = torch.rand(8, 256, device="cuda") > 0.5
    given = {
        "key_tokens": KeyTokens.of(mask),
        "reference_BPC": hidden.roll(1, 1),
        "trajectories": random_paths(8, 256),
    }
    expected = fresco_attention(layer, hidden, **given)
    assert torch.allclose(
        fresco_attention(layer, hidden, **given, kernels=Fallback("attention")), expected, atol=1e-4
    )
    layer = layer.half()
    given["reference_BPC"] = given["reference_BPC"].half()
    found = fresco_attention(layer, hidden.half(), **given, kernels=Fallback("attention"))
    assert torch.allclose(found.float(), expected, atol=5e-3)
