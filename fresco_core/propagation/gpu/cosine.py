"""The discrete cosine transform by way of the Fourier transform (Makhoul, 1980).

Shape suffixes: K pictures; N samples; ... any others.
"""

from __future__ import annotations

import torch
from torch import Tensor


class CosineTransform:
    """Of one length, along the last dimension, in float32: orthonormal DCT-II and its inverse.

    Pictures are transformed one by one: how many are at once might show in the last bits.
    """

    def __init__(self, length: int, device: torch.device) -> None:
        self._length = length
        # A half turn over all frequencies, which brings the sums of Fourier's to unit length.
        angle = torch.arange(length // 2 + 1, dtype=torch.float64) * (torch.pi / (2 * length))
        size = torch.full_like(angle, (2 / length) ** 0.5)
        size[0] = (1 / length) ** 0.5
        self._turn = torch.polar(size, -angle).to(torch.complex64).to(device)
        self._turn_back = torch.polar(1 / (length * size), angle).to(torch.complex64).to(device)

    def forward(self, values: Tensor) -> Tensor:
        """float32 (K,...,N)."""
        folded = torch.cat([values[..., ::2], values[..., 1::2].flip(-1)], -1)
        waves = torch.stack([torch.fft.rfft(one) for one in folded]).mul_(self._turn)
        # The rest are the imaginary parts, from the end.
        rest = waves.imag[..., 1 : (self._length + 1) // 2].flip(-1)
        return torch.cat([waves.real, rest.neg_()], -1)

    def inverse(self, waves: Tensor) -> Tensor:
        """float32 (K,...,N)."""
        half = self._length // 2
        mirrored = torch.zeros_like(waves[..., : half + 1])
        mirrored[..., 1:] = waves[..., self._length - half :].flip(-1)
        turned = torch.complex(waves[..., : half + 1].contiguous(), mirrored.neg_())
        turned.mul_(self._turn_back)
        folded = torch.stack(
            [torch.fft.irfft(one, n=self._length, norm="forward") for one in turned]
        )
        values = torch.empty_like(waves)
        middle = (self._length + 1) // 2
        values[..., ::2] = folded[..., :middle]
        values[..., 1::2] = folded[..., middle:].flip(-1)
        return values
