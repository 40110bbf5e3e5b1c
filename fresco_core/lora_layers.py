"""Which layers a LoRA changes, told from the names in its file. Needs no torch.

Known are the names of kohya's scripts, of PEFT and of both of diffusers' older formats. Layers go
by one name, as kohya writes it: with ``_`` in place of every ``.``.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from fresco_core.checkpoint import Shapes
from fresco_core.errors import ModelsError

UNET, TEXT_ENCODER = "unet", "text_encoder"

_FIRST = re.compile(
    r"(?P<layer>.+?)[._](?P<kind>lora_down|lora_A|lora\.down|lora_linear_layer\.down)"
    r"(?P<adapter>\.\w+)?\.weight"
)
_SECOND = {
    "lora_down": "lora_up",
    "lora_A": "lora_B",
    "lora.down": "lora.up",
    "lora_linear_layer.down": "lora_linear_layer.up",
}
_TEXT_PREFIX = re.compile(r"(lora_te1?|text_encoder)_")
_UNET_PREFIX = re.compile(r"(lora_unet|unet|base_model_model)_")


@dataclass(frozen=True)
class LoraLayer:
    """One layer that a LoRA changes by the product of two factors.

    Attributes:
        part: `UNET` or `TEXT_ENCODER`.
        name: the layer's, without the part.
        down, up: names of the factors' tensors, the one nearer the input first.
        alpha: name of the tensor that scales them, where there is one: alpha / rank.
    """

    part: str
    name: str
    down: str
    up: str
    alpha: str


def lora_layers(names: Iterable[str]) -> tuple[LoraLayer, ...]:
    """The layers of a LoRA, from the names of its tensors."""
    layers = []
    for down in names:
        if match := _FIRST.fullmatch(down):
            layer, kind = match["layer"], match["kind"]
            up = down[: match.start("kind")] + _SECOND[kind] + down[match.end("kind") :]
            layers.append(LoraLayer(*_part_and_name(layer), down, up, f"{layer}.alpha"))
    return tuple(layers)


def layer_name(name: str) -> str:
    """Under which name a network's layer, or its weight, is looked for."""
    name = name.removesuffix(".weight").removeprefix("text_model.")
    return name.replace(".", "_")


def check_layers(path: Path, shapes: Shapes, base: dict[str, Shapes]) -> None:
    """Refuse a LoRA that changes layers which a base model has not, or has in another size.

    Args:
        path: of the LoRA.
        shapes: of its tensors.
        base: by part, shapes of the base model's weights by `layer_name`.

    Raises:
        ModelsError: with the first such layer.
    """
    remedy = "choose one made for this base model"
    for layer in lora_layers(shapes):
        weight = base[layer.part].get(layer.name)
        if weight is None or len(weight) not in (2, 4):
            raise ModelsError(
                f"LoRA {path} changes {layer.name}, which the base model's "
                f"{layer.part.replace('_', ' ')} has not: {remedy}"
            )
        if layer.up not in shapes:
            raise ModelsError(f"LoRA {path} lacks {layer.up}: fetch it again")
        down, up = shapes[layer.down], shapes[layer.up]
        kernel = (1, 1) if len(weight) == 4 else ()
        if (
            (*up[:1], *down[1:2]) != weight[:2]
            or (down[2:] or kernel) not in (weight[2:] or (), weight[2:] or (1, 1))
            or down[0] != up[1]
            or any(size != 1 for size in up[2:])
        ):
            raise ModelsError(
                f"LoRA {path} changes {layer.name} by factors of shape {down} and {up}, the base "
                f"model's is {weight}: {remedy}"
            )


def _part_and_name(layer: str) -> tuple[str, str]:
    name = layer.replace(".", "_").replace("_processor_", "_")
    if match := _TEXT_PREFIX.match(name):
        name = name[match.end() :].removeprefix("text_model_")
        return TEXT_ENCODER, re.sub(r"_self_attn_to_(q|k|v|out)$", r"_self_attn_\1_proj", name)
    if match := _UNET_PREFIX.match(name):
        name = name[match.end() :]
    return UNET, re.sub(r"_to_out$", "_to_out_0", name)
