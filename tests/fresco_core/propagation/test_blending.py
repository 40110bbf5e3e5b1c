"""Merging of both directions."""

from dataclasses import replace

import numpy as np
import pytest

from fresco_core.propagation.blending import merge
from fresco_core.propagation.options import PropagationOptions
from tests.fresco_core.propagation.scene import psnr, texture

PLAIN = PropagationOptions(blend="selection", poisson=False)


def test_error_maps_belong_to_their_own_frame():
    """In each frame the second picture is perfect in another column."""
    count, height, width = 3, 6, 12
    first, second = (
        np.zeros((count, height, width, 3), np.uint8),
        np.full((count, height, width, 3), 200, np.uint8),
    )
    bad = np.full((count, height, width), 100, np.float32)
    good = bad * 50
    for i in range(count):
        good[i, :, 4 * i] = 0
    still = np.zeros((count, 2, height, width), np.float32)
    masks = [mask for _, mask in merge(first, second, bad, good, still, PLAIN)]
    taken = [sorted(set(np.argwhere(mask)[:, 1].tolist())) for mask in masks]
    assert taken == [[0], [0, 4], [0, 4, 8]]


@pytest.mark.parametrize("blend", ["selection", "histogram"])
@pytest.mark.parametrize("poisson", [False, True])
def test_two_equal_pictures_are_kept(blend: str, poisson: bool):
    picture = texture(24, 24)
    errors = np.random.default_rng(0).random((2, 1, 24, 24)).astype(np.float32)
    options = replace(PLAIN, blend=blend, poisson=poisson)
    flow = np.zeros((1, 2, 24, 24), np.float32)
    ((frame, _),) = merge([picture], [picture], errors[0], errors[1], flow, options)
    assert frame.dtype == np.uint8
    assert psnr(frame, picture) > 35


def test_nothing_to_merge():
    assert list(merge([], [], [], [], [], PLAIN)) == []
