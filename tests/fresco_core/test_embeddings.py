"""Textual inversion: words of one vector and of several, in every published format."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from fresco_core.embeddings import expand, read_embedding
from fresco_core.errors import ModelsError
from fresco_core.model_set import check_models
from fresco_core.models import DiffusionModels, load_diffusion_models
from fresco_core.prompts import PromptEncoder

WIDTH = 32


def vectors(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(seed))


def embed(models: DiffusionModels, text: str, weights: bool = True) -> Tensor:
    return PromptEncoder(models.tokenizer, models.text_encoder)([text], [""], weights=weights)[1]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("embeddings") / "EasyNegative.safetensors"
    save_file({"emb_params": vectors(3)}, path)
    return path


@pytest.fixture(scope="module")
def models(tiny: tuple[Path, Path], file: Path) -> DiffusionModels:
    return load_diffusion_models(str(tiny[0]), embeddings=(str(file), f"car={file}"))


@pytest.mark.parametrize("weights", [True, False])
def test_a_word_stands_for_its_vectors(models: DiffusionModels, file: Path, weights: bool) -> None:
    found = embed(models, "a EasyNegative dog", weights)
    assert torch.equal(embed(models, "a easynegative dog", weights), found)
    assert not torch.allclose(embed(models, "a dog", weights), found, atol=0.01)
    ids = models.tokenizer(expand(models.tokenizer, "a EasyNegative dog")).input_ids
    table = models.text_encoder.get_input_embeddings().weight
    assert torch.equal(table[ids[2:5]], vectors(3))
    assert len(ids) == 2 + 1 + 3 + 1


def test_words_are_whole_words(models: DiffusionModels, tiny: tuple[Path, Path]) -> None:
    plain = load_diffusion_models(str(tiny[0]))
    assert torch.equal(embed(models, "a dog in cardiff"), embed(plain, "a dog in cardiff"))
    assert torch.equal(embed(models, "a car, day"), embed(models, "a EasyNegative, day"))
    assert not torch.allclose(embed(models, "a car"), embed(plain, "a car"), atol=0.01)


def test_letters_that_only_look_alike_without_their_case_are_other_words() -> None:
    tokenizer = SimpleNamespace(get_added_vocab=lambda: {"<rain#0>": 0})
    dotted_capital, without_dot = "RA\u0130N", "ra\u0131n"
    text = expand(tokenizer, f"{dotted_capital}, {without_dot}, RAIN")
    assert text == f"{dotted_capital}, {without_dot}, <rain#0>"


def test_embeddings_have_weights_as_words_do(models: DiffusionModels) -> None:
    plain, heavy = embed(models, "a EasyNegative"), embed(models, "a (EasyNegative:1.5)")
    assert torch.allclose(plain[:2], heavy[:2], atol=1e-5)
    assert not torch.allclose(plain[2:5], heavy[2:5], atol=0.01)


def save(path: Path, content: object) -> None:
    if path.suffix == ".safetensors":
        save_file(content, path)  # type: ignore[arg-type]
    else:
        torch.save(content, path)


@pytest.mark.parametrize(
    ("name", "content", "word"),
    [
        ("a.safetensors", {"emb_params": vectors(2)}, None),
        ("a.safetensors", {"<cat-toy>": vectors(2)}, "<cat-toy>"),
        ("learned_embeds.bin", {"<cat-toy>": vectors(1)[0]}, "<cat-toy>"),
        (
            "a.pt",
            {"string_to_token": {"*": 265}, "string_to_param": {"*": vectors(2)}, "name": "old"},
            None,
        ),
        (
            "a.pt",
            {"string_to_param": torch.nn.ParameterDict({"*": torch.nn.Parameter(vectors(2))})},
            None,
        ),
    ],
)
def test_published_formats(
    tmp_path: Path, name: str, content: dict[str, object], word: str | None
) -> None:
    save(tmp_path / name, content)
    found, tensor = read_embedding(tmp_path / name)
    assert found == word
    assert torch.equal(tensor, vectors(len(tensor)))


def test_a_file_may_name_its_word(tiny: tuple[Path, Path], tmp_path: Path) -> None:
    save(tmp_path / "learned_embeds.bin", {"<cat-toy>": vectors(1)[0]})
    models = load_diffusion_models(str(tiny[0]), embeddings=(str(tmp_path),))
    assert expand(models.tokenizer, "a <cat-toy>!") == "a <<cat-toy>#0>!"


class Code:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("executed",)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.safetensors", {"emb_params": torch.zeros(2, 768)}, r"\(2, 768\).*is 32 wide"),
        ("a.safetensors", {"clip_l": torch.zeros(2, 32), "clip_g": torch.zeros(2, 64)}, "XL"),
        ("a.safetensors", {"emb_params": torch.zeros(99, 32)}, "has 99 vectors: 1 to 75"),
        ("a.safetensors", {"b": torch.zeros(1), "c": torch.zeros(1)}, "has 2 tensors, not one"),
        ("a.pt", {"*": torch.zeros(2, 768)}, r"\(2, 768\).*is 32 wide"),
        ("a.pt", {"string_to_param": {}}, "has 0 tensors"),
        ("a.pt", [1], "is no embedding"),
        ("a.pt", {"*": Code()}, "holds more than tensors and is not opened"),
        ("a (1).pt", {"*": torch.zeros(2, 32)}, r"no word in a prompt can have.*as word=a \(1\)"),
    ],
)
def test_what_is_no_embedding_or_does_not_fit_is_refused(
    tiny: tuple[Path, Path],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    name: str,
    content: object,
    message: str,
) -> None:
    path = tmp_path / name
    save(path, content)
    if path.suffix == ".safetensors":
        with pytest.raises(ModelsError, match=message):
            check_models(str(tiny[0]), embeddings=(str(path),))
    with pytest.raises(ModelsError, match=message) as caught:
        load_diffusion_models(str(tiny[0]), embeddings=(str(path),))
    assert "\n" not in str(caught.value)
    assert "executed" not in capfd.readouterr().out


def test_two_embeddings_need_two_words(tiny: tuple[Path, Path], file: Path, tmp_path: Path) -> None:
    for second in (f"EASYnegative={file}", f"easynegative={tmp_path}/a.pt"):
        save(tmp_path / "a.pt", {"a": vectors(1)})
        for find in (check_models, load_diffusion_models):
            with pytest.raises(ModelsError, match="another has the word 'easynegative'"):
                find(str(tiny[0]), embeddings=(str(file), second))
    save(tmp_path / "easyNegative.pt", {"*": vectors(1)})
    with pytest.raises(ModelsError, match="another has the word 'easynegative'"):
        load_diffusion_models(
            str(tiny[0]), embeddings=(str(file), str(tmp_path / "easyNegative.pt"))
        )
