"""Let the tiny model's pictures resemble its input, in seconds and without training.

The networks are rewired so that colours pass through them, blurred at several scales, and the last
layer of encoder, decoder and UNet is fitted by least squares on made-up pictures: the VAE then
keeps a picture's colours and the UNet takes away some of the noise. What remains is a blurry
painting instead of noise.

Shape legend: N pictures, C channels, H rows, W columns, h and w those of the latents.
"""

from collections.abc import Callable
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn
from torch.nn import functional as F

_SCALING = 0.18215  # of SD 1.5's latents
_PICTURES, _SIZE, _NOISY = 16, 96, 48
_LATEST = 400  # noisier pictures are beyond so small a network
NORM_GROUPS = 4  # of all tiny networks; the fit needs four channels in each
# Group norm would take a picture's mean colour and contrast away. Half of each group's channels
# hold these constants instead: they outweigh the picture, so all pictures are scaled alike.
_LEVELS = (4.0, -4.0)
_LINEAR = 1.5  # added before the last activation, where it is almost linear
_WHISPER = 0.05  # what is left of the random branches beside the path that carries the picture


@torch.no_grad()
def fit(unet: UNet2DConditionModel, vae: AutoencoderKL, alphas_cumprod_T: Tensor) -> None:
    """Change the weights of freshly made tiny networks in place; uses torch's random stream."""
    for network in (vae.encoder, vae.decoder, unet):
        _carry(network)
    _carry_all_scales(unet)
    pictures_N3HW = _pictures()
    latents_N4hw = _fit_vae(vae, pictures_N3HW)
    _fit_unet(unet, latents_N4hw, alphas_cumprod_T)


def _carry(network: nn.Module) -> None:
    """Let every convolution on the main path hand its channels on, in their groups' order."""
    for name, layer in network.named_modules():
        if name == "conv_in" or name.endswith("conv_shortcut"):
            _wire(layer, torch.ones(1, 1))
        elif name == "conv_norm_out":
            layer.bias.fill_(_LINEAR)
        elif name.endswith("upsamplers.0.conv"):
            _wire(layer, _square([1, 2, 1]))
        elif name.endswith("downsamplers.0.conv"):  # means over 2x2 pixels, wherever the padding is
            _wire(layer, _square([1, 1, 0] if layer.padding == (0, 0) else [0, 1, 1]))
        elif name.endswith(("conv2", "to_out.0", "proj_out")):
            layer.weight.mul_(_WHISPER)
            layer.bias.zero_()


def _square(taps: list[int]) -> Tensor:
    row = torch.tensor(taps, dtype=torch.float32)
    return torch.outer(row, row) / row.sum() ** 2


