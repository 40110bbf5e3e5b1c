"""Options."""

from typing import Any

import pytest

from fresco_core.propagation import PropagationOptions


@pytest.mark.parametrize(
    "bad",
    [
        {"engine": "ours"},
        {"patch": 4},
        {"votes": 0},
        {"sweeps": 0},
        {"uniformity": -1},
        {"inpaint_radius": 0},
        {"inpaint_scale": 0},
        {"timing": "late"},
        {"blend": "mean"},
        {"poisson_weights": (1.0,)},
    ],
)
def test_bad_values_are_named(bad: dict[str, Any]):
    with pytest.raises(ValueError, match=next(iter(bad))):
        PropagationOptions(**bad)


def test_published_values():
    options = PropagationOptions.published()
    assert options.timing == "published"
    assert (options.poisson_weights, options.poisson_clip) == ((2.5, 0.5, 0.5), 100)
    assert (options.votes, options.sweeps, options.inpaint_radius) == (12, 6, 30)
