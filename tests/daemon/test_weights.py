"""What the settings name, what of it is missing, and how that is said."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from daemon.config import Layer, merge
from daemon.settings import Settings
from daemon.weights import (
    choose_models,
    list_weights,
    local_file,
    missing_message,
    missing_weights,
    require_weights,
)
from fresco_core.errors import ModelsError
from fresco_core.flow.weights import GMFLOW_FILE
from fresco_core.hub import PULL
from fresco_core.tiny_model import make_tiny_model
from tests.fresco_core.small_networks import egnet_state, gmflow_state, save_weights

HED_NAMES = ("block1.convs.0.weight", "block5.projection.weight")


@pytest.fixture(autouse=True)
def empty_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


def settings(**values: object) -> Settings:
    return merge(Layer("test", {key.replace("__", "."): value for key, value in values.items()}))


@pytest.mark.parametrize("kind", ["hed", "depth"])
def test_a_detectors_file_is_that_of_its_network(tmp_path: Path, kind: str) -> None:
    """Known before the first clip: each would fail by itself."""
    place = tmp_path / "weights.pth"
    chosen = settings(control__type=kind, control__source=str(place))
    save_weights(place, gmflow_state())
    (problem,) = [each for each in missing_weights(chosen) if str(place) in each]
    assert "holds GMFlow, not" in problem
    assert "control.source" in problem
    place.write_bytes(b"no weights")
    (problem,) = [each for each in missing_weights(chosen) if str(place) in each]
    assert "damaged" in problem
    torch.save({name: 0 for name in HED_NAMES}, place)
    problems = [each for each in missing_weights(chosen) if str(place) in each]
    assert len(problems) == (kind == "depth")


class TestMissingMessage:
    def test_names_the_common_remedy_once_and_last(self) -> None:
        problems = [f"base model a/b is not here: {PULL}", "VAE /x not found", f"HED: {PULL}"]
        assert (
            missing_message(problems)
            == f"VAE /x not found; base model a/b is not here; HED: {PULL}"
        )

    def test_without_anything_to_fetch(self) -> None:
        assert missing_message(["VAE /x not found: correct it"]) == "VAE /x not found: correct it"


def test_list_ends_each_line_with_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    chosen = settings(models__base="nobody/nothing", models__vae="/absent", flow__model="raft")
    assert list_weights(chosen, "frescod models pull --set x=y") == 78
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("missing")]
    assert len(lines) == 5
    fetched = [
        line for line in lines if line.endswith("`frescod models pull --set x=y` with a network")
    ]
    assert len(fetched) == 4
    (wrong,) = set(lines) - set(fetched)
    assert "/absent not found" in wrong


def test_a_hub_that_fails_at_the_last_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The detector is asked for after everything else."""

    def refuse(*arguments: object, **options: object) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", refuse)
    base, controlnet = make_tiny_model(tmp_path / "model")
    chosen = settings(
        models__base=str(base),
        models__vae="",
        models__controlnet=str(controlnet),
        flow__model="raft",
    )
    with pytest.raises(ModelsError) as caught:
        require_weights(chosen)
    message = str(caught.value)
    assert message.startswith("from the hub: no connection; hed detector ")
    assert "flow weights" in message
    assert message.endswith(f": {PULL}")
    assert message.count(PULL) == 1


