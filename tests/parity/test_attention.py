"""FRESCO attention against reference data."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from torch import nn

from fresco_core.attention import fresco_attention
from fresco_core.correspondence import KeyTokens, TokenGuides, Trajectories
from tests.parity.arrays import correspondence, load_cases, normalised, relative_error, tensor


def linear(weight: np.ndarray, bias: np.ndarray | None = None) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    layer.weight.data = tensor(weight)
    if bias is not None:
        layer.bias.data = tensor(bias)
    return layer


def stored_guides(top: dict[str, np.ndarray], tokens: int) -> tuple[torch.Tensor, Trajectories]:
    """Mask and trajectories whose grid has `tokens` tokens."""
    factor = next(
        name.rpartition("_")[2]
        for name, array in top.items()
        if name.startswith("fwd_mappings_") and array.shape[-1] == tokens
    )
    paths = Trajectories(
        tensor(top[f"fwd_mappings_{factor}"])[:, 0],
        tensor(top[f"bwd_mappings_{factor}"])[:, 0],
        torch.from_numpy(top[f"interattn_masks_{factor}"])[:, 0],
    )
    return torch.from_numpy(top[f"attn_mask_{factor}"]), paths


def test_every_combination(reference_dir: Path):
    heads = json.loads((reference_dir / "attention.json").read_text())["heads"]
    cases = load_cases(reference_dir / "attention.npz")
    top = cases.pop("")
    checked = 0
    for case in cases.values():
        hidden, reference = tensor(case["hidden_states"]), tensor(case["stored_feature"])
        attention = SimpleNamespace(
            heads=heads,
            to_q=linear(case["to_q"]),
            to_k=linear(case["to_k"]),
            to_v=linear(case["to_v"]),
            to_out=[linear(case["to_out_weight"], case["to_out_bias"])],
        )
        mask, paths = stored_guides(top, hidden.shape[1])
        switches = {
            "off": {},
            "cross": {"key_tokens": KeyTokens.of(mask)},
            "spatial": {"reference_BPC": reference},
            "temporal": {"trajectories": paths},
            "all": {
                "key_tokens": KeyTokens.of(mask),
                "reference_BPC": reference,
                "trajectories": paths,
            },
        }
        for name in (n for n in case if n.startswith("out_")):
            found = fresco_attention(attention, hidden, **switches[name.removeprefix("out_")])
            assert relative_error(found, case[name]) < 1e-5, name
            checked += 1
    assert checked > 0


def test_guides_by_token_count(reference_dir: Path):
    """The guides made from flow and occlusion are those stored beside the attention data."""
    top = load_cases(reference_dir / "attention.npz")[""]
    if "fwd_occs" not in top:  # this file stores flows only; occlusion has a test of its own
        from fresco_core.correspondence import correspond
        from tests.parity.arrays import frames

        pairs = correspond(
            frames(top["frames"]), tensor(top["fwd_flows"]), tensor(top["bwd_flows"])
        )
    else:
        pairs = correspondence(top)
    guides = TokenGuides(normalised(top["frames"]), pairs)
    for name, array in top.items():
        if name.startswith("fwd_mappings_"):
            mask, paths = stored_guides(top, array.shape[-1])
            index = mask.flatten().nonzero()[:, 0]
            assert torch.equal(guides.key_tokens(array.shape[-1]).index_M, index)
            assert torch.equal(guides.trajectories(array.shape[-1]).forward, paths.forward)
