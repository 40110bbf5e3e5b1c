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

from fresco_core.fallback import Fallback
from fresco_core.last_result import LastResult

# Positions and channels that a program takes at once: 8 warps, 32 values a thread.
ROWS, WIDTH = 128, 64
# For moments, so many positions at once, and so many times: a chunk.
MOMENT_ROWS, MOMENT_STEPS = 32, 8
_ENTER, _LEAVE = "_operate_on_continuous_inputs", "_get_output_for_continuous_inputs"


class Layers:
    """What lies between convolutions: kernels on a GPU, plain PyTorch elsewhere."""

    def __init__(self, *, kernels: bool = True) -> None:
        self._fallback = Fallback("network layers", usable=kernels)

    def group_norm(
        self,
        sample_BChw: Tensor,
        norm: nn.GroupNorm,
        shift_BC: Tensor | None = None,
        *,
        silu: bool = False,
    ) -> Tensor:
        """Group normalisation (Wu & He, ECCV 2018) of a sample plus a shift, then perhaps SiLU."""

        def plain() -> Tensor:
            shifted = sample_BChw
            if shift_BC is not None:
                shifted = shifted + shift_BC.to(shifted.dtype)[:, :, None, None]
            normal = F.group_norm(shifted, norm.num_groups, norm.weight, norm.bias, norm.eps)
            return F.silu(normal) if silu else normal

        if sample_BChw.ndim != 4 or norm.weight is None:
            return plain()
        return self._fallback(lambda: _group_norm(sample_BChw, norm, shift_BC, silu), plain)

    def add(self, a_BChw: Tensor, b_BChw: Tensor, bias_C: Tensor) -> Tensor:
        """Sum of two samples and of a bias."""
        return self._fallback(
            lambda: _add(a_BChw, b_BChw, bias_C),
            lambda: a_BChw + b_BChw + bias_C[:, None, None],
        )

    def double(self, sample_BChw: Tensor) -> Tensor:
        """Twice as high and wide, by nearest neighbour."""
        return self._fallback(
            lambda: _double(sample_BChw),
            lambda: F.interpolate(sample_BChw, scale_factor=2.0, mode="nearest"),
        )

    def gate(self, doubled: Tensor) -> Tensor:
        """First half of the last axis times GELU of the second (Shazeer 2020, GEGLU)."""

        def plain() -> Tensor:
            value, gate = doubled.chunk(2, dim=-1)
            return value * F.gelu(gate)

        return self._fallback(lambda: _gate(doubled), plain)


def fuse(network: nn.Module, layers: Layers) -> None:
    """Have a network's layers computed by `layers`, channels last. For inference only."""
    network.to(memory_format=torch.channels_last)
    for module in network.modules():
        if isinstance(module, nn.GroupNorm):
            _replace(module, "forward", partial(layers.group_norm, norm=module))
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


def _group_norm(
    sample_BChw: Tensor, norm: nn.GroupNorm, shift_BC: Tensor | None, silu: bool
) -> Tensor:
    from fresco_core.layer_kernels import chunk_moments, group_factors, scaled

    sample_BChw = sample_BChw.contiguous(memory_format=torch.channels_last)
    out_BChw = torch.empty_like(sample_BChw)
    samples, channels, rows, columns = sample_BChw.shape
    positions = rows * columns
    tiles, blocks = -(-positions // ROWS), -(-channels // WIDTH)
    length = MOMENT_ROWS * MOMENT_STEPS
    chunks = -(-positions // length)
    means_BKC, squares_BKC = sample_BChw.new_empty(
        (2, samples, chunks, channels), dtype=torch.float32
    )
    factor_BC, offset_BC = sample_BChw.new_empty((2, samples, channels), dtype=torch.float32)
    is_shifted = shift_BC is not None
    shift_BC = shift_BC.float().contiguous() if shift_BC is not None else factor_BC
    chunk_moments[(chunks, blocks, samples)](
        *(sample_BChw, shift_BC, means_BKC, squares_BKC, positions, channels, chunks),
        SHIFTED=is_shifted,
        ROWS=MOMENT_ROWS,
        WIDTH=WIDTH,
        STEPS=MOMENT_STEPS,
    )
    size = channels // norm.num_groups
    group_factors[(norm.num_groups, samples)](
        *(means_BKC, squares_BKC, norm.weight, norm.bias, shift_BC, factor_BC, offset_BC),
        *(positions, channels, chunks, length, norm.eps),
        SHIFTED=is_shifted,
        ROWS=min(64, _power_of_two(chunks)),
        WIDTH=_power_of_two(size),
    )
    scaled[(tiles, blocks, samples)](
        *(sample_BChw, factor_BC, offset_BC, out_BChw, positions, channels),
        SILU=silu,
        ROWS=ROWS,
        WIDTH=WIDTH,
        num_warps=8,
    )
    return out_BChw


def _add(a_BChw: Tensor, b_BChw: Tensor, bias_C: Tensor) -> Tensor:
    from fresco_core.layer_kernels import added_rows

    a_BChw = a_BChw.contiguous(memory_format=torch.channels_last)
    b_BChw = b_BChw.contiguous(memory_format=torch.channels_last)
    out_BChw = torch.empty_like(a_BChw)
    samples, channels, rows, columns = a_BChw.shape
    positions = samples * rows * columns
    added_rows[(-(-positions // ROWS), -(-channels // WIDTH))](
        *(a_BChw, b_BChw, bias_C, out_BChw, positions, channels),
        ROWS=ROWS,
        WIDTH=WIDTH,
        num_warps=8,
    )
    return out_BChw


def _double(sample_BChw: Tensor) -> Tensor:
    from fresco_core.layer_kernels import doubled

    sample_BChw = sample_BChw.contiguous(memory_format=torch.channels_last)
    samples, channels, rows, columns = sample_BChw.shape
    out_BChw = torch.empty(
        (samples, channels, 2 * rows, 2 * columns),
        dtype=sample_BChw.dtype,
        device=sample_BChw.device,
        memory_format=torch.channels_last,
    )
    width = min(1024, _power_of_two(channels))
    doubled[(samples * rows * columns, -(-channels // width))](
        *(sample_BChw, out_BChw, rows, columns, channels), WIDTH=width, num_warps=1
    )
    return out_BChw


def _gate(doubled: Tensor) -> Tensor:
    from fresco_core.layer_kernels import gated

    doubled = doubled.contiguous()
    channels = doubled.shape[-1] // 2
    out = doubled.new_empty((*doubled.shape[:-1], channels))
    positions = out.numel() // channels
    gated[(-(-positions // ROWS), -(-channels // WIDTH))](
        *(doubled, out, positions, channels), ROWS=ROWS, WIDTH=WIDTH, num_warps=8
    )
    return out


def _power_of_two(count: int) -> int:
    return 1 << (count - 1).bit_length()
