"""Diffusion sampling: schedule, noise, start from the input (SDEdit), DDPM step.

Sources: DDPM (Ho et al., NeurIPS 2020), eq. 6-7; SDEdit (Meng et al., ICLR 2022); FRESCO (Yang et
al., CVPR 2024), supplementary.

Shapes: N frames, 4 latent channels, h x w = H/8 x W/8 latent grid, H x W pixels.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from fresco_core.last_result import LastResult


class Noise(Protocol):
    """Where a batch's random numbers come from."""

    def restart(self) -> None:
        """Begin the latent noise anew: the next draw repeats the first one of the batch."""

    def latent(self, shape: tuple[int, ...]) -> Tensor:
        """Standard normal noise for latents, float32."""

    def posterior(self, shape: tuple[int, ...]) -> Tensor:
        """Standard normal noise for samples of the VAE's posterior, float32."""


class SeededNoise:
    """Noise from a seed: the same numbers whatever the device, the window or the process.

    Drawn on the CPU for that reason; latents are small. The two streams differ, so that posterior
    samples are independent of the latent noise.
    """

    _POSTERIOR_STREAM = 0x5DEECE66D

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._posterior = torch.Generator().manual_seed((seed + self._POSTERIOR_STREAM) % 2**63)
        self.restart()

    def restart(self) -> None:
        """See `Noise.restart`."""
        self._latent = torch.Generator().manual_seed(self._seed)

    def latent(self, shape: tuple[int, ...]) -> Tensor:
        """See `Noise.latent`."""
        return torch.randn(shape, generator=self._latent)

    def posterior(self, shape: tuple[int, ...]) -> Tensor:
        """See `Noise.posterior`."""
        return torch.randn(shape, generator=self._posterior)


# Pixels that the VAE works on at once: enough to fill a device. More take memory, and no less time.
_PIXELS = 1 << 20


def _at_once(height: int, width: int) -> int:
    """How many pictures of that size."""
    return max(1, _PIXELS // (height * width))


class PictureCodec:
    """The VAE as pictures see it: RGB in [-1, 1] to scaled latents and back, float32 outside."""

    def __init__(self, vae: Any) -> None:
        self._vae = vae
        self._posterior = LastResult(self._encode)  # a batch begins twice from the same frames
        self.scaling_factor = float(vae.config.scaling_factor)

    @property
    def dtype(self) -> torch.dtype:
        """In which the VAE computes."""
        dtype: torch.dtype = self._vae.dtype
        return dtype

    @contextmanager
    def in_float32(self) -> Iterator[None]:
        """The VAE in float32, and back: no weight changes."""
        dtype = self.dtype
        self._vae.to(torch.float32)
        self._posterior.forget()
        try:
            yield
        finally:
            self._vae.to(dtype)
            self._posterior.forget()

    def encode(self, frames_N3HW: Tensor, noise: Callable[[tuple[int, ...]], Tensor]) -> Tensor:
        """A sample of the posterior, (N,4,h,w), with the given noise."""
        mean, std = self._posterior(frames_N3HW)
        return self.scaling_factor * (mean + std * on_device(noise(tuple(mean.shape)), mean.device))

    def _encode(self, frames_N3HW: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation of the posterior, (N,4,h,w)."""
        height, width = frames_N3HW.shape[-2:]
        posteriors = [
            self._vae.encode(some_n3HW.to(self._vae.dtype)).latent_dist
            for some_n3HW in frames_N3HW.split(_at_once(height, width))
        ]
        mean_N4hw, std_N4hw = (
            torch.cat([getattr(each, name) for each in posteriors]).float()
            for name in ("mean", "std")
        )
        return mean_N4hw, std_N4hw

    def decode(self, latents_N4hw: Tensor) -> Tensor:
        """Pictures (N,3,H,W), not clamped."""
        latents_N4hw = (latents_N4hw / self.scaling_factor).to(self._vae.dtype)
        height, width = latents_N4hw.shape[-2:]
        pictures = [
            self._vae.decode(some_n4hw, return_dict=False)[0]
            for some_n4hw in latents_N4hw.split(_at_once(8 * height, 8 * width))
        ]
        return torch.cat(pictures).float()


@dataclass(frozen=True)
class Schedule:
    """Noise levels of a run: `timesteps` from most to least noise, `alphas` their squared signal.

    `alphas[k]` belongs to `timesteps[k]`; one more entry, 1, stands for no noise at all.
    """

    timesteps: tuple[int, ...]
    alphas: tuple[float, ...]

    @classmethod
    def from_scheduler(cls, scheduler: Any, steps: int) -> "Schedule":
        """The schedule of a diffusers scheduler for that many steps."""
        scheduler.set_timesteps(steps)
        timesteps = tuple(int(t) for t in scheduler.timesteps)
        alphas = tuple(float(scheduler.alphas_cumprod[t]) for t in timesteps)
        return cls(timesteps, (*alphas, 1.0))

    def add_noise(self, latents_N4hw: Tensor, noise_N4hw: Tensor, index: int) -> Tensor:
        """Latents at the noise level of step `index`."""
        alpha = self.alphas[index]
        return alpha**0.5 * latents_N4hw + (1 - alpha) ** 0.5 * noise_N4hw

    def predict_clean(self, latents_N4hw: Tensor, predicted_N4hw: Tensor, index: int) -> Tensor:
        """Latents without the noise that the network predicts in them at step `index`."""
        alpha = self.alphas[index]
        return (latents_N4hw - (1 - alpha) ** 0.5 * predicted_N4hw) / alpha**0.5

    def previous(
        self, latents_N4hw: Tensor, clean_N4hw: Tensor, noise_N4hw: Tensor, index: int
    ) -> Tensor:
        """One DDPM step: latents at the next smaller noise level (Ho et al., eq. 7)."""
        alpha, alpha_next = self.alphas[index], self.alphas[index + 1]
        ratio = alpha / alpha_next
        beta = 1 - ratio
        variance = max((1 - alpha_next) / (1 - alpha) * beta, 1e-20)
        return (
            alpha_next**0.5 * beta / (1 - alpha) * clean_N4hw
            + ratio**0.5 * (1 - alpha_next) / (1 - alpha) * latents_N4hw
            + variance**0.5 * noise_N4hw
        )


def repeat_first(noise_N4hw: Tensor) -> Tensor:
    """Frame 0's noise for all frames."""
    return noise_N4hw[:1].expand_as(noise_N4hw)


def on_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A CPU tensor on a device, without waiting for what the device is doing."""
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def to_uint8(pictures_N3HW: Tensor) -> Tensor:
    """RGB in [-1, 1] (clamped) -> uint8 (N,H,W,3)."""
    return ((pictures_N3HW / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)


def to_normalised(frames_NHWC: Tensor) -> Tensor:
    """uint8 RGB (N,H,W,3) -> float32 (N,3,H,W) in [-1, 1]."""
    return frames_NHWC.permute(0, 3, 1, 2).float() / 255 * 2 - 1
