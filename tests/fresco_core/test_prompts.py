import hashlib
import json
from copy import deepcopy

import pytest
import torch

from fresco_core import prompts
from fresco_core.models import load_diffusion_models
from fresco_core.prompts import PromptEncoder, cut_off, default_prompts, effective_prompts
from fresco_core.tiny_model import make_tiny_model


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    base, _ = make_tiny_model(tmp_path_factory.mktemp("model"))
    return load_diffusion_models(
        str(base), vae=None, controlnets=(), device="cpu", dtype=torch.float32
    )


def test_defaults_go_by_the_base_model():
    realistic = (prompts.REALISTIC_ADDED, prompts.REALISTIC_NEGATIVE)
    assert default_prompts("SG161222/Realistic_Vision_V2.0") == realistic
    assert default_prompts("/models/realistic.safetensors") == realistic
    assert default_prompts("stable-diffusion-v1-5/stable-diffusion-v1-5")[0] == prompts.ADDED


def test_defaults_are_to_the_letter(reference_dir):
    stored = json.loads((reference_dir / "prompts.json").read_text())
    found = {
        "base_model_path_contains_Realistic_or_realistic": default_prompts("Realistic"),
        "any_other_base_model": default_prompts("other"),
    }
    for case, texts in found.items():
        for text, kind in zip(texts, ("positive_suffix", "negative"), strict=True):
            assert hashlib.sha256(text.encode()).hexdigest() == stored[case]["sha256"][kind]


def test_effective_prompts():
    assert effective_prompts("a car", None, "any") == ("a car" + prompts.ADDED, prompts.NEGATIVE)
    assert effective_prompts("a car", "", "any", added="", default_negative="x") == ("a car", "")
    assert effective_prompts("a car", None, "any", default_negative="")[1] == ""
    assert effective_prompts("a", None, "Realistic", added="!")[0] == "a!"


def test_embeddings_come_negative_first_one_a_frame(models):
    found = PromptEncoder(models.tokenizer, models.text_encoder)(["a car", "a dog"], ["dark"] * 2)
    assert found.shape == (4, 77, 32)
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[2], found[3])
    alone = PromptEncoder(models.tokenizer, models.text_encoder)(["a dog"], ["dark"])
    assert torch.allclose(alone[1], found[3], atol=1e-6)


def test_texts_are_encoded_once(models):
    seen: list[int] = []

    class Watched:
        def __getattr__(self, name: str) -> object:
            return getattr(models.text_encoder, name)

        def __call__(self, tokens: torch.Tensor) -> object:
            seen.append(len(tokens))
            return models.text_encoder(tokens)

    encode = PromptEncoder(models.tokenizer, Watched())
    first = encode(["a car", "a dog"], ["dark"] * 2, weights=False)
    fewer = encode(["a car", "a dog", "a dog"], ["dark"] * 3, weights=False)
    assert seen == [3]
    assert torch.equal(fewer, torch.stack([first[i] for i in (0, 0, 0, 2, 3, 3)]))
    encode(["a car"], ["dark"], weights=False)
    encode(["a car"], ["dark"], weights=True)
    assert len(seen) == 3


def test_what_does_not_fit_is_named(models):
    assert cut_off(models.tokenizer, "a car on a road", weights=False) == ""
    long = "road " * 100 + "castle"
    assert cut_off(models.tokenizer, long, weights=False).endswith("castle")
    assert cut_off(models.tokenizer, long) == ""
    assert cut_off(models.tokenizer, "(road:1.2) " * 700 + "castle").endswith("road castle")


@pytest.mark.parametrize("weights", [False, True])
def test_no_more_is_looked_at_than_the_encoder_may_see(models, weights):
    words = "a car in the snow " * 60_000
    looked_at = []
    tokenizer = models.tokenizer

    class Watched:
        def __call__(self, texts, **options):
            looked_at.append(max(map(len, [texts] if isinstance(texts, str) else texts)))
            return tokenizer(texts, **options)

        def __getattr__(self, name):
            return getattr(tokenizer, name)

    rest = cut_off(Watched(), words, weights=weights)
    assert len(words) - 3000 < len(rest) < len(words)
    encoder = models.text_encoder
    embedded = PromptEncoder(Watched(), encoder)([words], [""], weights=weights)
    assert max(looked_at) == prompts.LOOKED_AT
    short = PromptEncoder(tokenizer, encoder)([words[:4000]], [""], weights=weights)
    assert torch.equal(embedded, short)
    assert embedded.shape[1] == 77 or weights


def encode(models, *texts, weights=True):
    """Embeddings of texts, the last after an empty one."""
    negative = [""] * len(texts)
    found = PromptEncoder(models.tokenizer, models.text_encoder)(texts, negative, weights=weights)
    return found[len(texts) :]


def test_prompts_without_weights_are_encoded_as_published(models):
    texts = ["a car", "a road \u2014 in snow, 2:1", "day"]
    assert torch.equal(encode(models, *texts), encode(models, *texts, weights=False))
    assert torch.equal(encode(models, r"a \(car\)"), encode(models, "a (car)", weights=False))
    brackets = encode(models, "a (car:1.4)", weights=False)
    assert not torch.allclose(brackets, encode(models, "a car", weights=False), atol=0.01)


def test_weights_move_a_text_away_from_the_empty_one(models):
    plain, empty = encode(models, "a car", "")
    found = {weight: encode(models, f"a (car:{weight})")[0] for weight in (0.0, 0.5, 1.0, 1.5, 2.0)}
    assert torch.equal(found[1.0], plain)
    word = slice(2, 3)  # after the start and "a"
    expected = empty[word] + 1.5 * (plain[word] - empty[word])
    assert torch.allclose(found[1.5][word], expected, atol=1e-5)
    assert torch.allclose(found[1.5][3:], plain[3:], atol=1e-5)
    distance = [(found[weight] - plain).norm() for weight in (0.0, 0.5, 1.0)]
    assert distance[0] > distance[1] > distance[2] == 0
    assert torch.equal(found[2.0], encode(models, "a (car:99)")[0])
    assert torch.equal(encode(models, "a (car)"), encode(models, "a (car:1.1)"))
    assert all(embedding.isfinite().all() for embedding in found.values())


def test_long_prompts_are_encoded_in_parts_and_all_texts_get_as_many_tokens(models):
    long = ", ".join(["road"] * 50 + ["dog"])
    found = encode(models, "a car", long)
    assert found.shape == (2, 154, 32)
    assert torch.equal(found[0, :77], encode(models, "a car")[0])
    assert torch.equal(found[0, 77:], encode(models, "")[0])
    other = encode(models, long.replace("dog", "car"))
    assert torch.allclose(other[0, :77], found[1, :77], atol=1e-5)
    assert not torch.allclose(other[0, 77:], found[1, 77:], atol=0.01)
    literal = encode(models, long, long.replace("dog", "car"), weights=False)
    assert torch.equal(literal[0], literal[1])


@pytest.mark.parametrize(
    "text",
    [
        "()",
        "( )",
        "[ ], (  :0.5)",
        "a (\n:0.2) b",
        "(((",
        "(a:0)",
        "(a <|endoftext|>:0.5) b",
        "(" + "road, " * 90 + ":0.7)",
    ],
)
def test_whatever_stands_in_brackets_gives_an_embedding(models, text):
    found = encode(models, text, "car")
    assert found.isfinite().all()


def test_half_precision_stays_half(models):
    half = deepcopy(models.text_encoder).to(torch.bfloat16)
    found = PromptEncoder(models.tokenizer, half)(["a (car:1.3) [dog]"], [""], weights=True)
    assert found.dtype == torch.bfloat16
