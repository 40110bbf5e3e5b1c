"""A result in one picture."""

import numpy as np
import pytest
from numpy.typing import NDArray

from io_pipeline.contact_sheet import Row, contact_sheet, sample_numbers, strip


@pytest.mark.parametrize(
    ("count", "numbers"),
    [(1, (0,)), (2, (0, 1)), (8, tuple(range(8))), (80, (0, 11, 23, 34, 45, 56, 68, 79))],
)
def test_rows_are_spread_evenly(count: int, numbers: tuple[int, ...]) -> None:
    assert sample_numbers(count) == numbers


@pytest.mark.parametrize("size", [(512, 896), (896, 512), (64, 64), (1, 1)])
def test_rows_and_columns(size: tuple[int, int]) -> None:
    panels = [_flat(size, shade) for shade in (60, 120, 240)]
    drawn = contact_sheet([Row(number, number / 24, strip(panels)) for number in range(3)])
    long, short = max(size), min(size)
    scale = min(1, 320 / long)
    for shade in (60, 120):
        area = int((drawn == shade).all(axis=2).sum())
        assert area == pytest.approx(3 * round(long * scale) * round(short * scale), rel=0.02)


def _flat(size: tuple[int, int], shade: int) -> NDArray[np.uint8]:
    return np.full((*size, 3), shade, np.uint8)
