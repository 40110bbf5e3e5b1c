"""Small random pictures and flows, in batches.

Shape suffixes: K pictures; H, W rows and columns; C channels; 2 = horizontal, vertical.
"""

import numpy as np
import torch
from numpy.typing import NDArray

SIZES = [(37, 50), (64, 64), (2, 3), (1, 9), (33, 1)]


def pictures(size: tuple[int, int], count: int = 3, channels: int = 3) -> NDArray[np.uint8]:
    """uint8 (K,H,W,C)."""
    random = np.random.default_rng(channels)
    return random.integers(0, 256, (count, *size, channels)).astype(np.uint8)


def flows(size: tuple[int, int], count: int = 3) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(K,2,H,W) of some pixels, half of them whole or half ones, and nearly the way back."""
    random = np.random.default_rng(count)
    flow = (4 * random.normal(size=(count, 2, *size))).astype(np.float32)
    flow[..., : size[1] // 2] = np.round(2 * flow[..., : size[1] // 2]) / 2
    flow[0, 0, 0, 0], flow[-1, 1, -1, -1] = 1e9, -1e9
    back = np.zeros_like(flow) - flow.mean((2, 3), keepdims=True).clip(-1, 1)
    back += 0.3 * random.normal(size=flow.shape)
    flow[1:2] = -back[1:2] + 0.2 * random.normal(size=back[1:2].shape)
    return flow, back


def sent(array: NDArray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))


def same(found: torch.Tensor, expected: list[NDArray]) -> None:
    """To the bit, and of the same type."""
    together = np.stack(expected)
    assert found.numpy().dtype == together.dtype
    np.testing.assert_array_equal(found.numpy(), together)
