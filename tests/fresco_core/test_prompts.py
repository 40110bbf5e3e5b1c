import hashlib
import json

import pytest
import torch

from fresco_core import prompts
from fresco_core.models import load_diffusion_models
from fresco_core.prompts import cut_off, default_prompts, effective_prompts, encode_prompts
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
    found = encode_prompts(models.tokenizer, models.text_encoder, ["a car", "a dog"], ["dark"] * 2)
    assert found.shape == (4, 77, 32)
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[2], found[3])
    alone = encode_prompts(models.tokenizer, models.text_encoder, ["a dog"], ["dark"])
    assert torch.allclose(alone[1], found[3], atol=1e-6)


def test_what_does_not_fit_is_named(models):
    assert cut_off(models.tokenizer, "a car on a road") == ""
    long = "road " * 100 + "castle"
    assert cut_off(models.tokenizer, long).endswith("castle")


def test_no_more_is_looked_at_than_the_encoder_may_see(models):
    words = "a car in the snow " * 60_000
    looked_at = []
    tokenizer = models.tokenizer

    class Watched:
        model_max_length = tokenizer.model_max_length
        decode = tokenizer.decode

        def __call__(self, texts, **options):
            looked_at.append(max(map(len, [texts] if isinstance(texts, str) else texts)))
            return tokenizer(texts, **options)

    rest = cut_off(Watched(), words)
    assert len(words) - 1000 < len(rest) < len(words)
    embedded = encode_prompts(Watched(), models.text_encoder, [words], [""])
    assert max(looked_at) == prompts.LOOKED_AT
    short = encode_prompts(tokenizer, models.text_encoder, [words[:2000]], [""])
    assert torch.equal(embedded, short)
