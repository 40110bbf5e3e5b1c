"""State dicts as training scripts leave them."""

import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from fresco_core.errors import ModelsError
from fresco_core.state_dict import load_network, read_state_dict
from tests.fresco_core.small_networks import gmflow_state, named, save_weights


@pytest.mark.parametrize("wrapper", ["", "model", "state_dict"])
@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("old", [False, True])
def test_wrappers_and_prefixes_are_taken_off(
    tmp_path: Path, wrapper: str, prefix: str, old: bool
) -> None:
    state = {f"{prefix}a.weight": torch.ones(2), f"{prefix}b": torch.zeros(1)}
    path = save_weights(tmp_path / "x.pth", state, wrapper, old)
    found = read_state_dict(Path(path))
    assert list(found) == ["a.weight", "b"]
    assert found["a.weight"].tolist() == [1, 1]


def test_only_state_dicts_are_read(tmp_path: Path) -> None:
    tensor = torch.zeros(1)
    for content in ({"a": 1}, [tensor], {"model": {"a": 1}}, tensor, {1: tensor}, {None: tensor}):
        torch.save(content, tmp_path / "x.pth")
        with pytest.raises(ModelsError, match=r"x\.pth is damaged or no state dict"):
            read_state_dict(tmp_path / "x.pth")


@pytest.mark.parametrize("pickled", [b"h\x05.", b"0.", b"]s.", b"\x80\x02K\x01Q."])
def test_whatever_a_broken_pickle_does(tmp_path: Path, pickled: bytes) -> None:
    path = tmp_path / "x.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")
    with pytest.raises(ModelsError, match=r"x\.pth"):
        read_state_dict(path)


def test_a_network_has_the_files_weights_in_float32(tmp_path: Path) -> None:
    half = {"weight": torch.full((1, 2), 0.5, dtype=torch.float16), "bias": torch.zeros(1)}
    path = Path(save_weights(tmp_path / "x.safetensors", half))
    network = load_network(path, lambda state: nn.Linear(2, 1), "a line", "no remedy")
    assert network.weight.dtype == torch.float32
    assert network.weight.tolist() == [[0.5, 0.5]]
    assert not network.weight.requires_grad
    assert not network.training


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    path = Path(save_weights(tmp_path / "x.safetensors", gmflow_state()))
    with pytest.raises(
        ModelsError, match=r"x\.safetensors does not fit a line \(it holds GMFlow\)"
    ):
        load_network(path, lambda state: nn.Linear(2, 1), "a line", "take another")
    path = Path(save_weights(tmp_path / "y.pth", named(["weight"])))
    with pytest.raises(ModelsError, match=r"unknown network.*: take another"):
        load_network(path, lambda state: nn.Linear(2, 1), "a line", "take another")
