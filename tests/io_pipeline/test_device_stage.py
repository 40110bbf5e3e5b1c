"""A device's description, and what its process loads."""

import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import pytest
import torch

from fresco_core.errors import ModelsError
from fresco_core.flow.gmflow import GmflowFlow
from fresco_core.options import TranslationOptions
from fresco_core.saliency.egnet import EgnetSaliency
from fresco_core.tiny_model import make_tiny_model
from io_pipeline.device_stage import DeviceStage, choose_dtype
from io_pipeline.options import MapOptions
from io_pipeline.prompt import Prompt
from io_pipeline.tasks import TranslateWindow
from io_pipeline.window import BY_DEVICE
from tests.fresco_core.small_networks import egnet_state, gmflow_state, save_weights
from tests.io_pipeline.windows import Reports, clip, cut_clip, read


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DeviceStage:
    monkeypatch.setattr(cv2, "setNumThreads", lambda count: None)  # of this process, not a worker's
    base, controlnet = make_tiny_model(tmp_path)
    return DeviceStage(
        device="cpu",
        dtype="auto",
        models={
            "base": str(base),
            "vae": None,
            "controlnets": (str(controlnet),),
            "base_config": None,
        },
        flow=("dis", None),
        saliency=("motion", None),
        detectors={"kinds": ("canny",)},
        facts={"models": {"base": "tiny"}},
    )


def test_loads_and_translates(stage: DeviceStage) -> None:
    reports = Reports()
    translate = pickle.loads(pickle.dumps(stage)).load(reports)
    models = {"base": "tiny", "flow": "dis", "saliency": "motion"}
    assert translate.facts == {"device": "cpu", "dtype": "float32", "models": models}
    assert reports == [("load", n, 4) for n in range(5)]
    (window,) = cut_clip((0, 1), 5, steps=1)
    block = read(window, clip(2))
    options = TranslationOptions(steps=2, warmup_steps=1, feature_optimization=False)
    maps = (BY_DEVICE,) * 2
    task = TranslateWindow("a", "", window, Prompt("a car"), maps, 5, None, options, MapOptions())
    translate(task, (block,), reports)
    assert block["keys"][1:].std() > 0


def test_the_flow_and_saliency_models_of_the_settings_are_used(
    stage: DeviceStage, tmp_path: Path
) -> None:
    flow = save_weights(tmp_path / "flow.pth", gmflow_state(), "model")
    saliency = save_weights(tmp_path / "saliency.pth", egnet_state())
    chosen = replace(stage, flow=("gmflow", flow), saliency=("egnet", saliency), detectors=None)
    translate = chosen.load(Reports())
    translator = translate._translator
    assert isinstance(translator.flow, GmflowFlow)
    assert isinstance(translator.conditioner.flow, GmflowFlow)
    assert isinstance(translator.conditioner.saliency, EgnetSaliency)
    assert translate.facts["models"] == {"base": "tiny", "flow": "gmflow", "saliency": "egnet"}


def test_never_asks_the_hub(stage: DeviceStage, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("asked the hub")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", refuse)
    absent = replace(stage, models={**stage.models, "controlnets": ("nobody/nothing",)})
    with pytest.raises(ModelsError, match="nobody/nothing is not on this machine"):
        absent.load(Reports())


def test_precision() -> None:
    assert choose_dtype("auto", torch.device("cpu")) is torch.float32
    assert choose_dtype("auto", torch.device("cuda:0")) is torch.float16
    assert choose_dtype("bfloat16", torch.device("cpu")) is torch.bfloat16


def test_description_needs_no_torch() -> None:
    program = """
import sys
from io_pipeline.device_stage import DeviceStage
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)
