"""UNet, ControlNet and VAE with their layers fused and channels last, as a GPU's tensor cores read.

diffusers' layers stay what they are, with their weights and names; some get another `forward` that
computes the same in fewer passes over memory. `restore` undoes it.

Shapes: B samples, C channels, h x w grid, P = h * w tokens, D channels of the time embedding.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from diffusers.models.activations import GEGLU
from diffusers.models.controlnets.controlnet import ControlNetConditioningEmbedding
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn
from torch.nn import functional as F

from fresco_core.last_result import LastResult
from fresco_core.layers import Layers

_ENTER, _LEAVE = "_operate_on_continuous_inputs", "_get_output_for_continuous_inputs"


def fuse(network: nn.Module, layers: Layers) -> None:
    """Have a network's layers computed by `layers`, channels last. For inference only."""
    network.to(memory_format=torch.channels_last)
    for module in network.modules():
        if isinstance(module, nn.GroupNorm):
            _replace(module, "forward", partial(layers.group_norm, norm=module))
        elif isinstance(module, nn.LayerNorm):
            _replace(module, "forward", partial(layers.layer_norm, norm=module))
        elif isinstance(module, Upsample2D) and _doubles(module):
            _replace(module, "forward", _Doubled(module, layers))
        elif isinstance(module, GEGLU):
            _replace(module, "forward", _Gate(module, layers))
        elif isinstance(module, ControlNetConditioningEmbedding):
            # A batch has the same control maps in every step.
            _replace(module, "forward", LastResult(partial(type(module).forward, module)))
        elif isinstance(module, ResnetBlock2D) and _is_plain(module):
            _replace(module, "forward", _ResidualUnit(module, layers))
        elif isinstance(module, Transformer2DModel) and isinstance(module.proj_in, nn.Conv2d):
            tokens = _Tokens(module, layers)
            _replace(module, _ENTER, tokens.enter)
            _replace(module, _LEAVE, tokens.leave)


def restore(network: nn.Module) -> None:
    """Give a network's modules their own methods back; the memory layout stays."""
    for module in network.modules():
        for name in ("forward", _ENTER, _LEAVE):
            vars(module).pop(name, None)


def _replace(module: nn.Module, name: str, function: Callable[..., Any]) -> None:
    # An attribute of the instance goes before the method of the class.
    object.__setattr__(module, name, function)


def _is_plain(unit: ResnetBlock2D) -> bool:
    """Whether a residual unit is of the kind that Stable Diffusion's networks have."""
    return (
        (unit.time_embedding_norm == "default" or unit.time_emb_proj is None)
        and unit.time_embedding_norm != "scale_shift"
        and not unit.skip_time_act
        and unit.upsample is None
        and unit.downsample is None
        and unit.output_scale_factor == 1
        and isinstance(unit.nonlinearity, nn.SiLU)
        and unit.conv1.bias is not None
        and unit.conv2.bias is not None
    )


def _doubles(unit: Upsample2D) -> bool:
    """Whether an enlargement is nearest neighbour and a convolution, as in Stable Diffusion."""
    return (
        unit.norm is None
        and unit.use_conv
        and unit.interpolate
        and not unit.use_conv_transpose
        and unit.name == "conv"
    )


class _Doubled:
    """`Upsample2D.forward`."""

    def __init__(self, unit: Upsample2D, layers: Layers) -> None:
        self._unit, self._layers = unit, layers

    def __call__(
        self, hidden_states: Tensor, output_size: Any = None, *_: Any, **__: Any
    ) -> Tensor:
        if output_size is not None:  # of an odd size, which multiples of 64 do not have
            enlarged_BChw = F.interpolate(hidden_states, size=output_size, mode="nearest")
        else:
            enlarged_BChw = self._layers.double(hidden_states)
        result_BChw: Tensor = self._unit.conv(enlarged_BChw)
        return result_BChw


class _ResidualUnit:
    """`ResnetBlock2D.forward` in which the convolutions' biases are added by what follows them."""

    def __init__(self, unit: ResnetBlock2D, layers: Layers) -> None:
        self._unit, self._layers = unit, layers

    def __call__(
        self, input_tensor: Tensor, temb: Tensor | None = None, *_: Any, **__: Any
    ) -> Tensor:
        unit, layers = self._unit, self._layers
        shift_BC = unit.conv1.bias.expand(len(input_tensor), -1)
        if unit.time_emb_proj is not None and temb is not None:
            shift_BC = shift_BC + unit.time_emb_proj(F.silu(temb))
        hidden_BChw = layers.group_norm(input_tensor, unit.norm1, silu=True)
        hidden_BChw = _without_bias(unit.conv1, hidden_BChw)
        hidden_BChw = layers.group_norm(hidden_BChw, unit.norm2, shift_BC, silu=True)
        hidden_BChw = _without_bias(unit.conv2, hidden_BChw)
        bias_C, shortcut = unit.conv2.bias, unit.conv_shortcut
        if shortcut is not None:
            input_tensor = _without_bias(shortcut, input_tensor)
            bias_C = bias_C if shortcut.bias is None else bias_C + shortcut.bias
        return layers.add(input_tensor, hidden_BChw, bias_C)


class _Tokens:
    """The ends of a `Transformer2DModel`: a grid channels last is its tokens, without a copy."""

    def __init__(self, transformer: Transformer2DModel, layers: Layers) -> None:
        self._transformer, self._layers = transformer, layers

    def enter(self, hidden_BChw: Tensor) -> tuple[Tensor, int]:
        """Tokens (B,P,C), and their channels."""
        normal_BChw = self._layers.group_norm(hidden_BChw, self._transformer.norm)
        tokens_BPC = normal_BChw.permute(0, 2, 3, 1).flatten(1, 2)
        tokens_BPC = _pointwise(self._transformer.proj_in, tokens_BPC)
        return tokens_BPC, tokens_BPC.shape[-1]

    def leave(
        self, hidden_states: Tensor, residual: Tensor, *, height: int, width: int, **_: Any
    ) -> Tensor:
        """The grid again, added to what had entered; named as diffusers names it."""
        tokens_BPC = _pointwise(self._transformer.proj_out, hidden_states)
        return tokens_BPC.unflatten(1, (height, width)).permute(0, 3, 1, 2) + residual


class _Gate:
    """`GEGLU.forward`."""

    def __init__(self, unit: GEGLU, layers: Layers) -> None:
        self._unit, self._layers = unit, layers

    def __call__(self, hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
        return self._layers.gate(self._unit.proj(hidden_states))


def _without_bias(layer: nn.Conv2d, sample_BChw: Tensor) -> Tensor:
    return F.conv2d(
        sample_BChw, layer.weight, None, layer.stride, layer.padding, layer.dilation, layer.groups
    )


def _pointwise(layer: nn.Conv2d, tokens_BPC: Tensor) -> Tensor:
    """A convolution of 1 x 1."""
    return F.linear(tokens_BPC, layer.weight.flatten(1), layer.bias)
