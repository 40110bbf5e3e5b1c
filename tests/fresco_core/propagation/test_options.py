"""Options."""

from typing import Any

import pytest

from fresco_core.propagation import PropagationOptions
from fresco_core.propagation.effort import DEVICE_QUALITIES, QUALITIES, Effort


@pytest.mark.parametrize(
    "bad",
    [
        {"engine": "ours"},
        {"patch": 4},
        {"quality": "best"},
        {"poisson_rounding": "up"},
        {"patch": 17},
        {"votes": -1},
        {"sweeps": -1},
        {"still": -3},
        {"uniformity": -1},
        {"inpaint_radius": 0},
        {"inpaint_scale": -1},
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
    assert options.effort == Effort(votes=12, sweeps=6, still=-1, far=0)
    assert options.inpaint_radius == 30
    assert (options.inpaint_scale, options.poisson_rounding) == (1, "down")


def test_a_quality_stands_for_an_effort():
    for quality, effort in QUALITIES.items():
        assert PropagationOptions(quality=quality).effort == effort
        assert PropagationOptions(quality=quality).device_effort == DEVICE_QUALITIES[quality]
    assert PropagationOptions().effort == QUALITIES["balanced"]
    assert PropagationOptions().device_effort == DEVICE_QUALITIES["balanced"]


def test_what_is_given_goes_before_the_quality():
    options = PropagationOptions(quality="fast", votes=3, sweeps=4, still=-1)
    assert options.effort == Effort(3, 4, -1, QUALITIES["fast"].far)
    assert options.device_effort == Effort(3, 4, -1, DEVICE_QUALITIES["fast"].far)
    assert PropagationOptions(still=0).effort.still == 0


def test_the_program_has_a_quality_of_its_own():
    assert PropagationOptions(engine="ebsynth").effort == QUALITIES["reference"]
    assert PropagationOptions(engine="ebsynth", votes=3).effort.votes == 3
