"""Made-up batches whose correspondence is known."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fresco_core.correspondence import Correspondence


def texture(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """A smooth random RGB picture."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.uniform(0, 255, (1, 3, height // 4 + 2, width // 4 + 2)))
    fine = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")
    return fine[0].clamp(0, 255).byte().permute(1, 2, 0).numpy()


def panning(count: int, height: int, width: int, step: int = 4, seed: int = 0) -> NDArray[np.uint8]:
    """Frames (count,H,W,3) of a camera that moves right by `step` pixels a frame."""
    wide = texture(height, width + step * count, seed)
    return np.stack([wide[:, i * step : i * step + width] for i in range(count)])


def shifted_pairs(count: int, height: int, width: int, step: float) -> Correspondence:
    """All ring pairs shifted left by `step` pixels, nothing occluded."""
    forward = torch.zeros(count, 2, height, width)
    forward[:, 0] = -step
    nothing = torch.zeros(count, 1, height, width)
    return Correspondence(forward, -forward, nothing, nothing)


def as_tensor(frames_NHWC: NDArray[np.uint8]) -> Tensor:
    """(N,3,H,W) float, 0..255."""
    return torch.from_numpy(frames_NHWC).permute(0, 3, 1, 2).float()
