"""Whether LoRAs and embeddings fit a base model, told from file headers. Needs no torch."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fresco_core.architecture import SD15
from fresco_core.checkpoint import Shapes, file_names, tensor_shapes, weight_files
from fresco_core.errors import ModelsError
from fresco_core.lora_layers import TEXT_ENCODER, UNET, check_layers, layer_name, lora_layers

MOST_VECTORS = 75  # what the text encoder sees at once

_ELSEWHERE = re.compile(
    r"lora_te[23]_|text_encoder_[23]\.|transformer\.|lora_transformer|lora_unet_(double|single|joint)|"
    r"lora_unet_input_blocks_[78]_1_|diffusion_model\.(double|single|joint)"
)
_OTHER_METHODS = re.compile(
    r"hada_w|lokr_w|oft_|\.boft|glora|ia3|lora_mid|dora_scale|\.diff(_b)?$|\.set_weight"
)


def check_lora(path: Path, unet: dict[str, Any], base: dict[str, Shapes] | None) -> None:
    """Refuse a LoRA that was made for another architecture, or in a form that is not known.

    Args:
        path: ``.safetensors`` file.
        unet: configuration of the base model's UNet.
        base: shapes of the base model's weights as `base_layers` gives them, or None where they are
            not known without loading it.

    Raises:
        ModelsError: with what it was made for.
    """
    shapes = tensor_shapes(path)
    if foreign := next((name for name in shapes if _ELSEWHERE.search(name)), None):
        raise ModelsError(
            f"LoRA {path} is for another architecture (it has {foreign}, as Stable Diffusion XL "
            f"and later have): {SD15}"
        )
    if other := next((name for name in shapes if _OTHER_METHODS.search(name)), None):
        raise ModelsError(
            f"LoRA {path} has {other}, of a method that frescod does not know: it takes LoRA and "
            "LoCon, choose one of those"
        )
    layers = lora_layers(shapes)
    if not layers:
        raise ModelsError(f"{path} is no LoRA: it has no lora_down or lora_A tensors")
    text_width, first_width = unet["cross_attention_dim"], unet["block_out_channels"][0]
    for what, expected, part, pattern in (
        ("text width", text_width, UNET, r"_attn2_to_[kv]"),
        ("text encoder width", text_width, TEXT_ENCODER, r"_self_attn_[qkv]_proj"),
        ("first width", first_width, UNET, r"down_blocks_0_.*_attn1_to_[qkv]"),
    ):
        for layer in layers:
            width = (*shapes[layer.down], None, None)[1]
            if layer.part == part and re.search(pattern, layer.name) and width != expected:
                raise ModelsError(
                    f"LoRA {path} has {what} {width}, the base model {expected}: choose one made "
                    "for this base model"
                )
    if base is not None:
        check_layers(path, shapes, base)


def base_layers(folder: Path) -> dict[str, Shapes]:
    """Shapes of a base model's weights, by part and `layer_name`, from a model folder."""
    names = file_names(folder)
    return {
        part: {
            layer_name(name): shape
            for file in weight_files(names, part)[0]
            if file.endswith(".safetensors")
            for name, shape in tensor_shapes(folder / file).items()
            if name.endswith(".weight")
        }
        for part in (UNET, TEXT_ENCODER)
    }


def check_embedding(path: Path, unet: dict[str, Any]) -> None:
    """Refuse an embedding for another text encoder; those in a pickle are looked at when loaded."""
    if path.suffix != ".safetensors":
        return
    shapes = tensor_shapes(path)
    refuse_embedding(path, tuple(shapes))
    check_embedding_width(path, next(iter(shapes.values())), unet["cross_attention_dim"])


def refuse_embedding(path: Path, names: Sequence[object]) -> None:
    """Refuse what is no embedding, told from its tensors' names."""
    if "clip_g" in names:
        raise ModelsError(f"embedding {path} is for Stable Diffusion XL: {SD15}")
    if len(names) != 1:
        raise ModelsError(f"{path} is no embedding: it has {len(names)} tensors, not one")


def check_embedding_width(path: Path, shape: Sequence[int], width: int) -> None:
    """Refuse vectors of another width than the text encoder's, and too many."""
    if not 1 <= len(shape) <= 2 or shape[-1] != width:
        raise ModelsError(
            f"embedding {path} has vectors of shape {tuple(shape)}, the base model's text encoder "
            f"is {width} wide: choose one made for this base model"
        )
    if len(shape) == 2 and not 1 <= shape[0] <= MOST_VECTORS:
        raise ModelsError(
            f"embedding {path} has {shape[0]} vectors: 1 to {MOST_VECTORS} can be used"
        )
