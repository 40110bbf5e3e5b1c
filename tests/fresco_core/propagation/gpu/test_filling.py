"""Holes are filled as on the CPU, to the bit."""

import numpy as np
import pytest

from fresco_core.propagation import filling as on_cpu
from fresco_core.propagation.gpu import filling
from tests.fresco_core.propagation.gpu.random_input import SIZES, pictures, same, sent


@pytest.mark.parametrize("share", [0.0, 0.3, 0.97, 1.0])
@pytest.mark.parametrize("size", [*SIZES, (61, 45)])
def test_holes_here_and_there(size: tuple[int, int], share: float):
    picture = pictures(size, channels=6)
    hole = np.random.default_rng(1).random(picture.shape[:3]) < share
    expected = [on_cpu.fill(*pair, 1, 0) for pair in zip(picture, hole, strict=True)]
    same(filling.fill(sent(picture), sent(hole)), expected)


def test_large_holes():
    picture, hole = pictures((70, 90)), np.zeros((3, 70, 90), np.bool_)
    hole[0, 3:66, 20:], hole[1, :, :40], hole[2, 69, 89] = True, True, True
    expected = [on_cpu.fill(*pair, 1, 0) for pair in zip(picture, hole, strict=True)]
    same(filling.fill(sent(picture), sent(hole)), expected)
