"""The histogram blend, and Lab, are the CPU's to the bit."""

import numpy as np
import pytest
import torch

from fresco_core.propagation import histogram as on_cpu
from fresco_core.propagation.gpu import histogram, lab
from tests.fresco_core.propagation.gpu.random_input import SIZES, pictures, same, sent
from tests.fresco_core.propagation.scene import texture


def blended(*batches: np.ndarray, weights: list[float]) -> None:
    found = histogram.blend(*map(sent, batches), torch.tensor(weights, dtype=torch.float64))
    same(found, [on_cpu.blend(*one) for one in zip(*batches, weights, strict=True)])


@pytest.mark.parametrize("size", SIZES)
def test_blends(size: tuple[int, int]):
    many = pictures(size, channels=9)
    blended(many[..., :3], many[..., 3:6], many[..., 6:], weights=[0.0, 0.3, 1.0])


def test_pictures_without_contrast():
    flat = np.full((40, 40, 3), 77, np.uint8)
    soft = texture(40, 40)
    weights = [0.5, 0.5, 0.2]
    blended(
        np.stack([flat] * 3), np.stack([flat, soft, soft]), np.stack([soft] * 3), weights=weights
    )


def test_all_colours_there_and_back():
    picture = pictures((64, 64))
    found = lab.to_lab(sent(picture))
    same(found, [on_cpu.to_lab(one) for one in picture])
    same(lab.from_lab(found), [on_cpu.from_lab(on_cpu.to_lab(one)) for one in picture])
    same(lab.from_lab(sent(picture)), [on_cpu.from_lab(one) for one in picture])