@pytest.mark.parametrize("offline", [False, True])
def test_a_wrong_path_is_no_business_of_the_hub(
    monkeypatch: pytest.MonkeyPatch, offline: bool
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("asked the hub")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", refuse)
    chosen = settings(models__base="/absent", models__offline=offline)
    with pytest.raises(ModelsError, match="/absent not found"):
        require_weights(chosen)


def test_nothing_is_asked_where_all_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("asked the hub")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", refuse)
    base, controlnet = make_tiny_model(tmp_path / "model")
    require_weights(
        settings(
            models__base=str(base),
            models__vae="",
            models__controlnet=str(controlnet),
            control__type="canny",
        )
    )


class TestLocalFile:
    def test_home_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        chosen = settings(
            flow__model="raft", flow__weights="~/raft.pth", control__enabled=False, models__vae=""
        )
        assert local_file(chosen.flow.weights) == str(tmp_path / "raft.pth")
        assert any("raft.pth not found" in problem for problem in missing_weights(chosen))
        torch.save({}, tmp_path / "raft.pth")
        assert any("raft.pth holds an unknown" in problem for problem in missing_weights(chosen))

    def test_none(self) -> None:
        assert local_file(Settings().flow.weights) is None


class TestChooseModels:
    def test_without_any_weights(self) -> None:
        chosen, told = choose_models(Settings())
        assert (chosen.flow.model, chosen.saliency.model) == ("dis", "motion")
        assert [text.partition(",")[0] for text in told] == ["flow: dis", "saliency: motion"]

    def test_the_best_whose_weights_are_there(self, tmp_path: Path) -> None:
        checkpoints = tmp_path / "torch" / "hub" / "checkpoints"
        checkpoints.mkdir(parents=True)
        names = ["feature_flow_attn.q_proj.weight", "backbone.conv1.weight"]
        torch.save(dict.fromkeys(names, torch.zeros(1)), checkpoints / GMFLOW_FILE)
        chosen, told = choose_models(Settings())
        assert chosen.flow.model == "gmflow"
        assert told[0].startswith("flow: gmflow, its weights are there")
        assert missing_weights(chosen) == missing_weights(Settings())

    def test_a_choice_stays(self) -> None:
        chosen = settings(flow__model="raft", saliency__model="motion")
        assert choose_models(chosen) == (chosen, ())

    def test_weights_of_something_else(self, tmp_path: Path) -> None:
        torch.save({"a": torch.zeros(1)}, tmp_path / "x.pth")
        with pytest.raises(ModelsError, match=r"x\.pth holds an unknown network"):
            choose_models(settings(flow__weights=str(tmp_path / "x.pth")))

    def test_whatever_else_is_missing_is_named_at_once(self, tmp_path: Path) -> None:
        wrong = settings(
            flow__weights=str(tmp_path / "x.pth"),
            saliency__weights=str(tmp_path / "y.pth"),
            models__base="/absent",
        )
        with pytest.raises(ModelsError) as caught:
            choose_models(wrong)
        message = str(caught.value)
        assert all(name in message for name in ("x.pth", "y.pth", "/absent"))
        assert message.endswith(PULL)


def test_models_that_do_not_fit_are_refused_before_any_is_loaded(tmp_path: Path) -> None:
    base, controlnet = make_tiny_model(tmp_path / "model")
    config = controlnet / "config.json"
    config.write_text(
        config.read_text().replace('"cross_attention_dim": ', '"cross_attention_dim": 2')
    )
    chosen = settings(
        models__base=str(base),
        models__vae="",
        models__controlnet=str(controlnet),
        control__type="canny",
    )
    with pytest.raises(ModelsError, match=r"ControlNet .* has text width 2\d+, the base model"):
        require_weights(chosen)


def test_looking_loads_no_torch(tmp_path: Path) -> None:
    """The supervisor looks, and lives for months."""
    base, controlnet = make_tiny_model(tmp_path / "model")
    flow = save_weights(tmp_path / "flow.pth", gmflow_state(), "model")
    saliency = save_weights(tmp_path / "saliency.pth", egnet_state(), old=True)
    torch.save({name: 0 for name in HED_NAMES}, tmp_path / "ControlNetHED.pth")
    values = {
        "models.base": str(base),
        "models.vae": "",
        "models.offline": True,
        "models.controlnet": str(controlnet),
        "control.source": str(tmp_path),
    }
    code = f"""
import sys
from daemon.config import Layer, merge
from daemon.weights import missing_weights
from daemon.weights_identity import weights_identity
def missing(**values):
    return missing_weights(merge(Layer("test", {values!r} | values)))
gmflow, egnet = [{{"flow.model": "gmflow", "flow.weights": {flow!r}}},
    {{"saliency.model": "egnet", "saliency.weights": {saliency!r}}}]
assert missing(**gmflow, **egnet) == []
for control, flow, count in (("canny", "raft", 1), ("hed", "raft", 1), ("depth", "dis", 1)):
    assert len(missing(**{{"control.type": control, "flow.model": flow}})) == count
weights_identity(merge(Layer("test", {values!r} | gmflow | egnet)))
assert not {{"torch", "controlnet_aux", "diffusers"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
