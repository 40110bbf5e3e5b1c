from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fresco_core.batch import Carry, KeyFrameBatch, Matched, check, with_carried


def maps(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Of two ControlNets, the second one's darker."""
    return np.stack([frames[..., 0], frames[..., 0] // 2], axis=1)


def batch(count: int, level: int) -> KeyFrameBatch:
    frames = np.full((count, 64, 128, 3), level, np.uint8)
    return KeyFrameBatch(frames, maps(frames), (f"prompt {level}",) * count, "rain")


def carry() -> Carry:
    frames = np.full((2, 64, 128, 3), 9, np.uint8)
    return Carry(torch.zeros(1, 2, 4, 8, 16), frames, maps(frames), ("first", "last"))


def test_carried_frames_come_first_with_their_maps_and_prompts() -> None:
    whole = with_carried(batch(3, 5), carry())
    assert whole.frames[:, 0, 0, 0].tolist() == [9, 9, 5, 5, 5]
    assert whole.controls is not None
    assert whole.controls[:, 0, 0, 0].tolist() == [9, 9, 5, 5, 5]
    assert whole.controls[:, 1, 0, 0].tolist() == [4, 4, 2, 2, 2]
    assert whole.prompts == ("first", "last", "prompt 5", "prompt 5", "prompt 5")
    assert whole.negative == "rain"


def matched(count: int, *, salient: int | None = None) -> Matched:
    found = None if salient is None else np.zeros((salient, 32, 64), np.uint8)
    return Matched(np.zeros((2, count, 2, 64, 128), np.float32), found)


def test_what_is_matched_is_of_all_frames() -> None:
    found = matched(5, salient=5)
    brought = replace(batch(3, 5), matched=found)
    check(brought, carry())
    assert with_carried(brought, carry()).matched is found


def test_what_fits_is_let_through() -> None:
    check(batch(1, 0), None)
    check(batch(3, 0), carry())
    check(replace(batch(3, 0), matched=matched(3)), None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frames": np.zeros((3, 60, 128, 3), np.uint8)}, "multiples of 64"),
        ({"frames": np.zeros((0, 64, 128, 3), np.uint8)}, "n > 0"),
        ({"frames": np.zeros((3, 64, 128, 3), np.float32)}, "must be uint8"),
        ({"controls": np.zeros((2, 2, 64, 128), np.uint8)}, r"must be \(n,M,H,W\)"),
        ({"controls": np.zeros((3, 64, 128), np.uint8)}, r"must be \(n,M,H,W\)"),
        ({"controls": np.zeros((3, 0, 64, 128), np.uint8)}, r"must be \(n,M,H,W\)"),
        ({"controls": np.zeros((3, 1, 64, 128), np.uint8)}, "of the carry do not fit"),
        ({"controls": None}, "control maps or neither"),
        ({"prompts": ("one",)}, "1 prompts for 3 frames"),
        ({"matched": matched(3)}, r"flows \(2, 3, .* do not fit 5 frames of 128x64"),
        ({"matched": matched(5, salient=3)}, r"saliency \(3, 32, 64\) does not fit 5 frames"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check(replace(batch(3, 0), **change), carry())  # type: ignore[arg-type]
