"""Networks told by the names of their tensors."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fresco_core.errors import ModelsError
from fresco_core.network_files import (
    EGNET,
    GMFLOW,
    RAFT,
    network_in,
    require_network,
)
from tests.fresco_core.small_networks import egnet_state, gmflow_state, named, save_weights


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.safetensors", {}),
        ("a.pth", {}),
        ("a.ckpt", {"wrapper": "model"}),
        ("a.pth", {"old": True}),
        ("a.pth", {"old": True, "wrapper": "state_dict"}),
    ],
)
def test_a_network_is_told_in_every_format(tmp_path: Path, name: str, options: dict) -> None:
    for state, title in ((gmflow_state(), GMFLOW), (egnet_state(), EGNET)):
        path = Path(save_weights(tmp_path / name, state, **options))
        assert network_in(path) == title
        parallel = {f"module.{key}": tensor for key, tensor in state.items()}
        assert network_in(Path(save_weights(tmp_path / name, parallel, **options))) == title
        require_network(path, title, "")


@pytest.mark.parametrize(
    ("names", "title"),
    [
        (("mask_predictor.conv.weight", "feature_encoder.conv.weight"), RAFT),
        (
            ("update_block.flow_head.conv1.bias", "feature_encoder.conv.weight"),
            "torchvision's RAFT small",
        ),
        (("module.fnet.conv1.weight", "module.cnet.conv1.weight"), "RAFT in its authors' own"),
        (("controlnet_cond_embedding.conv_in.weight", "conv_in.weight"), "a ControlNet"),
        (("x",), "an unknown network"),
        ((), "an unknown network"),
    ],
)
def test_another_network_is_named(tmp_path: Path, names: tuple[str, ...], title: str) -> None:
    path = Path(save_weights(tmp_path / "x.pth", named(names)))
    if title == RAFT:
        assert network_in(path) == title
    with pytest.raises(ModelsError, match=f"holds {title}.*, not {GMFLOW}: get it"):
        require_network(path, GMFLOW, "get it")


def test_raft_large_and_small_are_told_apart() -> None:
    from torchvision.models.optical_flow import raft_large, raft_small

    from fresco_core.network_files import network_of

    with torch.device("meta"):
        assert network_of(raft_large().state_dict()) == RAFT
        assert network_of(raft_small().state_dict()) == "torchvision's RAFT small"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"abc",
        b"\x80\x02.",
        b"PK\x03\x04",
        b"\x80\x02K\x01." * 5,
        b"\x80\x02(X\xff\xff\xff\x7f",
    ],
)
@pytest.mark.parametrize("name", ["x.pth", "x.safetensors"])
def test_what_is_no_state_dict_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelsError, match="fetch it again"):
        network_in(tmp_path / name)


def test_nothing_of_a_pickle_is_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Harmful:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return print, ("unpickled",)

    for old in (False, True):
        torch.save(
            {**named(["x"]), "a": Harmful()},
            tmp_path / "x.pth",
            _use_new_zipfile_serialization=not old,
        )
        assert network_in(tmp_path / "x.pth") is None
    assert "unpickled" not in capsys.readouterr().out


def test_networks_are_told_and_chosen_without_torch(tmp_path: Path) -> None:
    flow = save_weights(tmp_path / "flow.pth", gmflow_state())
    saliency = save_weights(tmp_path / "saliency.pth", egnet_state(), old=True)
    program = f"""
import sys
from fresco_core.flow.weights import FLOW
from fresco_core.saliency.weights import SALIENCY
assert FLOW.choose("auto", {flow!r}).model == "gmflow"
assert SALIENCY.choose("auto", {saliency!r}).model == "egnet"
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)
