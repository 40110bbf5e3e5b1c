"""Models on the hub: in the cache, half there, missing, fetched."""

from pathlib import Path

import pytest
from huggingface_hub import HfApi

from fresco_core import hub
from fresco_core.errors import ModelsError
from fresco_core.models import (
    load_diffusion_models,
    missing_models,
    pull_models,
)


@pytest.mark.parametrize("source", ["/nowhere/sd", "./sd", "sd", "a/b.safetensors", "a/b/c"])
def test_a_path_that_does_not_exist_is_named(source: str, no_network: None) -> None:
    with pytest.raises(ModelsError, match=f"base model {source} not found.*frescod models pull"):
        load_diffusion_models(source)


@pytest.mark.parametrize("offline", [True, False])
def test_a_mistyped_path_that_looks_like_a_hub_id(
    fake_cache: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    with pytest.raises(ModelsError, match="neither in the folder models here nor from the hub"):
        load_diffusion_models("models/my-modle", offline=offline)
    problem = missing_models("a/b", loras=("models/night/a.safetensors",))[1]
    assert "neither in the folder models here" in problem


@pytest.mark.parametrize("offline", [True, False])
def test_a_hub_model_not_in_the_cache_names_the_command_that_fetches_it(
    tiny: tuple[Path, Path], fake_cache: dict[str, Path], offline: bool
) -> None:
    with pytest.raises(ModelsError, match=r"someone/else.*frescod models pull") as caught:
        load_diffusion_models(str(tiny[0]), controlnets=("someone/else",), offline=offline)
    assert ("no connection" in str(caught.value)) == (not offline)


def test_a_half_downloaded_hub_model_is_missing(base: Path, fake_cache: dict[str, Path]) -> None:
    fake_cache["some/base"] = base
    (base / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(ModelsError, match=r"some/base is not on this machine.*models pull"):
        load_diffusion_models("some/base", offline=True)


def test_missing_models_lists_each(tiny: tuple[Path, Path], fake_cache: dict[str, Path]) -> None:
    problems = missing_models("some/base", vae=str(tiny[0] / "vae"), controlnets=("/no/control",))
    assert [problem.split(" ")[:2] for problem in problems] == [
        ["base", "model"],
        ["ControlNet", "/no/control"],
    ]


def test_pull_downloads_only_the_files_that_are_needed(
    tiny: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [
        "README.md",
        "v1-5-pruned.safetensors",
        "model_index.json",
        "safety_checker/model.safetensors",
        "scheduler/scheduler_config.json",
        "text_encoder/config.json",
        "text_encoder/model.fp16.safetensors",
        "text_encoder/model.safetensors",
        "text_encoder/pytorch_model.bin",
        "tokenizer/merges.txt",
        "tokenizer/tokenizer_config.json",
        "tokenizer/vocab.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.bin",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "unet/diffusion_pytorch_model.non_ema.safetensors",
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
    ]
    asked: list[list[str]] = []

    class File:
        def __init__(self, name: str) -> None:
            self.rfilename = name

    class Info:
        siblings = [File(name) for name in names]  # noqa: RUF012

    def download(repository: str, *, allow_patterns: list[str], **options: object) -> str:
        asked.append(sorted(allow_patterns))
        return str(tiny[0])

    monkeypatch.setattr(HfApi, "model_info", lambda *args, **options: Info())
    monkeypatch.setattr(hub, "snapshot_download", download)
    kept = [
        "model_index.json",
        "scheduler/scheduler_config.json",
        "text_encoder/config.json",
        "text_encoder/model.safetensors",
        "tokenizer/merges.txt",
        "tokenizer/tokenizer_config.json",
        "tokenizer/vocab.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
    ]
    assert pull_models("some/base", controlnets=(str(tiny[1]),)) == [tiny[0], tiny[1]]
    pull_models("some/base", vae=str(tiny[0] / "vae"))
    assert asked == [kept, [name for name in kept if not name.startswith("vae/")]]
    names.remove("unet/diffusion_pytorch_model.fp16.safetensors")
    Info.siblings = [File(name) for name in names]
    with pytest.raises(ModelsError, match=r"has no unet/\*\.safetensors \(pickled"):
        pull_models("some/base")


def test_pull_without_a_network_says_so(fake_cache: dict[str, Path]) -> None:
    with pytest.raises(ModelsError, match=r"some/base.*\(no connection\)"):
        pull_models("some/base")
