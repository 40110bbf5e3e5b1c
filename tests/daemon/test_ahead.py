"""What is found ahead, where shared memory has not room for all of it."""

from dataclasses import replace

import pytest

from daemon.ahead import fitting
from io_pipeline.window import Window


def window(interval: int) -> Window:
    """A later window of a wide clip that is to be matched and searched."""
    keys = tuple(interval * number for number in range(1, 7))
    return Window(1, 3, 0, keys, 768, 1344, 15, 1, False, matched=True, salient=True, searched=True)


# Flows between all frames are most of a window whose key frames are far apart, those between key
# frames are more where they are near.
FAR, NEAR = window(20), window(2)
BOTH, MATCHED, SEARCHED, NEITHER = (True, True), (True, False), (False, True), (False, False)


def nbytes(window: Window, found: tuple[bool, bool]) -> int:
    matched, searched = found
    return replace(window, matched=matched, searched=searched).layout().nbytes


def found(window: Window, most: int, *, matched: bool = True) -> tuple[bool, bool]:
    fits = fitting(window, most, matched=matched)
    assert replace(fits, matched=window.matched, searched=window.searched) == window
    return fits.matched, fits.searched


@pytest.mark.parametrize(
    ("window", "ways"),
    [(FAR, [BOTH, SEARCHED, MATCHED, NEITHER]), (NEAR, [BOTH, SEARCHED, NEITHER])],
)
def test_the_first_that_fits(window: Window, ways: list[tuple[bool, bool]]) -> None:
    for way, less in zip(ways, [*ways[1:], NEITHER], strict=True):
        assert found(window, nbytes(window, way)) == way
        assert found(window, nbytes(window, way) - 1) == less


def test_with_a_gpu_s_default_memory_a_wide_clip_is_matched() -> None:
    """Half of two GiB: not enough for flows between all frames, with or without."""
    assert nbytes(FAR, SEARCHED) > 1 << 30
    assert found(FAR, 1 << 30) == MATCHED


def test_what_is_translated_is_not_matched() -> None:
    assert found(FAR, 1 << 40, matched=False) == SEARCHED
    assert found(FAR, 1 << 30, matched=False) == NEITHER


def test_nothing_is_found_that_was_not_wanted() -> None:
    keys_alone = replace(FAR, matched=False, searched=False)
    assert found(keys_alone, 1 << 40) == NEITHER
