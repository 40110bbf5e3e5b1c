"""GMFlow against reference data, made with random weights of the published layout."""

import json
from pathlib import Path

import pytest
import torch

from fresco_core.flow import load_flow
from fresco_core.flow.gmflow import GmflowFlow
from fresco_core.flow.gmflow_network import GmflowNetwork, GmflowWidths
from tests.parity.arrays import load_cases, relative_error


@pytest.fixture(scope="module")
def gmflow(reference_dir: Path) -> GmflowFlow:
    found = load_flow("gmflow", str(reference_dir / "gmflow_state.safetensors"))
    assert isinstance(found, GmflowFlow)
    return found


@pytest.fixture(scope="module")
def cases(reference_dir: Path):
    return load_cases(reference_dir / "gmflow.npz")


def test_flows_of_pairs_and_of_a_ring(gmflow, cases):
    for case in cases.values():
        frames = torch.from_numpy(case["frames"]).permute(0, 3, 1, 2)
        pairs = len(case["flow"]) // 2
        found = gmflow(frames[:pairs], frames.roll(-1, 0)[:pairs])
        assert relative_error(torch.cat(found), case["flow"]) < 1e-4


def test_what_the_network_computes_on_its_way(gmflow, cases):
    """Where a flow differs, this tells in which part."""
    network, found = gmflow._network, {}

    def keep(name):
        return lambda _, inputs, output: found.update({name: (inputs, output)})

    parts = {
        "backbone": network.backbone,
        "block0": network.transformer.layers[0],
        "block1": network.transformer.layers[1],
        "transformer": network.transformer,
        "propagation": network.feature_flow_attn,
        "upsampler": network.upsampler,
    }
    hooks = [part.register_forward_hook(keep(name)) for name, part in parts.items()]
    case = cases["pair"]
    frames = torch.from_numpy(case["frames"]).permute(0, 3, 1, 2)
    gmflow(frames[:1], frames[1:])
    for hook in hooks:
        hook.remove()

    def grid(tokens):
        return tokens.transpose(1, 2).unflatten(2, case["flow_matching"].shape[-2:])

    both = torch.cat([torch.from_numpy(case[f"features{i}_with_position"]) for i in (0, 1)])
    assert relative_error(found["backbone"][1], case["backbone_features"]) < 1e-5
    assert relative_error(grid(found["transformer"][0][0]), both) < 1e-5
    assert relative_error(found["block0"][1], case["transformer_layer0"]) < 1e-5
    assert relative_error(found["block1"][1], case["transformer_layer1"]) < 1e-5
    features = torch.cat([torch.from_numpy(case[f"transformer_features{i}"]) for i in (0, 1)])
    assert relative_error(grid(found["transformer"][1]), features) < 1e-5
    assert relative_error(grid(found["propagation"][0][1]), case["flow_matching"]) < 1e-4
    assert relative_error(grid(found["propagation"][1]), case["flow_propagated"]) < 1e-4
    assert relative_error(found["upsampler"][1], case["upsampler_logits"]) < 1e-4


@pytest.mark.parametrize(
    ("parameters", "widths"),
    [("parameters", GmflowWidths()), ("small_parameters", GmflowWidths(channels=32, hidden=256))],
)
def test_parameters_are_named_and_shaped_as_published(reference_dir, parameters, widths):
    published = json.loads((reference_dir / "gmflow_keys.json").read_text())[parameters]
    with torch.device("meta"):
        ours = GmflowNetwork(widths).state_dict()
    assert {name: list(tensor.shape) for name, tensor in ours.items()} == {
        name: entry["shape"] for name, entry in published.items()
    }
    assert GmflowWidths.of(ours) == widths
