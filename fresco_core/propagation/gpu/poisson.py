"""Seams removed in the gradient domain, on a device: `fresco_core.propagation.poisson` in batches.

The right side of the equation is the CPU's to the bit; the cosine transform is another one, and the
solution the same to a few thousandths of a level.

Shape suffixes: K pictures; H, W rows and columns; C channels (Lab).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fresco_core.propagation.gpu.cosine import CosineTransform
from fresco_core.propagation.gpu.lab import from_lab, to_lab
from fresco_core.propagation.options import PropagationOptions, Rounding

_ADDED: dict[Rounding, float] = {"nearest": 0.5, "down": 1e-3}


class PoissonFusion:
    """Of pictures of one size, with the weights, the limit and the rounding of the options."""

    def __init__(
        self, height: int, width: int, options: PropagationOptions, device: torch.device
    ) -> None:
        self._columns = CosineTransform(height, device)
        self._rows = CosineTransform(width, device)
        self._clip = math.inf if options.poisson_clip is None else options.poisson_clip
        self._added = _ADDED[options.poisson_rounding]
        weights_C = torch.tensor(options.poisson_weights, dtype=torch.float64)
        self._weights_C = weights_C.square().float().to(device)
        across, down = (
            2 - 2 * torch.cos(torch.pi * torch.arange(side, dtype=torch.float64) / side)
            for side in (width, height)
        )
        # Columns before rows, as the transforms leave them.
        waves_CWH = weights_C.square()[:, None, None] * (across[:, None] + down)
        self._denominators_CWH = (1 + waves_CWH).float().to(device)

    def fuse(
        self, blend_KHWC: Tensor, first_KHWC: Tensor, second_KHWC: Tensor, masks_KHW: Tensor
    ) -> Tensor:
        """The blends with the gradients of the first pictures, or of the second where the mask is
        True. All uint8 RGB.
        """
        target = to_lab(blend_KHWC)
        mean = target.double().mean((1, 2), keepdim=True).float()
        solution = self.solve(
            target.float().sub_(mean), to_lab(first_KHWC), to_lab(second_KHWC), masks_KHW
        )
        lab = solution.add_(mean + self._added).clamp_(0, 255).to(torch.uint8)
        return from_lab(lab)

    def solve(
        self, target_KHWC: Tensor, first_KHWC: Tensor, second_KHWC: Tensor, masks_KHW: Tensor
    ) -> Tensor:
        """The u that minimises weight² |grad u - chosen gradients|² + |u - target|² per channel.

        ``target_KHWC``: float32. The chosen pictures: Lab, uint8.
        """
        right_KHWC = self._right(target_KHWC, first_KHWC, second_KHWC, masks_KHW)
        waves = self._rows.forward(right_KHWC.permute(0, 3, 1, 2).contiguous())
        waves = self._columns.forward(waves.transpose(2, 3).contiguous())
        waves /= self._denominators_CWH
        values = self._columns.inverse(waves).transpose(2, 3).contiguous()
        return self._rows.inverse(values).permute(0, 2, 3, 1)

    def _right(
        self, target_KHWC: Tensor, first_KHWC: Tensor, second_KHWC: Tensor, masks_KHW: Tensor
    ) -> Tensor:
        """The target and, weighted, the adjoint of the differences applied to the chosen
        differences; the upper or left pixel of a pair decides which picture one comes from.
        """
        first, second = first_KHWC.short(), second_KHWC.short()
        steps = []
        for dim in (1, 2):
            count = first.shape[dim] - 1
            of_first, of_second = (
                picture.narrow(dim, 0, count) - picture.narrow(dim, 1, count)
                for picture in (first, second)
            )
            chosen = torch.where(masks_KHW[..., None].narrow(dim, 0, count), of_second, of_first)
            limited = chosen.float().clamp_(-self._clip, self._clip)
            steps.append(limited.mul_(self._weights_C))
        # In the order in which the CPU comes by.
        right = target_KHWC.clone()
        for dim, step in zip((1, 2), steps, strict=True):
            right.narrow(dim, 1, step.shape[dim]).sub_(step)
        for dim, step in zip((1, 2), steps, strict=True):
            right.narrow(dim, 0, step.shape[dim]).add_(step)
        return right
