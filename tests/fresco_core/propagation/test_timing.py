"""Weights over time."""

import pytest

from fresco_core.propagation.timing import time_weight


def test_symmetric_weights_mirror_each_other():
    weights = [time_weight(i, 4, "symmetric") for i in range(4)]
    assert weights == pytest.approx([0.2, 0.4, 0.6, 0.8])


def test_published_weights_start_at_zero():
    assert [time_weight(i, 4, "published") for i in range(4)] == [0, 0.25, 0.5, 0.75]
    assert time_weight(0, 1, "published") == 0
    assert time_weight(0, 1, "symmetric") == 0.5
