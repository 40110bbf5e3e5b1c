"""LoRAs: low-rank changes of a base model's layers.

Source: LoRA (Hu et al., ICLR 2022).

Shapes: R rank, I and O input and output channels of a layer, k x k kernel of a convolution.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from fresco_core.errors import ModelsError
from fresco_core.lora_layers import (
    TEXT_ENCODER,
    UNET,
    LoraLayer,
    check_layers,
    layer_name,
    lora_layers,
)


@torch.no_grad()
def fuse_loras(unet: Any, text_encoder: Any, loras: Sequence[tuple[Path, float]]) -> None:
    """Make LoRAs part of a base model's weights.

    Args:
        unet, text_encoder: changed in place.
        loras: ``.safetensors`` file and weight of each.

    Raises:
        ModelsError: a LoRA changes layers that the base model has not, or is damaged.
    """
    if not loras:
        return
    weights = {UNET: _weights(unet), TEXT_ENCODER: _weights(text_encoder)}
    base = {
        part: {name: tuple(weight.shape) for name, weight in layers.items()}
        for part, layers in weights.items()
    }
    for path, strength in loras:
        factors = load_file(path)
        check_layers(path, {name: tuple(factor.shape) for name, factor in factors.items()}, base)
        scales = _Scales(path, factors)
        for layer in lora_layers(factors):
            weight = weights[layer.part][layer.name]
            down_RI, up_OR = factors[layer.down].flatten(1), factors[layer.up].flatten(1)
            change_OI = up_OR.float() @ down_RI.float()
            if not change_OI.isfinite().all():
                raise ModelsError(f"LoRA {path} has NaN or infinity in {layer.name}: get another")
            changed = weight.float() + strength * scales(layer) * change_OI.view_as(weight)
            weight.copy_(changed)


class _Scales:
    """What the product of a layer's factors is multiplied by."""

    def __init__(self, path: Path, factors: dict[str, Tensor]) -> None:
        self._factors = factors
        with safe_open(path, framework="pt") as file:
            described = (file.metadata() or {}).get("lora_adapter_metadata", "{}")
        try:
            self._described = dict(json.loads(described))
        except (ValueError, TypeError) as error:
            raise ModelsError(f"LoRA {path} has damaged metadata: fetch it again") from error
        self._path = path

    def __call__(self, layer: LoraLayer) -> float:
        try:
            return self._scale(layer)
        except (AttributeError, ValueError, TypeError, RuntimeError, ZeroDivisionError) as error:
            raise ModelsError(
                f"LoRA {self._path} has no number as alpha of {layer.name}: fetch it again"
            ) from error

    def _scale(self, layer: LoraLayer) -> float:
        rank = self._factors[layer.down].shape[0]
        if layer.alpha in self._factors:
            return float(self._factors[layer.alpha]) / rank
        # PEFT keeps its numbers beside the tensors; without them, as its authors' loader has it, 1.
        alpha = self._described.get(f"{layer.part}.lora_alpha", rank)
        patterns = self._described.get(f"{layer.part}.alpha_pattern") or {}
        for pattern, own in patterns.items():
            if layer.name.endswith(layer_name(pattern)):
                alpha = own
        root = self._described.get(f"{layer.part}.use_rslora")
        return float(alpha) / (math.sqrt(rank) if root else rank)


def _weights(network: nn.Module) -> dict[str, Tensor]:
    return {
        layer_name(name): layer.weight
        for name, layer in network.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv2d)
    }
