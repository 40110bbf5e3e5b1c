"""Write a small model as single files in the layout Stable Diffusion was first published in."""

import re
from pathlib import Path

from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPTextModel

Weights = dict[str, Tensor]

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "controlnet_mid_block": "middle_block_out.0",
    "controlnet_cond_embedding.conv_in": "input_hint_block.0",
    "controlnet_cond_embedding.conv_out": "input_hint_block.14",
}
_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def _replaced(name: str, table: dict[str, str]) -> str:
    for new, old in table.items():
        name = re.sub(rf"\b{re.escape(new)}(?=\.(weight|bias)$)", old, name)
    return name


def unet_name(name: str) -> str:
    """The original name of a tensor of a UNet or ControlNet with two layers per block."""
    if match := re.match(r"(down|up)_blocks\.(\d)\.(\w+)\.(\d)\.(.*)", name):
        way, block, part, layer, rest = match.groups()
        number = 3 * int(block) + (int(layer) if part in ("resnets", "attentions") else 2)
        prefix = f"input_blocks.{number + 1}" if way == "down" else f"output_blocks.{number}"
        if part == "resnets":
            return f"{prefix}.0.{_replaced(rest, _RESNET)}"
        if part == "attentions":
            return f"{prefix}.1.{rest}"
        if part == "downsamplers":
            return f"{prefix}.0.{rest.replace('conv', 'op')}"
        return f"{prefix}.{1 if block == '0' else 2}.{rest}"  # SD 1.5's first up block is plain
    if match := re.match(r"mid_block\.(resnets|attentions)\.(\d)\.(.*)", name):
        part, layer, rest = match.groups()
        if part == "attentions":
            return f"middle_block.1.{rest}"
        return f"middle_block.{2 * int(layer)}.{_replaced(rest, _RESNET)}"
    if match := re.match(r"controlnet_down_blocks\.(\d+)\.(.*)", name):
        return f"zero_convs.{match[1]}.0.{match[2]}"
    if match := re.match(r"controlnet_cond_embedding\.blocks\.(\d)\.(.*)", name):
        return f"input_hint_block.{2 * int(match[1]) + 2}.{match[2]}"
    for new, old in _ENDS.items():
        if name.rsplit(".", 1)[0] == new:
            return f"{old}.{name.rsplit('.', 1)[1]}"
    raise KeyError(name)


def vae_name(name: str) -> str:
    """The original name of a VAE's tensor."""
    name = re.sub(r"down_blocks\.(\d)\.resnets", r"down.\1.block", name)
    name = re.sub(r"up_blocks\.(\d)\.resnets", lambda m: f"up.{3 - int(m[1])}.block", name)
    name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", name)
    name = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{3 - int(m[1])}.upsample", name)
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
    if "mid_block.attentions.0" in name:
        return _replaced(name.replace("mid_block.attentions.0", "mid.attn_1"), _ATTENTION)
    return name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")


def vae_weights(vae: AutoencoderKL) -> Weights:
    renamed = {vae_name(name): tensor for name, tensor in vae.state_dict().items()}
    # Attention layers were 1x1 convolutions.
    return {
        name: tensor[:, :, None, None] if "attn_1" in name and tensor.ndim == 2 else tensor
        for name, tensor in renamed.items()
    }


def write_base(folder: Path, path: Path) -> None:
    """One file with UNet, VAE and text encoder."""
    unet = UNet2DConditionModel.from_pretrained(folder / "unet")
    text = CLIPTextModel.from_pretrained(folder / "text_encoder").state_dict()
    weights = {
        f"model.diffusion_model.{unet_name(name)}": w for name, w in unet.state_dict().items()
    }
    vae = vae_weights(AutoencoderKL.from_pretrained(folder / "vae"))
    weights |= {f"first_stage_model.{name}": w for name, w in vae.items()}
    prefix = "cond_stage_model.transformer.text_model."
    weights |= {prefix + name.removeprefix("text_model."): w for name, w in text.items()}
    save(weights, path)


def write_vae(folder: Path, path: Path) -> None:
    save(vae_weights(AutoencoderKL.from_pretrained(folder)), path)


def write_controlnet(folder: Path, path: Path) -> None:
    weights = ControlNetModel.from_pretrained(folder).state_dict()
    save({f"control_model.{unet_name(name)}": w for name, w in weights.items()}, path)


def save(weights: Weights, path: Path) -> None:
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, path)