def _wire(layer: Any, kernel: Tensor) -> None:
    """Constants in the first half of each group; in the rest the channel at the same place."""
    inputs, outputs = layer.in_channels, layer.out_channels
    width = outputs // NORM_GROUPS
    margin = (layer.kernel_size[0] - len(kernel)) // 2
    kernel = F.pad(kernel, (margin, margin, margin, margin))
    layer.weight.zero_()
    layer.bias.zero_()
    for channel in range(outputs):
        group, place = divmod(channel, width)
        if place < width // 2:
            layer.bias[channel] = _LEVELS[place % 2]
        elif inputs <= 4:  # colours or latents: each in turn
            signal = group * (width - width // 2) + place - width // 2
            layer.weight[channel, signal % inputs] = kernel
        else:
            layer.weight[channel, channel * inputs // outputs] = kernel


def _carry_all_scales(unet: UNet2DConditionModel) -> None:
    """Let half of the decoder's groups take the skip connection and half the coarser scales."""
    widths = unet.config.block_out_channels
    skips = [widths[0]]
    for block, width in enumerate(widths):
        skips += [width] * (unet.config.layers_per_block + (block + 1 < len(widths)))
    for up_block in unet.up_blocks:
        for resnet in up_block.resnets:
            shortcut, skip = resnet.conv_shortcut, skips.pop()
            outputs, coarser = shortcut.out_channels, shortcut.in_channels - skip
            shortcut.weight.zero_()
            for channel in range(outputs):
                if shortcut.bias[channel] != 0:
                    continue
                if channel < outputs // 2:
                    shortcut.weight[channel, coarser + channel * skip // outputs] = 1
                else:
                    for source in (channel, channel - outputs // 2):
                        shortcut.weight[channel, source * coarser // outputs] = 0.7


def _pictures() -> Tensor:
    """Soft gradients with a few rectangles, -1..1."""
    corners = torch.rand(_PICTURES, 3, 3, 3)
    pictures_N3HW = F.interpolate(corners, size=(_SIZE, _SIZE), mode="bicubic").clamp(0, 1)
    for picture_3HW in pictures_N3HW:
        for _ in range(6):
            top, left = torch.randint(0, _SIZE - 8, (2,)).tolist()
            height, width = torch.randint(8, _SIZE // 2, (2,)).tolist()
            place = picture_3HW[:, top : top + height, left : left + width]
            place.mul_(0.3).add_(0.7 * torch.rand(3, 1, 1))
    # Saturation, contrast and brightness of their own.
    grey_N1HW = pictures_N3HW.mean(1, keepdim=True)
    pictures_N3HW = grey_N1HW + torch.rand(_PICTURES, 1, 1, 1) * (pictures_N3HW - grey_N1HW)
    contrast = 0.3 + 0.7 * torch.rand(_PICTURES, 1, 1, 1)
    return (pictures_N3HW * contrast + (1 - contrast) * torch.rand(_PICTURES, 1, 1, 1)) * 2 - 1


def _fit_vae(vae: AutoencoderKL, pictures_N3HW: Tensor) -> Tensor:
    """Latents: colour of each 8x8 block and its upper half's lead in brightness, standardised."""
    bright_N1HW = pictures_N3HW.mean(1, keepdim=True)
    halves = F.avg_pool2d(bright_N1HW, (4, 8))
    goal_N4hw = torch.cat(
        [F.avg_pool2d(pictures_N3HW, 8), halves[:, :, ::2] - halves[:, :, 1::2]], dim=1
    )
    goal_N4hw -= goal_N4hw.mean((0, 2, 3), keepdim=True)
    goal_N4hw /= goal_N4hw.std((0, 2, 3), keepdim=True) * _SCALING
    for layer, gain in ((vae.quant_conv, 1.0), (vae.post_quant_conv, _SCALING)):
        layer.bias.zero_()
        layer.weight.copy_(gain * torch.eye(layer.out_channels)[:, :, None, None])
    certain = torch.full_like(goal_N4hw, -10)  # logarithm of the posterior's variance
    goal_N8hw = torch.cat([goal_N4hw, certain], dim=1)
    _fit_layer(vae.encoder.conv_out, lambda: vae.encode(pictures_N3HW), goal_N8hw)
    latents_N4hw: Tensor = vae.encode(pictures_N3HW).latent_dist.mean
    _fit_layer(vae.decoder.conv_out, lambda: vae.decode(latents_N4hw), pictures_N3HW)
    return latents_N4hw * _SCALING


def _fit_unet(unet: UNet2DConditionModel, latents_N4hw: Tensor, alphas_cumprod_T: Tensor) -> None:
    clean = latents_N4hw[torch.arange(_NOISY) % len(latents_N4hw)]
    steps = torch.randint(1, _LATEST, (_NOISY,))
    alphas = alphas_cumprod_T[steps].view(-1, 1, 1, 1)
    noise = torch.randn_like(clean)
    noisy = alphas.sqrt() * clean + (1 - alphas).sqrt() * noise
    words = torch.randn(_NOISY, 77, unet.config.cross_attention_dim)
    _fit_layer(unet.conv_out, lambda: unet(noisy, steps, words), noise)


def _fit_layer(layer: Any, run: Callable[[], object], goal_NCHW: Tensor) -> None:
    """Least squares for a 3x3 convolution whose output should be ``goal_NCHW`` in ``run()``."""
    seen: list[Tensor] = []
    hook = layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    run()
    hook.remove()
    patches = F.unfold(F.pad(seen[0], (1, 1, 1, 1)), 3).transpose(1, 2).flatten(0, 1)
    ones = torch.ones(len(patches), 1)
    patches = torch.cat([patches, ones], dim=1).double()
    goals = goal_NCHW.permute(0, 2, 3, 1).flatten(0, 2).double()
    gram = patches.T @ patches
    gram += 1e-7 * len(patches) * torch.eye(len(gram))
    solution = torch.linalg.solve(gram, patches.T @ goals)
    layer.weight.copy_(solution[:-1].T.reshape(layer.weight.shape))
    layer.bias.copy_(solution[-1])
