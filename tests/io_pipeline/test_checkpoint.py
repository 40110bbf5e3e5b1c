"""What a checkpoint gives back is what was saved, or an error that says what to do."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fresco_core.keyframes import Batch
from io_pipeline import checkpoint
from io_pipeline.checkpoint import CheckpointError
from io_pipeline.tasks import Translated
from io_pipeline.window import BY_CPU, Window
from tests.io_pipeline.publishing import filled, maps, shade

WINDOW = Window(1, 3, 4, (6, 7, 9), 64, 128, 2, 2, False)
TRANSLATED = Translated((Batch((6,), (0, 4)), Batch((7, 9), (0, 6))), ('a "ünïcødé"', "car"))


@pytest.fixture
def staging(tmp_path: Path) -> Path:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "windows").mkdir()
    return tmp_path


def saved(staging: Path, window: Window = WINDOW) -> Path:
    checkpoint.save(staging, window, filled(window), TRANSLATED, maps(window))
    return checkpoint.path(staging, window.index)


def test_what_is_saved_comes_back(staging: Path) -> None:
    arrays, translated = checkpoint.load(saved(staging))
    assert translated == TRANSLATED
    block = filled(WINDOW)
    kept = {"keys", "carry_latents", "carry_frames", "carry_controls", "previous_control"}
    assert set(arrays) == {*kept, "controls"}
    for name in kept:
        assert arrays[name].dtype == block[name].dtype
        np.testing.assert_array_equal(arrays[name], block[name])
    # Of the two maps of every key frame, the one that counted.
    assert arrays["controls"].shape == (3, 2, 64, 128)
    assert [int(map_HW.max()) for map_HW in arrays["controls"]] == [shade(6), shade(7), shade(9)]


def test_without_controlnet(staging: Path) -> None:
    arrays, _ = checkpoint.load(saved(staging, replace(WINDOW, controls=0)))
    assert set(arrays) == {"keys", "carry_latents", "carry_frames"}


@pytest.mark.parametrize("controls", [0, 1, 2])
def test_a_window_is_restored(staging: Path, controls: int) -> None:
    window = replace(WINDOW, controls=controls)
    saved(staging, window)
    block = {name: np.zeros_like(array) for name, array in filled(window).items()}
    assert checkpoint.restore(staging, window, block) == TRANSLATED
    np.testing.assert_array_equal(block["keys"], filled(window)["keys"])
    if controls:
        assert [int(map_HW.min()) for map_HW in block["controls"][BY_CPU]] == [
            shade(number) for number in (6, 7, 9)
        ]
        assert (block["previous_control"] == shade(4)).all()


def test_of_another_clip(staging: Path) -> None:
    saved(staging)
    for other in (replace(WINDOW, height=128), replace(WINDOW, controls=1)):
        with pytest.raises(CheckpointError, match="of another clip"):
            checkpoint.restore(staging, other, filled(other))


@pytest.mark.parametrize("part", [0.0, 0.001, 0.01, 0.5, 0.99])
def test_cut_short(staging: Path, part: float) -> None:
    file = saved(staging)
    assert checkpoint.is_complete(file)
    os.truncate(file, int(part * file.stat().st_size))
    assert not checkpoint.is_complete(file)
    with pytest.raises(CheckpointError, match=r"0001\.safetensors: (cannot be read|is damaged)"):
        checkpoint.load(file)


def test_flipped_bytes_never_pass(staging: Path) -> None:
    file = saved(staging)
    content = file.read_bytes()
    places = [0, 7, 8, 9, *range(10, len(content), len(content) // 60)]
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 0x10
        file.write_bytes(damaged)
        try:
            arrays, translated = checkpoint.load(file)
        except CheckpointError:
            continue
        # Some bytes of a header mean nothing, such as the blanks at its end.
        assert translated == TRANSLATED
        np.testing.assert_array_equal(arrays["keys"], filled(WINDOW)["keys"])


@pytest.mark.parametrize("content", [b"", b"\xff" * 7, b"\xff" * 100, b"\2" + b"\0" * 7 + b"[]"])
def test_no_checkpoint_at_all(staging: Path, content: bytes) -> None:
    file = checkpoint.path(staging, 1)
    assert not checkpoint.is_complete(file)
    file.write_bytes(content)
    assert not checkpoint.is_complete(file)
    with pytest.raises(CheckpointError, match=r"cannot be read|is damaged"):
        checkpoint.load(file)


class TestForgetting:
    """A long clip must not fill the disk."""

    def test_what_nothing_can_need_goes(self, staging: Path) -> None:
        first, second = replace(WINDOW, index=0), WINDOW
        saved(staging, first)
        (staging / "windows" / "0000").mkdir()
        checkpoint.forget(staging, 0)
        assert checkpoint.path(staging, 0).exists()  # the next window needs its carry
        saved(staging, second)
        assert not checkpoint.path(staging, 0).exists()

    def test_an_unpublished_window_keeps_its_key_frames(self, staging: Path) -> None:
        saved(staging, replace(WINDOW, index=0))
        saved(staging)
        assert checkpoint.path(staging, 0).exists()
        (staging / "windows" / "0000").mkdir()
        checkpoint.forget(staging, 0)
        assert not checkpoint.path(staging, 0).exists()
        assert checkpoint.path(staging, 1).exists()

    def test_a_successor_that_is_damaged_does_not_count(self, staging: Path) -> None:
        saved(staging, replace(WINDOW, index=0))
        (staging / "windows" / "0000").mkdir()
        os.truncate(saved(staging, replace(WINDOW, index=2)), 100)
        checkpoint.path(staging, 2).rename(checkpoint.path(staging, 1))
        checkpoint.forget(staging, 0)
        assert checkpoint.path(staging, 0).exists()
