from __future__ import annotations

import numpy as np

from fresco_core.propagation.effort import Effort
from fresco_core.propagation.painter import Painter

EFFORT = Effort(votes=3, sweeps=2, still=1, far=1.0)


def pictures(seed: int, count: int, side: int = 26) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (side, side, 3)).astype(np.uint8) for _ in range(count)]


def painter() -> Painter:
    style, *sources = pictures(0, 3)
    return Painter(style, sources, [6.0, 2.0], (26, 26))


def test_what_was_painted_before_makes_no_difference():
    first, second = pictures(1, 2), pictures(2, 2)
    used, fresh = painter(), painter()
    earlier = used.paint(first, EFFORT)
    kept = earlier.image_HWC.copy(), earlier.error_HW.copy()
    later, expected = used.paint(second, EFFORT), fresh.paint(second, EFFORT)
    np.testing.assert_array_equal(later.image_HWC, expected.image_HWC)
    np.testing.assert_array_equal(later.error_HW, expected.error_HW)
    np.testing.assert_array_equal(earlier.image_HWC, kept[0])  # memory is not shared with results
    np.testing.assert_array_equal(earlier.error_HW, kept[1])
    assert (later.image_HWC != earlier.image_HWC).any()


def test_what_was_painted_before_makes_no_difference_to_a_fit():
    image, *targets = pictures(3, 3)
    used = painter()
    used.paint(pictures(1, 2), EFFORT)
    np.testing.assert_array_equal(used.fit(image, targets, 2), painter().fit(image, targets, 2))
