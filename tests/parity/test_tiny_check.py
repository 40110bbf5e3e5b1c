"""Loading and plain passes against numeric reference data of a small random model."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from fresco_core.models import DiffusionModels, load_diffusion_models

_REL = 1e-5


@pytest.fixture(scope="module")
def models(reference_dir: Path) -> DiffusionModels:
    return load_diffusion_models(
        str(reference_dir / "tiny_sd"),
        controlnets=(str(reference_dir / "tiny_controlnet"),),
        offline=True,
    )


@pytest.fixture(scope="module")
def arrays(reference_dir: Path) -> dict[str, Tensor]:
    with np.load(reference_dir / "tiny_check.npz") as stored:
        return {name: torch.from_numpy(stored[name]) for name in stored.files}


@pytest.fixture(scope="module")
def texts(reference_dir: Path) -> dict[str, list[str]]:
    return json.loads((reference_dir / "tiny_check.json").read_text())


def assert_rel(ours: Tensor, expected: Tensor) -> None:
    """Mean deviation relative to the mean magnitude."""
    assert ours.shape == expected.shape
    assert (ours - expected).abs().mean() <= _REL * expected.abs().mean()


def token_ids(models: DiffusionModels, texts: list[str]) -> Tensor:
    tokens = models.tokenizer(
        texts, padding="max_length", max_length=77, truncation=True, return_tensors="pt"
    )
    return tokens.input_ids


@torch.no_grad()
def test_token_ids_are_exact_and_embeddings_close(
    models: DiffusionModels, arrays: dict[str, Tensor], texts: dict[str, list[str]]
) -> None:
    ids = token_ids(models, texts["texts"])
    assert torch.equal(ids, arrays["input_ids"])
    assert_rel(models.text_encoder(ids)[0], arrays["prompt_embeds"])
    negative = token_ids(models, [texts["negative"]] * len(texts["texts"]))
    assert_rel(models.text_encoder(negative)[0], arrays["negative_embeds"])


def test_schedules(
    models: DiffusionModels, arrays: dict[str, Tensor], texts: dict[str, dict[str, list[int]]]
) -> None:
    assert_rel(models.scheduler.alphas_cumprod, arrays["alphas_cumprod"])
    for steps, expected in texts["timesteps_for_number_of_steps"].items():
        models.scheduler.set_timesteps(int(steps))
        assert models.scheduler.timesteps.tolist() == expected
    models.scheduler.set_timesteps(len(arrays["timesteps"]))
    assert torch.equal(models.scheduler.timesteps, arrays["timesteps"])


@torch.no_grad()
def test_unet_and_controlnet(models: DiffusionModels, arrays: dict[str, Tensor]) -> None:
    (controlnet,) = models.controlnets
    x, embeds = arrays["plain.x"], arrays["plain.embeds"]
    assert_rel(models.unet(x, 701, embeds).sample, arrays["plain.unet"])
    down, mid = controlnet(
        x, 701, embeds, arrays["plain.control"].float(), conditioning_scale=0.7, return_dict=False
    )
    assert_rel(mid, arrays["plain.control_mid"])
    controlled = models.unet(
        x, 701, embeds, down_block_additional_residuals=down, mid_block_additional_residual=mid
    )
    assert_rel(controlled.sample, arrays["plain.unet_with_control"])


@torch.no_grad()
def test_vae(models: DiffusionModels, arrays: dict[str, Tensor]) -> None:
    posterior = models.vae.encode(arrays["plain.image"]).latent_dist
    assert_rel(posterior.mean, arrays["plain.vae_mean"])
    assert_rel(posterior.logvar, arrays["plain.vae_logvar"])
    rows, columns = arrays["plain.vae_mean"].shape[-2:]
    decoded = models.vae.decode(arrays["plain.x"][:1, :, :rows, :columns]).sample
    assert_rel(decoded, arrays["plain.vae_decoded"])
