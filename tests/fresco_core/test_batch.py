from dataclasses import replace

import numpy as np
import pytest
import torch

from fresco_core.batch import Carry, KeyFrameBatch, check, with_carried


def batch(count: int, level: int) -> KeyFrameBatch:
    frames = np.full((count, 64, 128, 3), level, np.uint8)
    return KeyFrameBatch(frames, frames[..., 0], (f"prompt {level}",) * count, "rain")


def carry() -> Carry:
    frames = np.full((2, 64, 128, 3), 9, np.uint8)
    return Carry(torch.zeros(1, 2, 4, 8, 16), frames, frames[..., 0], ("first", "last"))


def test_carried_frames_come_first_with_their_maps_and_prompts() -> None:
    whole = with_carried(batch(3, 5), carry())
    assert whole.frames[:, 0, 0, 0].tolist() == [9, 9, 5, 5, 5]
    assert whole.controls is not None
    assert whole.controls[:, 0, 0].tolist() == [9, 9, 5, 5, 5]
    assert whole.prompts == ("first", "last", "prompt 5", "prompt 5", "prompt 5")
    assert whole.negative == "rain"


def test_what_fits_is_let_through() -> None:
    check(batch(1, 0), None)
    check(batch(3, 0), carry())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frames": np.zeros((3, 60, 128, 3), np.uint8)}, "multiples of 64"),
        ({"frames": np.zeros((0, 64, 128, 3), np.uint8)}, "n > 0"),
        ({"frames": np.zeros((3, 64, 128, 3), np.float32)}, "must be uint8"),
        ({"controls": np.zeros((2, 64, 128), np.uint8)}, "control maps for"),
        ({"controls": None}, "control maps or neither"),
        ({"prompts": ("one",)}, "1 prompts for 3 frames"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check(replace(batch(3, 0), **change), carry())  # type: ignore[arg-type]
