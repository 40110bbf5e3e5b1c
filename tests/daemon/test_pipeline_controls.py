"""Clips that come with control maps of their own, through the whole pipeline."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from daemon.jobs import Job, Outcome
from io_pipeline.control_source import ControlFile
from tests.daemon.rig import Rig
from tests.daemon.test_pipeline import read_frames


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def with_maps(rig: Rig, kind: str = "canny", count: int = 18) -> Job:
    """A clip, and beside it a folder of maps: the brighter the later."""
    folder = rig.folder / f"a.{kind}"
    folder.mkdir()
    for number in range(count):
        cv2.imwrite(str(folder / f"{number}.png"), np.full((64, 96), 10 * number, np.uint8))
    return replace(rig.job(), control_files=(ControlFile(kind, folder),))


def test_they_take_the_place_of_what_would_be_drawn(rig: Rig) -> None:
    (result,) = rig.run(with_maps(rig))
    assert result.outcome is Outcome.DONE, result.reason
    assert not rig.events("map")
    held = [number - number % 4 for number in range(17)] + [17]  # of the last key frame
    for number, frame in enumerate(read_frames(result.folder / "comparison.mp4")):
        _, control, _ = np.split(frame.astype(int), 3, axis=1)
        assert abs(np.median(control) - 10 * held[number]) < 6


def test_of_another_number_they_are_refused_before_anything_is_made(rig: Rig) -> None:
    (result,) = rig.run(with_maps(rig, count=17))
    assert result.outcome is Outcome.FAILED
    assert "a.canny: 17 control maps for a clip of 18 frames" in result.reason
    assert not rig.events("translate")


def test_those_of_no_controlnet_are_told_of(rig: Rig) -> None:
    (result,) = rig.run(with_maps(rig, "depth"))
    assert result.outcome is Outcome.DONE, result.reason
    assert rig.events("map")
    (warning,) = [text for text in rig.manifest()["warnings"] if "seen" not in text]
    assert warning.endswith("a.depth: is not used: control.type is canny")
