import sys

import pytest
import torch
from diffusers.models.attention_processor import Attention

from fresco_core.attention import (
    FrescoAttention,
    attend,
    attend_padded,
    cross_frame,
    fresco_attention,
)
from fresco_core.correspondence import KeyTokens, TokenGuides, Trajectories
from fresco_core.fallback import Fallback
from tests.fresco_core.scenes import shifted_pairs


@pytest.fixture
def layer() -> Attention:
    torch.manual_seed(0)
    return Attention(query_dim=16, heads=4, dim_head=4).eval().requires_grad_(False)


@pytest.fixture
def hidden() -> torch.Tensor:
    return torch.randn(6, 8, 16, generator=torch.Generator().manual_seed(1))  # 2 x 3 frames


def unlinked(frames: int, tokens: int) -> Trajectories:
    identity = torch.arange(tokens).expand(frames, -1)
    return Trajectories(
        identity, identity, torch.eye(frames, dtype=torch.bool).expand(tokens, -1, -1)
    )


def test_without_constraints_it_is_ordinary_attention(layer, hidden):
    assert torch.allclose(fresco_attention(layer, hidden), layer(hidden), atol=1e-6)


def test_cross_frame_makes_frames_see_the_first(layer, hidden):
    mask = torch.zeros(3, 8, dtype=torch.bool)
    mask[0] = True
    same = hidden.clone()
    same[1:3] = torch.randn(2, 8, 16)  # other tokens of the later frames …
    first = fresco_attention(layer, hidden, key_tokens=KeyTokens.of(mask))
    second = fresco_attention(layer, same, key_tokens=KeyTokens.of(mask))
    assert torch.allclose(first[0], second[0], atol=1e-6)  # … are not seen by frame 0
    assert torch.allclose(first[3:], second[3:], atol=1e-6)  # nor by the other half of guidance
    everything = torch.ones(3, 8, dtype=torch.bool)
    assert not torch.allclose(
        fresco_attention(layer, hidden, key_tokens=KeyTokens.of(everything))[0], first[0], atol=1e-3
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("tokens", "depth", "magnitude"), [(70, 5, 1), (37, 40, 1), (70, 8, 30)])
def test_padded_keys_have_no_weight(tokens: int, depth: int, magnitude: float, dtype):
    torch.manual_seed(tokens)
    queries, keys, values = torch.randn(3, 6, tokens, 2, depth).transpose(2, 3).to(dtype)
    queries = queries * magnitude
    mask = torch.rand(3, tokens) > 0.5
    mask[0] = True
    key_tokens = KeyTokens.of(mask)
    assert len(key_tokens.padded[0]) > len(key_tokens.index_M)
    values = values.clone()
    values[[0, 3], :, 0] = 1000  # of the token that stands for padding
    found = attend_padded(queries, keys, values, key_tokens)
    expected = attend(queries.float(), *cross_frame(keys.float(), values.float(), key_tokens))
    assert found.dtype == dtype
    assert (found - expected).abs().max() < 4 * torch.finfo(dtype).eps * 1000


def test_padding_makes_few_lengths_and_wastes_little():
    lengths = {}
    for count in range(1, 2049):
        tokens = KeyTokens(torch.arange(count), 1)
        index, padding = tokens.padded
        assert torch.equal(index[:count], tokens.index_M)
        assert padding.tolist() == [False] * count + [True] * (len(index) - count)
        assert len(index) <= max(count, 1 + count * 17 / 16)
        lengths.setdefault(count.bit_length(), set()).add(len(index))
    assert max(map(len, lengths.values())) <= 17


def test_spatial_guidance_averages_queries_of_like_tokens(layer, hidden):
    uniform = torch.zeros_like(hidden)  # all tokens alike in the reference pass
    out = fresco_attention(layer, hidden, reference_BPC=uniform)
    assert torch.allclose(out, out[:, :1].expand_as(out), atol=1e-5)


def test_unlinked_trajectories_change_nothing(layer, hidden):
    out = fresco_attention(layer, hidden, trajectories=unlinked(3, 8))
    assert torch.allclose(out, fresco_attention(layer, hidden), atol=1e-6)


def test_linked_trajectories_mix_frames_of_one_half_only(layer, hidden):
    paths = unlinked(3, 8)
    linked = Trajectories(paths.forward, paths.backward, torch.ones(8, 3, 3, dtype=torch.bool))
    out = fresco_attention(layer, hidden, trajectories=linked)
    plain = fresco_attention(layer, hidden)
    assert (out[:3].std(0) < plain[:3].std(0) + 1e-6).float().mean() > 0.8
    alone = fresco_attention(layer, hidden[:3], trajectories=linked)
    assert torch.allclose(out[:3], alone, atol=1e-6)


def test_without_its_kernel_temporal_attention_is_the_twin(layer, hidden, monkeypatch):
    monkeypatch.setitem(sys.modules, "fresco_core.attention_kernels", None)
    paths, kernels = unlinked(3, 8), Fallback("temporal attention")
    linked = Trajectories(paths.forward, paths.backward, torch.ones(8, 3, 3, dtype=torch.bool))
    expected = fresco_attention(layer, hidden, trajectories=linked)
    with pytest.warns(UserWarning, match="temporal attention without its GPU kernels"):
        found = fresco_attention(layer, hidden, trajectories=linked, kernels=kernels)
    assert torch.equal(found, expected)
    assert not kernels.usable


class Unet(torch.nn.Module):
    """Two decoder levels that are hooked and one that is not."""

    def __init__(self, layer: Attention) -> None:
        super().__init__()
        self.up_blocks = torch.nn.ModuleList(
            torch.nn.ModuleDict({"attn1": Attention(query_dim=16, heads=4, dim_head=4)})
            for _ in range(4)
        )


def test_only_the_fine_decoder_levels_are_hooked(layer, hidden):
    unet = Unet(layer).requires_grad_(False)
    attention = FrescoAttention(unet)
    assert attention.layers == ("up_blocks.2.attn1", "up_blocks.3.attn1")
    hooked = unet.up_blocks[2]["attn1"]
    plain = hooked(hidden)
    with attention.recording():
        assert torch.allclose(hooked(hidden), plain)
    assert torch.equal(attention.reference["up_blocks.2.attn1"], hidden)

    attention.guides = TokenGuides(torch.rand(3, 3, 16, 32), shifted_pairs(3, 16, 32, 8))
    assert torch.allclose(hooked(hidden), plain)
    for switch in ("cross_frame", "spatial", "temporal"):
        setattr(attention, switch, True)
        changed = hooked(hidden)
        setattr(attention, switch, False)
        assert not torch.allclose(changed, plain, atol=1e-4), switch
    attention.clear()
    assert not attention.reference
