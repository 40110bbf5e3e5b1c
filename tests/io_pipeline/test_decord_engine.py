"""decord without PyAV's decoder, for clips that PyAV hangs on."""

import importlib.util
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fresco_core.errors import ClipError
from io_pipeline import decord_engine
from io_pipeline.clip_source import ClipSource
from io_pipeline.video import ClipReader, scan_clip
from tests.io_pipeline.media import NTSC, UNEVEN, cut, difference, make_clip, read

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("decord") is None, reason="decord is not installed"
)


@pytest.fixture
def without_pyav(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyAV's decoder is a trap."""

    def hang(_: ClipSource) -> None:
        raise AssertionError("PyAV was asked to decode")

    monkeypatch.setattr(ClipSource, "frames", hang)


def by_decord(path: Path) -> Any:
    return scan_clip(path, engine="decord-only")


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("a.mp4", {"rate": NTSC, "frames": 40, "sound": 2}),
        ("a.mkv", {"rate": NTSC, "frames": 40}),
        ("a.mov", {"matrix": 1, "full_range": True}),
        ("a.mp4", {"times": UNEVEN, "time_base": Fraction(1, 600)}),
        ("a.mp4", {"pixel_format": "yuv420p10le"}),
        ("a.mp4", {"width": 853, "height": 479}),
        ("a.mp4", {"frames": 1}),
        ("a.mp4", {"rotation": 90, "width": 96}),
        ("a.mp4", {"rotation": 180, "width": 96}),
    ],
)
def test_learns_what_pyav_learns(tmp_path: Path, name: str, arguments: dict[str, Any]) -> None:
    path = make_clip(tmp_path / name, **arguments)
    expected, found = scan_clip(path), by_decord(path)
    warnings, rotation = found.warnings, expected.rotation
    assert len(warnings) == 1
    assert "decord alone" in warnings[0]
    if not expected.steady:  # how long an uneven clip's last frame lasts, it does not know
        found = replace(found, end=expected.end, frame_rate=expected.frame_rate)
    assert expected == replace(found, engine="pyav", warnings=(), rotation=rotation)
    for one, other in zip(ClipReader(found), read(path), strict=True):
        assert difference(one, other) < 2.5


@pytest.mark.usefixtures("without_pyav")
def test_decodes_nothing_with_pyav(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.mp4", frames=9)
    seen = []
    info = scan_clip(path, engine="decord-only", on_frame=lambda *frame: seen.append(frame))
    assert [number for number, _ in seen] == list(range(9))
    assert np.array_equal([frame for _, frame in seen], list(ClipReader(info)))


def test_times_that_it_does_not_know_follow_the_rate(tmp_path: Path) -> None:
    info = by_decord(make_clip(tmp_path / "a.avi", frames=30, rate=25))
    assert (info.frame_count, info.frame_rate) == (30, 25)
    assert np.diff(info.times).tolist() == [1] * 29
    assert any("frames without times" in warning for warning in info.warnings)


class TestRefused:
    def test_pictures_that_are_none(self, tmp_path: Path) -> None:
        with pytest.raises(ClipError, match=r"a\.mp4: decord cannot read it \(frame 0 is"):
            by_decord(make_clip(tmp_path / "a.mp4", width=1, height=1))

    def test_a_cut_clip(self, tmp_path: Path) -> None:
        with pytest.raises(ClipError, match="cut short, and PyAV cannot read it"):
            by_decord(cut(make_clip(tmp_path / "a.mkv", frames=60)))

    def test_too_many_pixels(self, tmp_path: Path) -> None:
        with pytest.raises(ClipError, match=r"limits\.max_pixels"):
            scan_clip(make_clip(tmp_path / "a.mp4"), engine="decord-only", max_pixels=4095)

    def test_a_decoder_that_fails(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(path: Path, threads: int) -> None:
            raise RuntimeError("no\nreason")

        monkeypatch.setattr(decord_engine, "_open", fail)
        with pytest.raises(ClipError, match=r"decord cannot read it \(no\); re-encode it"):
            by_decord(make_clip(tmp_path / "a.mp4"))

    def test_without_decord(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(decord_engine, "installed", lambda: False)
        with pytest.raises(ClipError, match="decord is not installed; re-encode it"):
            by_decord(make_clip(tmp_path / "a.mp4"))

    def test_another_number_of_frames_than_was_planned(self, tmp_path: Path) -> None:
        info = scan_clip(make_clip(tmp_path / "a.mp4", frames=9))
        make_clip(info.path, frames=10)
        with pytest.raises(ClipError, match="it finds 10 frames, not 9"):
            next(ClipReader(replace(info, engine="decord")))
