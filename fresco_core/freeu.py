"""FreeU: the decoder's backbone features strengthened against its skip connections.

Source: FreeU: Free Lunch in Diffusion U-Net (Si et al., CVPR 2024), section 3.

Shapes: B samples, C channels of hidden features, K of a skip connection, h x w grid of a level.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fresco_core.options import FreeUOptions


class FreeU:
    """FreeU on the decoder blocks without attention of one UNet, as FRESCO has it.

    Hooks stay on the UNet as long as it lives; `options` says what they do.

    Attributes:
        options: the factors, or None for a UNet without FreeU. Networks are shared by translations
            that differ in it: set it before each pass.
    """

    def __init__(self, unet: Any) -> None:
        self.options: FreeUOptions | None = None
        widest, *others = sorted(set(unet.config.block_out_channels), reverse=True)
        self._widths = (widest, others[0] if others else None)
        hidden = unet.config.block_out_channels[-1]
        for block in unet.up_blocks:
            for unit in block.resnets:
                if not hasattr(block, "attentions"):
                    unit.register_forward_pre_hook(self._hook(hidden))
                hidden = unit.out_channels

    def _hook(self, hidden_channels: int) -> Callable[[nn.Module, tuple[Any, ...]], Any]:
        """Before a residual unit, whose input is hidden features and skip connection in one."""

        def change(unit: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...] | None:
            factors = self._factors(hidden_channels)
            if factors is None:
                return None
            joined, *others = arguments
            hidden_BChw, skip_BKhw = joined.tensor_split([hidden_channels], 1)
            backbone, skip = factors
            changed = strengthen(hidden_BChw, backbone), soften(skip_BKhw, skip)
            return torch.cat(changed, 1), *others

        return change

    def _factors(self, channels: int) -> tuple[float, float] | None:
        options = self.options
        if options is None or channels not in self._widths:
            return None
        if channels == self._widths[0]:
            return options.b1, options.s1
        return options.b2, options.s2


def strengthen(hidden_BChw: Tensor, factor: float) -> Tensor:
    """Multiply the first half of the channels by 1 up to ``factor``, most where features are large.

    Where "large" is told from the mean over channels, each sample's from 0 to 1.
    """
    if factor == 1:
        return hidden_BChw
    mean_B1hw = hidden_BChw.float().mean(1, keepdim=True)
    low_B111, high_B111 = (
        extreme((2, 3), keepdim=True) for extreme in (mean_B1hw.amin, mean_B1hw.amax)
    )
    span_B111 = (high_B111 - low_B111).clamp(min=torch.finfo(torch.float32).tiny)
    gain_B1hw = (factor - 1) * (mean_B1hw - low_B111) / span_B111 + 1
    half = hidden_BChw.shape[1] // 2
    changed_BChw = hidden_BChw.clone()
    changed_BChw[:, :half] *= gain_B1hw.to(hidden_BChw.dtype)
    return changed_BChw


def soften(skip_BKhw: Tensor, factor: float) -> Tensor:
    """Multiply the four lowest frequencies, the constant one among them, by ``factor``."""
    if factor == 1:
        return skip_BKhw
    # Half precision knows only transforms whose sizes are powers of two.
    spectrum_BKhw = torch.fft.fftshift(torch.fft.fftn(skip_BKhw.float(), dim=(2, 3)), dim=(2, 3))
    rows, columns = (size // 2 for size in skip_BKhw.shape[2:])
    spectrum_BKhw[..., max(rows - 1, 0) : rows + 1, max(columns - 1, 0) : columns + 1] *= factor
    softened = torch.fft.ifftn(torch.fft.ifftshift(spectrum_BKhw, dim=(2, 3)), dim=(2, 3)).real
    return softened.to(skip_BKhw.dtype)
