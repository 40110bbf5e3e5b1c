"""What lies between a network's convolutions, in one or two passes over memory each.

Shapes: B samples, C channels, h x w grid.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fresco_core.fallback import Fallback
from fresco_core.launching import OPTIONS

# Positions and channels that a program takes at once: 8 warps, 32 values a thread.
ROWS, WIDTH = 128, 64
# Rows that are normalised are taken whole: so many values, unless one row has more.
ROW_VALUES, LONGEST = 4096, 8192
# For moments, so many positions at once, and so many times: a chunk.
MOMENT_ROWS, MOMENT_STEPS = 32, 8


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

    def layer_norm(self, rows: Tensor, norm: nn.LayerNorm) -> Tensor:
        """Layer normalisation (Ba et al. 2016) of the last axis."""

        def plain() -> Tensor:
            return F.layer_norm(rows, norm.normalized_shape, norm.weight, norm.bias, norm.eps)

        weighted = norm.weight is not None and norm.bias is not None
        if norm.normalized_shape != rows.shape[-1:] or rows.shape[-1] > LONGEST or not weighted:
            return plain()
        return self._fallback(lambda: _layer_norm(rows, norm), plain)

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


def _group_norm(
    sample_BChw: Tensor, norm: nn.GroupNorm, shift_BC: Tensor | None, silu: bool
) -> Tensor:
    import triton

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
        **OPTIONS,
    )
    size = channels // norm.num_groups
    group_factors[(norm.num_groups, samples)](
        *(means_BKC, squares_BKC, norm.weight, norm.bias, shift_BC, factor_BC, offset_BC),
        *(positions, channels, chunks, length, norm.eps),
        SHIFTED=is_shifted,
        ROWS=min(64, triton.next_power_of_2(chunks)),
        WIDTH=triton.next_power_of_2(size),
        **OPTIONS,
    )
    scaled[(tiles, blocks, samples)](
        *(sample_BChw, factor_BC, offset_BC, out_BChw, positions, channels),
        SILU=silu,
        ROWS=ROWS,
        WIDTH=WIDTH,
        num_warps=8,
        **OPTIONS,
    )
    return out_BChw


def _layer_norm(rows: Tensor, norm: nn.LayerNorm) -> Tensor:
    import triton

    from fresco_core.layer_kernels import normalised_rows

    rows = rows.contiguous()
    out = torch.empty_like(rows)
    channels = rows.shape[-1]
    positions = rows.numel() // channels
    width = triton.next_power_of_2(channels)
    at_once = max(1, ROW_VALUES // width)
    normalised_rows[(-(-positions // at_once),)](
        *(rows, norm.weight, norm.bias, out, positions, channels, norm.eps),
        ROWS=at_once,
        WIDTH=width,
        **OPTIONS,
    )
    return out


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
        **OPTIONS,
    )
    return out_BChw


def _double(sample_BChw: Tensor) -> Tensor:
    import triton

    from fresco_core.layer_kernels import doubled

    sample_BChw = sample_BChw.contiguous(memory_format=torch.channels_last)
    samples, channels, rows, columns = sample_BChw.shape
    out_BChw = torch.empty(
        (samples, channels, 2 * rows, 2 * columns),
        dtype=sample_BChw.dtype,
        device=sample_BChw.device,
        memory_format=torch.channels_last,
    )
    width = min(1024, triton.next_power_of_2(channels))
    doubled[(samples * rows * columns, -(-channels // width))](
        *(sample_BChw, out_BChw, rows, columns, channels), WIDTH=width, num_warps=1, **OPTIONS
    )
    return out_BChw


def _gate(doubled: Tensor) -> Tensor:
    from fresco_core.layer_kernels import gated

    doubled = doubled.contiguous()
    channels = doubled.shape[-1] // 2
    out = doubled.new_empty((*doubled.shape[:-1], channels))
    positions = out.numel() // channels
    gated[(-(-positions // ROWS), -(-channels // WIDTH))](
        *(doubled, out, positions, channels), ROWS=ROWS, WIDTH=WIDTH, num_warps=8, **OPTIONS
    )
    return out
