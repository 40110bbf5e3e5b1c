"""Weights exchanged in place are other weights."""

import os
from pathlib import Path

import pytest

from daemon.config import Layer, merge
from daemon.settings import Settings
from daemon.stages import make_stages
from daemon.weights_identity import weights_identity
from io_pipeline.staging import Staging


def settings(**values: object) -> Settings:
    return merge(Layer("test", {key.replace("__", "."): value for key, value in values.items()}))


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of files; what is in them is not looked at."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    folder = tmp_path / "weights"
    for name in (
        "sd/unet/model.safetensors",
        "vae.safetensors",
        "control/model.safetensors",
        "night:1.safetensors",
        "rain.pt",
        "hed/ControlNetHED.pth",
        "ebsynth",
    ):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("old")
    (folder / "ebsynth").chmod(0o755)
    return folder


def chosen(weights: Path) -> Settings:
    return settings(
        models__base=f"{weights}/sd",
        models__vae=f"{weights}/vae.safetensors",
        models__controlnet=f"{weights}/control",
        models__loras=(f"{weights}/night:1.safetensors:0.8",),
        models__embeddings=(f"word={weights}/rain.pt",),
        control__type="hed",
        control__source=f"{weights}/hed",
        flow__model="dis",
        saliency__model="motion",
        propagation__engine="ebsynth",
        propagation__program=f"{weights}/ebsynth",
    )


@pytest.mark.parametrize(
    ("file", "title"),
    [
        ("sd/unet/model.safetensors", "base"),
        ("vae.safetensors", "vae"),
        ("control/model.safetensors", "controlnet 0"),
        ("night:1.safetensors", "lora 0"),
        ("rain.pt", "embedding 0"),
        ("hed/ControlNetHED.pth", "detector 0"),
        ("ebsynth", "program"),
        ("hed/another.pth", None),
    ],
)
def test_an_exchanged_file_is_told(weights: Path, file: str, title: str | None) -> None:
    before = weights_identity(chosen(weights))
    assert before == weights_identity(chosen(weights))
    (weights / file).write_text("new")  # as long as the old
    os.utime(weights / file, ns=(1, 1))
    after = weights_identity(chosen(weights))
    assert {key for key in after if after[key] != before[key]} == ({title} if title else set())


def test_of_the_hubs_models_the_commit_counts(weights: Path, tmp_path: Path) -> None:
    named = settings(
        models__base=f"{weights}/vae.safetensors",
        models__loras=("some/lora/deep/one.safetensors:0.5",),
        control__enabled=False,
        flow__model="dis",
        saliency__model="motion",
    )
    assert weights_identity(named)["lora 0"] == ""
    repository = tmp_path / "cache" / "models--some--lora"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc")
    (repository / "snapshots" / "abc").mkdir(parents=True)
    found = weights_identity(named)
    assert found["lora 0"] == "abc"
    assert set(found) == {"base", "base_config", "vae", "lora 0"}


def test_what_was_interrupted_before_a_lora_was_exchanged_is_begun_anew(
    weights: Path, tmp_path: Path
) -> None:
    def begin() -> None:
        stages = make_stages(chosen(weights), lambda: 0)
        Staging(tmp_path / "out", "a").open(stages.identity())

    begin()
    kept = tmp_path / "out/.staging/a/result/kept"
    kept.touch()
    begin()
    assert kept.exists()
    (weights / "night:1.safetensors").write_text("exchanged")
    begin()
    assert not kept.exists()
