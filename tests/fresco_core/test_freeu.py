"""FreeU against reference data, and its hooks on a UNet."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from fresco_core.freeu import FreeU, soften, strengthen
from fresco_core.models import DiffusionModels, load_diffusion_models
from fresco_core.options import FreeUOptions


def close(ours: Tensor, expected: Tensor) -> bool:
    return bool((ours - expected).abs().mean() <= 1e-5 * expected.abs().mean())


@pytest.mark.parametrize("case", ["config", "skip"])
@pytest.mark.parametrize(("channels", "backbone", "skip"), [(1280, 0, 2), (640, 1, 3)])
def test_features_are_those_of_the_reference(
    reference_dir: Path, case: str, channels: int, backbone: int, skip: int
) -> None:
    with np.load(reference_dir / "freeu.npz") as stored:
        prefix = f"{case}_c{channels}."
        arrays = {
            name.removeprefix(prefix): torch.from_numpy(stored[name])
            for name in stored.files
            if name.startswith(prefix)
        }
    factors = arrays["factors"].tolist()
    assert close(soften(arrays["skip"], factors[skip]), arrays["skip_out"])
    # Only some channels are stored: the others are filled up to the mean that is known.
    index, known = arrays["channel_index"], arrays["hidden"]
    missing = channels * arrays["hidden_mean"][:, None] - known.sum(1, keepdim=True)
    hidden = (missing / (channels - len(index))).expand(-1, channels, -1, -1).clone()
    hidden[:, index] = known
    assert close(strengthen(hidden, factors[backbone])[:, index], arrays["hidden_out"])


def test_even_features_stay_finite() -> None:
    assert torch.equal(strengthen(torch.ones(1, 4, 2, 2), 1.5), torch.ones(1, 4, 2, 2))
    assert soften(torch.ones(1, 1, 1, 3, dtype=torch.float16), 0.5).isfinite().all()


@pytest.fixture(scope="module")
def models(tiny: tuple[Path, Path]) -> DiffusionModels:
    return load_diffusion_models(str(tiny[0]))


@torch.no_grad()
def test_options_are_of_each_pass(models: DiffusionModels) -> None:
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(1, 4, 16, 16, generator=generator)
    words = torch.randn(1, 77, 32, generator=generator)
    freeu = FreeU(models.unet)

    def predict(options: FreeUOptions | None) -> Tensor:
        freeu.options = options
        return models.unet(latents, 501, words).sample

    plain = predict(None)
    assert not torch.equal(predict(FreeUOptions()), plain)
    assert torch.equal(predict(FreeUOptions(b1=1, b2=1)), plain)
    assert not torch.allclose(predict(FreeUOptions(b1=1, s1=0.5)), plain, atol=1e-5)
    assert torch.equal(predict(None), plain)


@torch.no_grad()
def test_only_blocks_without_attention_are_changed(models: DiffusionModels) -> None:
    freeu, seen = FreeU(models.unet), {}
    freeu.options = FreeUOptions(b1=1.3, s1=0.5, b2=2, s2=0.5)

    def record(name: str) -> Callable[..., None]:
        return lambda unit, inputs: seen.update({name: inputs[0]})

    for level, block in enumerate(models.unet.up_blocks):
        for number, unit in enumerate(block.resnets):
            unit.register_forward_pre_hook(record(f"{level}.{number} before"), prepend=True)
            unit.register_forward_pre_hook(record(f"{level}.{number} after"))
    models.unet(torch.randn(1, 4, 16, 16), 501, torch.randn(1, 77, 32))
    changed = {
        name.split()[0]
        for name in seen
        if not torch.equal(seen[f"{name.split()[0]} before"], seen[f"{name.split()[0]} after"])
    }
    assert changed == {"0.0", "0.1", "0.2"}
    before, after = seen["0.0 before"], seen["0.0 after"]
    hidden = models.unet.config.block_out_channels[-1]  # of the middle, half of it strengthened
    assert torch.equal(before[:, hidden // 2 : hidden], after[:, hidden // 2 : hidden])
    assert torch.equal(strengthen(before[:, :hidden], 1.3), after[:, :hidden])
    assert torch.equal(soften(before[:, hidden:], 0.5), after[:, hidden:])
