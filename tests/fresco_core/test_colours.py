import cv2
import numpy as np
import pytest

from fresco_core.colours import keep_colours


def picture(seed: int, low: int, high: int) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(low, high, (24, 32, 3), np.uint8)
    return cv2.GaussianBlur(noise, (5, 5), 0)


def lab(frame: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(frame.astype(np.float32) / 255, cv2.COLOR_RGB2LAB).reshape(-1, 3)


def test_none_of_them_changes_nothing() -> None:
    frames, inputs = picture(0, 0, 255)[None], picture(1, 0, 255)[None]
    assert keep_colours(frames, inputs, 0) is frames


@pytest.mark.parametrize("amount", [0.5, 1.0])
def test_means_and_spreads_move_towards_the_inputs(amount: float) -> None:
    frame, input_ = picture(0, 90, 150), picture(1, 60, 200)
    found = keep_colours(frame[None], input_[None], amount)[0]
    assert found.dtype == np.uint8
    for statistic in (np.mean, np.std):
        before, wanted = statistic(lab(frame), 0), statistic(lab(input_), 0)
        expected = before + amount * (wanted - before)
        assert np.allclose(statistic(lab(found), 0), expected, atol=0.35)


def test_each_frame_has_its_own_input() -> None:
    frames = np.stack([picture(0, 90, 150)] * 2)
    inputs = np.stack([picture(1, 0, 100), picture(2, 150, 255)])
    dark, bright = keep_colours(frames, inputs, 1.0)
    assert dark.mean() < frames.mean() < bright.mean()


def test_a_picture_of_one_colour_takes_the_inputs_mean() -> None:
    flat = np.full((1, 24, 32, 3), 100, np.uint8)
    found = keep_colours(flat, np.full_like(flat, 180), 1.0)
    assert np.abs(found.astype(int) - 180).max() <= 1
