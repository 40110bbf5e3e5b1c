"""The tiny model loads with the libraries' own loaders and behaves."""

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, ControlNetModel, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file
from transformers import CLIPTextModel, CLIPTokenizer

from fresco_core.tiny_model import make_tiny_model


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_tiny_model(tmp_path_factory.mktemp("tiny"), seed=3)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {
        f"{path.relative_to(folder)}:{name}": tensor
        for path in sorted(folder.rglob("*.safetensors"))
        for name, tensor in load_file(path).items()
    }


def test_same_seed_same_weights_and_the_callers_random_stream_is_untouched(
    tiny: tuple[Path, Path], tmp_path: Path
) -> None:
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    make_tiny_model(tmp_path / "same", seed=3)
    assert torch.equal(torch.rand(3), expected)
    make_tiny_model(tmp_path / "other", seed=4)
    first, same, other = (
        weights(folder) for folder in (tiny[0].parent, tmp_path / "same", tmp_path / "other")
    )
    assert first.keys() == same.keys() == other.keys()
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_is_small(tiny: tuple[Path, Path]) -> None:
    files = [path for path in tiny[0].parent.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 10e6


def test_whole_folder_is_a_stable_diffusion_pipeline(tiny: tuple[Path, Path]) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(tiny[0], safety_checker=None)
    assert pipeline.scheduler.config.timestep_spacing == "leading"
    assert pipeline.vae_scale_factor == 8


def test_tokenizer_knows_its_words_and_every_byte(tiny: tuple[Path, Path]) -> None:
    tokenizer = CLIPTokenizer.from_pretrained(tiny[0] / "tokenizer")
    assert tokenizer.model_max_length == 77
    start, *word, end = tokenizer("snow").input_ids
    assert (start, end) == (tokenizer.bos_token_id, tokenizer.eos_token_id)
    assert len(word) == 1
    assert tokenizer.decode(tokenizer("a zügig 雪 car").input_ids[1:-1]).strip() == "a zügig 雪 car"


def test_passes_are_tame_and_depend_on_text_and_control(tiny: tuple[Path, Path]) -> None:
    base, control = tiny
    tokenizer = CLIPTokenizer.from_pretrained(base / "tokenizer")
    encoder = CLIPTextModel.from_pretrained(base / "text_encoder").eval()
    unet = UNet2DConditionModel.from_pretrained(base / "unet").eval()
    vae = AutoencoderKL.from_pretrained(base / "vae").eval()
    controlnet = ControlNetModel.from_pretrained(control).eval()
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn((1, 4, 8, 16), generator=generator)
    edges = torch.rand((1, 3, 64, 128), generator=generator)
    with torch.no_grad():
        car, dog = (
            encoder(tokenizer([text], padding="max_length", return_tensors="pt").input_ids)[0]
            for text in ("a red car", "a dog at night")
        )
        down, mid = controlnet(latents, 701, car, edges, return_dict=False)
        plain = unet(latents, 701, car).sample
        other_text = unet(latents, 701, dog).sample
        controlled = unet(
            latents,
            701,
            car,
            down_block_additional_residuals=down,
            mid_block_additional_residual=mid,
        ).sample
        picture = vae.decode(latents).sample
        encoded = vae.encode(picture).latent_dist.mean
    assert (plain - other_text).abs().mean() > 5e-3
    assert (plain - controlled).abs().mean() > 5e-3
    assert picture.shape == (1, 3, 64, 128)
    assert encoded.shape == latents.shape
    for output in (plain, controlled, picture):
        assert 0.05 < output.std() < 3
