"""The fitted tiny model keeps a picture's colours and takes noise away."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from fresco_core.models import DiffusionModels, load_diffusion_models
from fresco_core.tiny_model import make_tiny_model


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> DiffusionModels:
    base, controlnet = make_tiny_model(tmp_path_factory.mktemp("tiny"), fitted=True)
    return load_diffusion_models(str(base), controlnets=(str(controlnet),))


@pytest.fixture(scope="module")
def scenes() -> Tensor:
    """A bright and a dark scene: sky, land, a coloured thing."""
    scenes = torch.zeros(2, 3, 128, 192)
    for scene, (light, hue) in enumerate([(1.0, 0), (0.4, 2)]):
        scenes[scene, :, :60] = torch.tensor([0.6, 0.75, 0.9])[:, None, None]
        scenes[scene, :, 60:] = torch.linspace(0.5, 0.3, 68)[None, :, None]
        scenes[scene, hue, 70:110, 60:120] = 0.85
        scenes[scene] *= light
    return scenes * 2 - 1


def explained(found: Tensor, truth: Tensor) -> float:
    """1 for equal, 0 for no better than the mean."""
    return float(1 - (found - truth).square().mean() / truth.var())


@torch.no_grad()
def test_a_decoded_encoding_resembles_the_picture(models: DiffusionModels, scenes: Tensor) -> None:
    latents = models.vae.encode(scenes).latent_dist
    assert latents.logvar.max() < -5
    assert 0.3 < (latents.mean * 0.18215).std() < 2
    assert explained(models.vae.decode(latents.mean).sample, scenes) > 0.8


@torch.no_grad()
@pytest.mark.parametrize("step", [101, 201, 301])
def test_the_unet_takes_noise_away(models: DiffusionModels, scenes: Tensor, step: int) -> None:
    clean = models.vae.encode(scenes).latent_dist.mean * 0.18215
    alpha = models.scheduler.alphas_cumprod[step]
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    noisy = alpha.sqrt() * clean + (1 - alpha).sqrt() * noise
    found = models.unet(noisy, step, torch.zeros(2, 77, 32)).sample
    assert explained(found, noise) > 0.3


def test_same_seed_same_weights(models: DiffusionModels, tmp_path: Path) -> None:
    base, _ = make_tiny_model(tmp_path, fitted=True)
    again = load_diffusion_models(str(base))
    for part in ("unet", "vae"):
        first, second = getattr(models, part).state_dict(), getattr(again, part).state_dict()
        assert all(torch.equal(first[name], second[name]) for name in first)
