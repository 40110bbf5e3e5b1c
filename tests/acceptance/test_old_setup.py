"""The folder, weights and YAML of the published FRESCO code, taken over as they are.

All networks are small and have random weights, in the formats that they are published in.
"""

import json
import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from fresco_core.tiny_model import make_tiny_model
from io_pipeline.control_maps import WEIGHTS
from io_pipeline.video import scan_clip
from tests.acceptance.test_run import drop, frescod
from tests.conftest import find_material
from tests.fresco_core.adapters import write_lora
from tests.fresco_core.small_networks import egnet_state, gmflow_state, save_weights

# What a YAML has no keys for, at a small size.
SMALL = (
    "devices=cpu",
    "key_frames.resolution=64",
    "constraints.optimization_iterations=1",
    "propagation.votes=1",
    "propagation.sweeps=1",
    "models.vae=",
    "models.offline=true",
)
FRAMES = 8

JOB = """\
file_path: {clips}/a.mp4
save_path: {work}/old output/
mininterv: 3
maxinterv: 3

seed: 0
prompt: 'a red car turns in the winter'
sd_path: {model}/sd
use_controlnet: true
controlnet_type: 'hed'
cond_scale: 0.7
use_freeu: true

batch_size: 3
num_inference_steps: 5
num_warmup_steps: 3
end_opt_step: 4
run_ebsynth: true
max_process: 2

gmflow_path: {weights}/gmflow_sintel-0c07dcb3.pth
sod_path: {weights}/epoch_resnet.pth
use_salinecy: true
"""


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every network beside the base model, in one folder."""
    folder = tmp_path_factory.mktemp("weights")
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from controlnet_aux.hed import ControlNetHED_Apache2
        from controlnet_aux.midas.midas.dpt_depth import DPTDepthModel

        torch.manual_seed(0)
        torch.save(ControlNetHED_Apache2().state_dict(), folder / WEIGHTS["hed"])
        depth = DPTDepthModel(path=None, backbone="vitb_rn50_384", non_negative=True)
    torch.save({k: v.half() for k, v in depth.state_dict().items()}, folder / WEIGHTS["depth"])
    save_weights(folder / "gmflow_sintel-0c07dcb3.pth", gmflow_state(), "model")
    save_weights(folder / "epoch_resnet.pth", egnet_state())
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with base model ``sd`` and a ControlNet: the reference's, or our own tiny ones."""
    folder = tmp_path_factory.mktemp("model")
    if reference := find_material("FRESCO_REFERENCE_DIR", "reference"):
        (folder / "sd").symlink_to(reference / "tiny_sd")
        (folder / "controlnet").symlink_to(reference / "tiny_controlnet")
    else:
        make_tiny_model(folder)
    return folder


class OldSetup:
    """A folder with a clip and the YAML job file that was written for it."""

    def __init__(self, work: Path, model: Path, weights: Path) -> None:
        self.work, self.model, self.weights = work, model, weights
        (work / "clips").mkdir()
        drop(work / "clips", "a.mp4", FRAMES, prompt=None)
        places = {"work": work, "clips": work / "clips", "model": model, "weights": weights}
        self.job = work / "job.yaml"
        self.job.write_text(JOB.format(**places))

    def run(self, *arguments: str, sets: tuple[str, ...] = ()) -> dict[str, Any]:
        """The manifest of the clip's result."""
        own = (f"models.controlnet={self.model}/controlnet", f"control.source={self.weights}")
        assignments = [f"--set={text}" for text in (*SMALL, *own, *sets)]
        command = ("run", "--base-config", str(self.job), *assignments, *arguments)
        done = frescod(*command, cwd=self.work)
        assert done.returncode == 0, done.stderr + done.stdout
        manifest: dict[str, Any] = json.loads((self.result / "manifest.json").read_text())
        return manifest

    @property
    def result(self) -> Path:
        """Result folder of the clip."""
        return self.work / "old output" / "a"

    def keys(self) -> np.ndarray:
        """The translated key frames."""
        return np.stack([cv2.imread(str(path)) for path in sorted(self.result.glob("keys/*.png"))])


@pytest.fixture
def old(tmp_path: Path, model: Path, weights: Path) -> OldSetup:
    return OldSetup(tmp_path, model, weights)


def test_the_yaml_alone_says_what_to_do(old: OldSetup) -> None:
    manifest = old.run()
    assert scan_clip(old.result / "blend.mp4").frame_count == FRAMES
    assert manifest["prompt"]["positive"] == "a red car turns in the winter"
    assert manifest["key_frames"] == [0, 3, 6, 7]
    models = manifest["models"]
    assert models["base"] == f"{old.model}/sd"
    assert models["control_types"] == ["hed"]
    assert (models["flow"], models["saliency"]) == ("gmflow", "egnet")
    assert manifest["settings"]["freeu"]["enabled"]
    assert manifest["settings"]["prompts"]["syntax"] == "literal"


def test_other_control_types_and_adapters(old: OldSetup) -> None:
    """Both others are drawn; a LoRA and an embedding change the result."""
    manifest = old.run("--control-type", "depth")
    assert manifest["models"]["control_types"] == ["depth"]
    assert scan_clip(old.result / "blend.mp4").frame_count == FRAMES
    by_depth = old.keys()

    few = ("output.frames=keys", "prompts.syntax=weights")
    old.run("--force", "--control-type", "canny", sets=few)
    plain = old.keys()
    assert not np.array_equal(plain, by_depth)

    (unet,) = (old.model / "sd/unet").glob("*.safetensors")
    (text,) = (old.model / "sd/text_encoder").glob("*.safetensors")
    words = {name.removeprefix("text_model."): w for name, w in load_file(text).items()}
    write_lora(old.work / "night.safetensors", load_file(unet), words)
    vector = torch.randn(1, 32, generator=torch.Generator().manual_seed(0))
    save_file({"emb_params": vector}, old.work / "winter.safetensors")
    lora = f"models.loras=['{old.work}/night.safetensors:0.8']"
    embedding = f"models.embeddings=['{old.work}/winter.safetensors']"
    manifest = old.run("--control-type", "canny", sets=(*few, lora, embedding))
    assert manifest["models"]["loras"] == [f"{old.work}/night.safetensors:0.8"]
    assert manifest["models"]["embeddings"] == [f"{old.work}/winter.safetensors"]
    assert not np.array_equal(old.keys(), plain)
