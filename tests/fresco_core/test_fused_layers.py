"""Networks with fused layers against the same networks as diffusers has them, on the CPU."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from diffusers.models.activations import GEGLU
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn

from fresco_core.fused_layers import fuse, restore
from fresco_core.layers import Layers

UNET: dict[str, Any] = {
    "block_out_channels": (16, 32),
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "cross_attention_dim": 16,
    "attention_head_dim": 2,
}


def a_unet() -> tuple[nn.Module, Callable[[nn.Module], Tensor]]:
    unet = UNet2DConditionModel(**UNET, up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"))
    latents, prompts = torch.randn(2, 4, 8, 12), torch.randn(2, 5, 16)
    return unet, lambda network: network(latents, 10, prompts, return_dict=False)[0]


def a_controlnet() -> tuple[nn.Module, Callable[[nn.Module], Tensor]]:
    network = ControlNetModel(**UNET, conditioning_embedding_out_channels=(4, 8))
    for layer in network.modules():  # those that begin as zeros would hide everything
        if isinstance(layer, nn.Conv2d):
            nn.init.normal_(layer.weight, std=0.1)
    latents, prompts, control = (
        torch.randn(2, 4, 8, 12),
        torch.randn(2, 5, 16),
        torch.rand(2, 3, 16, 24),
    )

    def run(network: nn.Module) -> Tensor:
        down, middle = network(latents, 10, prompts, control, return_dict=False)
        return torch.cat([each.flatten() for each in (*down, middle)])

    return network, run


def a_vae() -> tuple[nn.Module, Callable[[nn.Module], Tensor]]:
    vae = AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
    )
    pictures = torch.rand(2, 3, 16, 24)

    def run(network: nn.Module) -> Tensor:
        latents = network.encode(pictures).latent_dist.mean  # type: ignore
        return network.decode(latents, return_dict=False)[0]  # type: ignore

    return vae, run


@pytest.mark.parametrize("make", [a_unet, a_controlnet, a_vae])
@torch.no_grad()
def test_the_same_numbers(make: Callable[[], Any]) -> None:
    torch.manual_seed(0)
    network, run = make()
    network.eval()
    for parameter in network.parameters():  # biases and scales count, too
        if parameter.ndim == 1:
            parameter += 0.3 * torch.randn_like(parameter)
    want = run(network)
    calls = []
    layers = Layers(kernels=False)
    group_norm = layers.group_norm
    layers.group_norm = lambda *a, **k: calls.append(a) or group_norm(*a, **k)  # type: ignore
    fuse(network, layers)
    torch.testing.assert_close(run(network), want, rtol=1e-4, atol=1e-5)
    replaced = (ResnetBlock2D, Upsample2D, GEGLU, nn.LayerNorm)
    assert all("forward" in vars(each) for each in network.modules() if isinstance(each, replaced))
    assert len(calls) >= sum(isinstance(each, nn.GroupNorm) for each in network.modules())
    restore(network)
    calls.clear()
    torch.testing.assert_close(run(network), want, rtol=1e-4, atol=1e-5)
    assert not calls


@torch.no_grad()
def test_control_maps_are_embedded_once_a_batch() -> None:
    network, _ = a_controlnet()
    embedding = network.get_submodule("controlnet_cond_embedding")
    fuse(network, Layers(kernels=False))
    calls: list[None] = []
    embedding.conv_in.register_forward_hook(lambda *_: calls.append(None))  # type: ignore
    first = torch.rand(1, 3, 16, 16)
    assert embedding(first) is embedding(first)
    other = embedding(first.clone())
    assert len(calls) == 2
    torch.testing.assert_close(other, embedding(first))
