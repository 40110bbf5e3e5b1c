"""LoRAs and embeddings for the tiny model, written as they are published."""

from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

RANK, ALPHA = 2, 4.0
UNET = (
    "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q",
    "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k",
    "up_blocks.2.attentions.0.transformer_blocks.0.attn2.to_out.0",
    "mid_block.attentions.0.proj_in",
)
TEXT = ("encoder.layers.0.self_attn.q_proj", "encoder.layers.1.mlp.fc1")


def factors(weight: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Down and up factor for a layer's weight: a linear layer's or a convolution's."""
    generator = torch.Generator().manual_seed(seed)
    ones = (1,) * (weight.dim() - 2)
    down = torch.randn(RANK, *weight.shape[1:], generator=generator)
    up = torch.randn(weight.shape[0], RANK, *ones, generator=generator)
    return 0.1 * down, 0.1 * up


def change(weight: Tensor, seed: int, scale: float) -> Tensor:
    """What `factors` add to a weight."""
    down, up = factors(weight, seed)
    return scale * (up.flatten(1) @ down.flatten(1)).view_as(weight)


def write_lora(
    path: Path,
    unet: dict[str, Tensor],
    text: dict[str, Tensor],
    form: str = "kohya",
    *,
    unet_layers: Iterable[str] = UNET,
    text_layers: Iterable[str] = TEXT,
) -> Path:
    """Write a LoRA on some layers; ``text`` is the text encoder's state without ``text_model.``.

    Args:
        form: ``"kohya"``, ``"peft"`` or ``"old"``, which are diffusers' formats.
    """
    state: dict[str, Tensor] = {}
    layers = [("unet", name, unet) for name in unet_layers]
    layers += [("text_encoder", name, text) for name in text_layers]
    for seed, (part, name, weights) in enumerate(layers):
        down, up = factors(weights[f"{name}.weight"], seed)
        if part == "text_encoder":
            name = f"text_model.{name}"
        if form == "kohya":
            prefix = "lora_unet_" if part == "unet" else "lora_te_"
            key = prefix + name.replace(".", "_")
            state |= {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up}
            state[f"{key}.alpha"] = torch.tensor(ALPHA)
        elif form == "peft":
            state |= {f"{part}.{name}.lora_A.weight": down, f"{part}.{name}.lora_B.weight": up}
        else:
            middle = "lora" if part == "unet" else "lora_linear_layer"
            state |= {
                f"{part}.{name}.{middle}.down.weight": down,
                f"{part}.{name}.{middle}.up.weight": up,
            }
    save_file(state, path)
    return path
