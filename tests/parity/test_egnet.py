"""EGNet against reference data, made with weights by a formula under the published names."""

import json
import zlib
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fresco_core.saliency.egnet import EgnetSaliency
from fresco_core.saliency.egnet_network import EgnetNetwork, EgnetWidths, resize
from fresco_core.smoothing import background_map
from tests.parity.arrays import load_cases, relative_error


@pytest.fixture(scope="module")
def published(reference_dir: Path):
    return json.loads((reference_dir / "egnet_keys.json").read_text())


@pytest.fixture(scope="module")
def egnet(published) -> EgnetSaliency:
    with torch.device("meta"):
        network = EgnetNetwork(EgnetWidths())
    formula = published["formula_weights"]
    state = {
        name: formula_weight(name, entry["shape"], formula)
        if entry["dtype"].startswith("float")
        else torch.zeros(entry["shape"], dtype=torch.int64)
        for name, entry in published["parameters"].items()
    }
    network.load_state_dict(state, assign=True)
    return EgnetSaliency(network)


def formula_weight(name: str, shape: list[int], formula) -> Tensor:
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()) & 0x7FFFFFFF)
    if name.endswith("running_var"):
        values = 0.5 + torch.rand(shape, generator=generator)
    else:
        values = torch.randn(shape, generator=generator)
        if name.endswith("running_mean"):
            values *= 0.1
        elif len(shape) >= 2:
            values *= (formula["gain"] / torch.Size(shape[1:]).numel()) ** 0.5
        elif name.endswith("bias"):
            values *= 0.05
        else:
            values = 1 + 0.1 * values
    return values * formula["multipliers"].get(name, 1) + formula["offsets"].get(name, 0)


def test_saliency_and_what_leads_to_it(egnet, reference_dir):
    expected = load_cases(reference_dir / "egnet.npz")[""]
    frames = torch.from_numpy(expected["frames"]).permute(0, 3, 1, 2)
    network, kept = egnet._network, {}

    def keep(name):
        def hook(_, inputs, output):
            kept.setdefault(name, []).append((inputs, output))

        return hook

    for name, part in (("all", network), ("base", network.base), ("merge1", network.merge1)):
        part.register_forward_hook(keep(name))
    for j, part in enumerate(network.merge2.up[0]):
        part.register_forward_hook(keep(f"with_edge_{j}"))
    salient = egnet(frames, torch.zeros(len(frames), 2, *frames.shape[-2:]))
    logits = torch.cat([output for _, output in kept["all"]])

    inputs = torch.cat([inputs[0] for inputs, _ in kept["base"]])
    assert relative_error(inputs, expected["network_input"]) < 1e-6
    for level in range(5):
        found = torch.cat([output[level] for _, output in kept["base"]])
        assert relative_error(found.mean((2, 3)), expected[f"backbone_{level}_mean"]) < 1e-4
    edge = torch.cat([output[0] for _, output in kept["merge1"]])
    score = resize(network.merge1.score[0](edge), logits)
    assert relative_error(score, expected["edge_logits"]) < 1e-4
    for j in range(4):  # the first of the saliency logits are those of the deepest level
        objects = torch.cat([output[1][j] for _, output in kept["merge1"]])
        score = resize(network.merge1.score[1 + j](objects), logits)
        assert relative_error(score, expected[f"saliency_logits_{3 - j}"]) < 1e-4
        with_edge = torch.cat([output for _, output in kept[f"with_edge_{j}"]])
        score = resize(network.merge2.score[0][j](with_edge), logits)
        assert relative_error(score, expected[f"fused_logits_{j}"]) < 1e-4
    assert relative_error(logits, expected["final_logits"]) < 1e-4
    assert relative_error(background_map(salient), expected["background"]) < 1e-4


def test_parameters_are_named_and_shaped_as_published(egnet, published):
    ours = egnet._network.state_dict()
    assert {name: list(tensor.shape) for name, tensor in ours.items()} == {
        name: entry["shape"] for name, entry in published["parameters"].items()
    }
    assert EgnetWidths.of(ours) == EgnetWidths()
