"""Where LoRAs and embeddings are looked for, and how settings name them."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import HfApi
from safetensors.torch import save_file

from fresco_core import hub
from fresco_core.adapter_files import EMBEDDING, LORA, EmbeddingSource, LoraSource, locate_file
from fresco_core.errors import ModelsError
from fresco_core.model_files import fetch_models, missing_models, pull_models
from fresco_core.model_set import check_models, find_models


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one LoRA-like file."""
    place = tmp_path / "adapters"
    place.mkdir()
    save_file({"a": torch.zeros(1)}, place / "one.safetensors")
    return place


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.safetensors", ("a.safetensors", 1.0)),
        ("owner/name:0.8", ("owner/name", 0.8)),
        ("owner/name/a.safetensors:-1", ("owner/name/a.safetensors", -1.0)),
        ("C/b:c:2", ("C/b:c", 2.0)),
    ],
)
def test_a_lora_has_a_weight_behind_it(text: str, expected: tuple[str, float]) -> None:
    lora = LoraSource.parse(text)
    assert (lora.source, lora.weight) == expected


def test_a_file_with_a_colon_in_its_name_is_that_file(tmp_path: Path) -> None:
    path = tmp_path / "a:0.5"
    path.touch()
    assert LoraSource.parse(str(path)) == LoraSource(str(path), 1.0)


@pytest.mark.parametrize("text", ["x.safetensors:abc", "x:", ":0.5", "x:nan", "x:inf", "x:11"])
def test_what_is_no_weight_is_refused(text: str) -> None:
    with pytest.raises(ModelsError, match=r"LoRA .*: write it as .*:0\.8"):
        LoraSource.parse(text)
    assert "no weight" in missing_models("/no/base", loras=(text,))[1]


def test_an_embedding_has_a_word_before_it() -> None:
    assert EmbeddingSource.parse("a/b.pt") == EmbeddingSource("a/b.pt", None)
    assert EmbeddingSource.parse("bad=a/b.pt") == EmbeddingSource("a/b.pt", "bad")
    for text in ("=a.pt", "two words=a.pt", "word="):
        with pytest.raises(ModelsError, match=r"embedding .*: write it as word=file"):
            EmbeddingSource.parse(text)


def test_a_folder_means_its_one_file_or_the_usual_one(folder: Path) -> None:
    assert locate_file(str(folder), LORA, offline=True) == folder / "one.safetensors"
    shutil.copy(folder / "one.safetensors", folder / "two.safetensors")
    with pytest.raises(ModelsError, match=r"has 2 files .*name one of them, as .*one\.safetensors"):
        locate_file(str(folder), LORA, offline=True)
    usual = folder / "pytorch_lora_weights.safetensors"
    shutil.copy(folder / "one.safetensors", usual)
    assert locate_file(str(folder), LORA, offline=True) == usual


@pytest.mark.parametrize("name", ["lora.ckpt", "lora.pt", "lora.bin"])
def test_pickled_loras_are_not_opened(folder: Path, name: str) -> None:
    (folder / "one.safetensors").rename(folder / name)
    with pytest.raises(ModelsError, match=r"convert it to \.safetensors"):
        locate_file(str(folder / name), LORA, offline=True)
    with pytest.raises(ModelsError, match=r"pickled weights are not opened"):
        locate_file(str(folder), LORA, offline=True)


def test_a_damaged_file_is_missing(folder: Path) -> None:
    path = folder / "one.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ModelsError, match="is truncated"):
        locate_file(str(path), EMBEDDING, offline=True)


@pytest.mark.parametrize("source", ["/nowhere/a.safetensors", "./a.safetensors", "a"])
def test_a_path_that_does_not_exist_is_named(source: str) -> None:
    with pytest.raises(ModelsError, match=f"LoRA {source} not found: .*frescod models pull"):
        locate_file(source, LORA, offline=False)


def test_what_the_hubs_cache_has_is_found(folder: Path, fake_cache: dict[str, Path]) -> None:
    fake_cache["some/lora"] = folder
    (folder / "sub").mkdir()
    shutil.copy(folder / "one.safetensors", folder / "sub" / "two.safetensors")
    assert locate_file("some/lora", LORA, offline=True) == folder / "one.safetensors"
    deep = locate_file("some/lora/sub/two.safetensors", LORA, offline=True)
    assert deep == folder / "sub" / "two.safetensors"
    for source in ("some/lora/three.safetensors", "another/lora"):
        with pytest.raises(ModelsError, match=f"LoRA {source} is not on this machine: .*pull"):
            locate_file(source, LORA, offline=True)


def test_adapters_are_listed_fetched_and_pulled_with_the_models(
    tiny: tuple[Path, Path],
    folder: Path,
    fake_cache: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    problems = missing_models(str(tiny[0]), loras=("some/lora:0.5",), embeddings=("w=/no/e.pt",))
    assert [problem.split(":")[0] for problem in problems] == [
        "LoRA some/lora is not on this machine",
        "embedding /no/e.pt not found",
    ]
    asked: list[list[str]] = []

    class File:
        rfilename = "one.safetensors"

    class Info:
        siblings = [File()]  # noqa: RUF012

    def download(repository: str, *, allow_patterns: list[str], **options: object) -> str:
        asked.append(allow_patterns)
        return str(folder)

    monkeypatch.setattr(HfApi, "model_info", lambda *args, **options: Info())
    monkeypatch.setattr(hub, "snapshot_download", download)
    monkeypatch.setattr(hub, "cached_folder", lambda repository: None)
    fetch_models(str(tiny[0]), loras=("some/lora:0.5",))
    local = str(folder / "one.safetensors")
    places = pull_models(str(tiny[0]), loras=("some/lora",), embeddings=(f"word={local}",))
    assert places == [tiny[0], Path(local), Path(local)]
    assert asked == [["one.safetensors"]] * 2
    with pytest.raises(ModelsError, match=r"hub's some/lora has no two\.safetensors"):
        fetch_models(str(tiny[0]), loras=("some/lora/two.safetensors",))


def test_any_of_several_controlnets_may_be_the_one_that_does_not_fit(
    tiny: tuple[Path, Path], controlnet: Path
) -> None:
    base, good = map(str, tiny)
    check_models(base, controlnets=(good, good))
    assert len(find_models(base, controlnets=(good, good)).controlnets) == 2
    config = controlnet / "config.json"
    config.write_text(
        config.read_text().replace('"cross_attention_dim": 32', '"cross_attention_dim": 768')
    )
    with pytest.raises(ModelsError, match=f"{controlnet} has text width 768, the base model 32"):
        check_models(base, controlnets=(good, str(controlnet)))
    assert len(missing_models(base, controlnets=("/no/a", good, "/no/b"))) == 2


def test_models_are_checked_without_torch() -> None:
    imported = "fresco_core.model_set, fresco_core.prompt_weights"
    code = f"import sys, {imported}; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
