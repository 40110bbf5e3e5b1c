"""Choice masks are the CPU's."""

import numpy as np
import torch

from fresco_core.propagation import selection as on_cpu
from fresco_core.propagation.gpu import selection
from tests.fresco_core.propagation.gpu.random_input import flows, pictures, same, sent

SIZE = (20, 31)


def test_smaller_weighted_error_wins_and_the_ends_take_one_picture():
    # Whole numbers: many pairs are equal, and many 0.
    first, second = (np.floor(pictures(SIZE, 5, c)[..., 0] / 64).astype(np.float32) for c in (1, 2))
    weights = [0.0, 0.25, 0.5, 0.8, 1.0]
    found = selection.choose(sent(first), sent(second), torch.tensor(weights, dtype=torch.float64))
    same(found, [on_cpu.choose(*one) for one in zip(first, second, weights, strict=True)])


def test_what_went_over_stays_and_moves_along():
    mask, before = pictures(SIZE)[..., 0] > 200, pictures(SIZE)[..., 1] > 200
    flow, _ = flows(SIZE)
    found = selection.steady(sent(mask), sent(before), sent(flow))
    same(found, [on_cpu.steady(*one) for one in zip(mask, before, flow, strict=True)])


def test_assembled_pixels_come_from_the_chosen_picture():
    first, second = pictures(SIZE), pictures(SIZE, channels=6)[..., 3:]
    mask = first[..., 0] > 99
    found = selection.assemble(sent(first), sent(second), sent(mask))
    same(found, [on_cpu.assemble(*one) for one in zip(first, second, mask, strict=True)])
