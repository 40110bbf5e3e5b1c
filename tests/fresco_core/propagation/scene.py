"""A small scene whose stylised truth is known: a texture that slides past the camera."""

import numpy as np
from numpy.typing import NDArray


def texture(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Soft coloured noise, (H,W,3)."""
    noise = np.random.default_rng(seed).normal(size=(height, width, 3))
    spectrum = np.fft.rfft2(noise, axes=(0, 1))
    y = np.fft.fftfreq(height)[:, None, None]
    x = np.fft.rfftfreq(width)[None, :, None]
    soft = np.fft.irfft2(spectrum * np.exp(-150 * (x**2 + y**2)), (height, width), axes=(0, 1))
    soft = (soft - soft.min()) / (soft.max() - soft.min())
    return np.rint(soft * 255).astype(np.uint8)


def stylise(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A fixed, strongly non-linear change of colours that needs no neighbours."""
    x = picture.astype(np.float64) / 255
    mixed = np.stack([np.sin(5 * x[..., 1]) ** 2, 1 - x[..., 2], np.sqrt(x[..., 0])], axis=-1)
    return np.rint(mixed * 255).astype(np.uint8)


def sliding(
    count: int, height: int = 48, width: int = 64, step: tuple[int, int] = (2, 1)
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.float32]]:
    """Frames (T,H,W,3) whose content moves by ``step`` = (x, y) a frame, forward, backward flows.

    The flows are those of ``propagate``.
    """
    dx, dy = step
    wide = texture(height + dy * count, width + dx * count)
    frames = np.stack(
        [
            wide[
                dy * (count - t) : dy * (count - t) + height,
                dx * (count - t) : dx * (count - t) + width,
            ]
            for t in range(count)
        ]
    )
    flow = np.empty((count - 1, 2, height, width), np.float32)
    flow[:, 0], flow[:, 1] = dx, dy
    return frames, flow, -flow


def psnr(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    error = np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2)
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


def constant_flow(height: int, width: int, x: float, y: float) -> NDArray[np.float32]:
    """The same displacement everywhere, (2,H,W)."""
    flow = np.empty((2, height, width), np.float32)
    flow[0], flow[1] = x, y
    return flow
