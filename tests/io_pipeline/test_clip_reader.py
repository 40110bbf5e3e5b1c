"""A clip is read frame by frame, without losing one; what is no clip is refused with a reason."""

import importlib.util
import os
import shutil
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from fresco_core.errors import ClipError, ConfigError
from io_pipeline import decord_engine
from io_pipeline.video import ClipReader, Engine, scan_clip
from tests.io_pipeline.media import (
    NTSC,
    UNEVEN,
    cut,
    difference,
    flip_bytes,
    make_clip,
    patches,
    picture,
    probe,
    read,
    rewrite,
    set_rotation,
)

needs_decord = pytest.mark.skipif(
    importlib.util.find_spec("decord") is None, reason="decord is not installed"
)


class TestScan:
    @pytest.mark.parametrize("frames", [1, 2, 3, 7, 50])
    def test_every_frame_is_counted(self, tmp_path: Path, frames: int) -> None:
        info = scan_clip(make_clip(tmp_path / "a.mp4", frames=frames))
        assert info.frame_count == len(info.times) == frames
        assert info.frame_rate == 24
        assert info.times[0] == 0
        assert (info.end - info.times[0]) * info.time_base == Fraction(frames, 24)
        assert info.warnings == ()

    @pytest.mark.parametrize("size", [(853, 479), (64, 64), (1, 1), (96, 160), (2, 7)])
    def test_sizes(self, tmp_path: Path, size: tuple[int, int]) -> None:
        path = make_clip(tmp_path / "a.mp4", width=size[0], height=size[1], frames=2)
        info = scan_clip(path)
        assert (info.width, info.height) == size
        assert [frame.shape for frame in read(path)] == [(size[1], size[0], 3)] * 2

    @pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
    def test_rational_rate(self, tmp_path: Path, suffix: str) -> None:
        info = scan_clip(make_clip(tmp_path / f"a{suffix}", frames=40, rate=NTSC))
        assert info.frame_rate == NTSC
        assert info.steady

    def test_uneven_times(self, tmp_path: Path) -> None:
        path = make_clip(tmp_path / "a.mp4", times=UNEVEN, time_base=Fraction(1, 600))
        info = scan_clip(path)
        assert [time * info.time_base for time in info.times] == [Fraction(t, 600) for t in UNEVEN]
        assert not info.steady

    def test_frames_are_shown_to_the_caller(self, tmp_path: Path) -> None:
        path = make_clip(tmp_path / "a.mp4", frames=9)
        seen: list[tuple[int, NDArray[np.uint8]]] = []
        scan_clip(path, on_frame=lambda number, frame: seen.append((number, frame)))
        assert [number for number, _ in seen] == list(range(9))
        for number, frame in seen:
            assert difference(frame, picture(number, 64, 64)) < 2.5

    def test_avi_with_b_frames_gets_rising_times(self, tmp_path: Path) -> None:
        info = scan_clip(make_clip(tmp_path / "a.avi", frames=30, rate=25))
        first = info.times[0]
        assert info.times == tuple(range(first, first + 30))
        assert info.frame_rate == 25
        assert any("put in order" in warning for warning in info.warnings)

    def test_names_of_any_kind(self, tmp_path: Path) -> None:
        made = make_clip(tmp_path / "plain.mp4", frames=3)
        names = [b'it\'s a "clip" %d.mp4', "ünïcødé 動画.mp4".encode(), b"-rf.mp4", b"\xff\xfe.mp4"]
        for name in names:
            path = tmp_path / os.fsdecode(name)
            shutil.copy(made, path)
            info, _, result = rewrite(path, sound_from=path)
            assert info.frame_count == len(probe(result).times) == 3


class TestRefused:
    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(ClipError, match=r"none\.mp4: cannot be read \(No such file"):
            scan_clip(tmp_path / "none.mp4")

    def test_no_video_at_all(self, tmp_path: Path) -> None:
        for name, content in {
            "text.mp4": b"Once upon a time\n" * 50,
            "list.mp4": b"#EXTM3U\n#EXTINF:1,\nother.mp4\n",
            "noise.mkv": bytes(range(256)) * 40,
        }.items():
            (tmp_path / name).write_bytes(content)
            with pytest.raises(ClipError, match=f"{name}: not a video"):
                scan_clip(tmp_path / name)

    def test_empty_file_and_folder(self, tmp_path: Path) -> None:
        (tmp_path / "a.mp4").touch()
        with pytest.raises(ClipError, match="the file is empty"):
            scan_clip(tmp_path / "a.mp4")
        with pytest.raises(ClipError, match="not a file"):
            scan_clip(tmp_path)

    def test_sound_only(self, tmp_path: Path) -> None:
        path = tmp_path / "a.mp4"
        with av.open(str(path), "w") as container:
            stream: Any = container.add_stream("aac", rate=48000)
            stream.codec_context.layout = "mono"
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.int16), "s16", "mono")
            frame.sample_rate = 48000
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        with pytest.raises(ClipError, match="no video stream"):
            scan_clip(path)

    @pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
    def test_flipped_bytes(self, tmp_path: Path, suffix: str) -> None:
        path = make_clip(tmp_path / f"a{suffix}", frames=40, width=160, height=120)
        # From PyAV 19 on, such an .avi is not opened at all.
        with pytest.raises(ClipError, match=r"damaged near frame|not a video that can be read"):
            scan_clip(flip_bytes(path))

    def test_unknown_codec(self, tmp_path: Path) -> None:
        path = make_clip(tmp_path / "a.mp4")
        path.write_bytes(path.read_bytes().replace(b"avc1", b"zzzz"))
        with pytest.raises(ClipError, match=r"a\.mp4: its codec is not known"):
            scan_clip(path)

    @pytest.mark.parametrize(
        ("side", "reason"),
        [(12000, r"12000x12000 is more .*limits\.max_pixels"), (16384, "far too large")],
    )
    def test_too_many_pixels_by_the_header(self, tmp_path: Path, side: int, reason: str) -> None:
        path = make_clip(
            tmp_path / "a.avi", codec="rawvideo", pixel_format="yuv420p", frames=1, width=80
        )
        data = bytearray(path.read_bytes())
        header = data.index(b"strf") + 8
        assert int.from_bytes(data[header + 4 : header + 8], "little") == 80
        data[header + 4 : header + 12] = side.to_bytes(4, "little") * 2
        path.write_bytes(data)
        with pytest.raises(ClipError, match=reason):
            scan_clip(path)

    def test_limit_is_what_the_caller_says(self, tmp_path: Path) -> None:
        path = make_clip(tmp_path / "a.mp4", frames=1)
        assert scan_clip(path, max_pixels=64 * 64).frame_count == 1
        with pytest.raises(ClipError, match="64x64 is more than the 4095"):
            scan_clip(path, max_pixels=64 * 64 - 1)


class TestCutShort:
    @pytest.mark.parametrize("suffix", [".mkv", ".avi"])
    def test_what_is_there_is_read(self, tmp_path: Path, suffix: str) -> None:
        path = cut(make_clip(tmp_path / f"a{suffix}", frames=60, width=160, height=120, b_frames=0))
        info = scan_clip(path)
        assert 15 < info.frame_count < 45
        assert any("cut short" in warning for warning in info.warnings)
        with ClipReader(info) as reader:
            frames = list(reader)
        assert len(frames) == info.frame_count
        for number, frame in enumerate(frames):
            assert difference(frame, picture(number, 160, 120)) < 3

    def test_index_in_front(self, tmp_path: Path) -> None:
        made = make_clip(tmp_path / "made.mp4", frames=60, width=160, height=120, sound=1)
        _, _, path = rewrite(made, sound_from=made)
        assert scan_clip(path).warnings == ()
        cut(path, 0.6)
        info, _, result = rewrite(path, sound_from=path)
        assert 20 < info.frame_count < 50
        assert f"{info.frame_count} frames of the 60" in info.warnings[-1]
        assert len(probe(result).times) == info.frame_count

    def test_index_lost(self, tmp_path: Path) -> None:
        with pytest.raises(ClipError, match="cut short: the index at its end is missing"):
            scan_clip(cut(make_clip(tmp_path / "a.mp4")))

    def test_refused_on_request(self, tmp_path: Path) -> None:
        path = cut(make_clip(tmp_path / "a.mkv", frames=60))
        with pytest.raises(ClipError, match="cut short"):
            scan_clip(path, on_truncated="fail")


class TestRotation:
    @pytest.mark.parametrize(("degrees", "turns"), [(90, -1), (180, 2), (270, 1)])
    def test_frames_are_upright(self, tmp_path: Path, degrees: int, turns: int) -> None:
        path = make_clip(tmp_path / "a.mp4", width=96, height=64, rotation=degrees, frames=3)
        info, _, result = rewrite(path)
        assert info.rotation == degrees
        assert (info.width, info.height) == ((64, 96) if degrees != 180 else (96, 64))
        for number, frame in enumerate(read(path)):
            assert difference(frame, np.rot90(picture(number, 96, 64), turns)) < 2.5
        again = scan_clip(result)
        assert (again.rotation, again.width, again.height) == (0, info.width, info.height)

    @pytest.mark.parametrize(("degrees", "turns"), [(0, 0), (90, -1), (270, 1)])
    def test_mirrored_frames(self, tmp_path: Path, degrees: int, turns: int) -> None:
        path = make_clip(tmp_path / "a.mp4", width=96, height=64, frames=1)
        set_rotation(path, degrees, mirrored=True)
        assert scan_clip(path).mirrored
        expected = np.rot90(picture(0, 96, 64)[:, ::-1], turns)
        assert difference(read(path)[0], expected) < 2.5


class TestEngines:
    @needs_decord
    @pytest.mark.parametrize(
        "arguments",
        [
            {"rate": NTSC},
            {"matrix": 1},
            {"times": UNEVEN, "time_base": Fraction(1, 600)},
            {"rotation": 90, "width": 96},
            {"pixel_format": "yuv420p10le"},
        ],
        ids=["plain", "BT.709", "uneven", "rotated", "10 bit"],
    )
    def test_decord_delivers_the_same_frames(
        self, tmp_path: Path, arguments: dict[str, Any]
    ) -> None:
        path = make_clip(tmp_path / "a.mp4", **arguments)
        info = scan_clip(path, engine="decord")
        assert (info.engine, info.warnings) == ("decord", ())
        for one, other in zip(ClipReader(info), read(path), strict=True):
            assert difference(one, other) < 2.5

    @pytest.mark.parametrize("engine", ["auto", "pyav"])
    def test_the_default_is_pyav(self, tmp_path: Path, engine: Engine) -> None:
        assert scan_clip(make_clip(tmp_path / "a.mp4"), engine=engine).engine == "pyav"

    @needs_decord
    def test_decord_is_not_trusted_with_a_cut_file(self, tmp_path: Path) -> None:
        info = scan_clip(cut(make_clip(tmp_path / "a.mkv", frames=60)), engine="decord")
        assert info.engine == "pyav"
        assert "read with PyAV" in info.warnings[-1]
        assert len(list(ClipReader(info))) == info.frame_count

    @needs_decord
    @pytest.mark.parametrize("other", [{"frames": 8}, {"rate": 25}, {"paint": patches}])
    def test_a_decoder_that_disagrees_is_not_taken(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: dict[str, Any]
    ) -> None:
        path = make_clip(tmp_path / "a.mp4")
        instead = make_clip(tmp_path / "b.mp4", **other)
        opened = decord_engine._open
        monkeypatch.setattr(decord_engine, "_open", lambda _, threads: opened(instead, threads))
        assert scan_clip(path, engine="decord").engine == "pyav"

    def test_without_decord(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = make_clip(tmp_path / "a.mp4")
        monkeypatch.setattr(decord_engine, "installed", lambda: False)
        assert scan_clip(path).engine == "pyav"
        with pytest.raises(ConfigError, match="install it or choose pyav"):
            scan_clip(path, engine="decord")

    def test_a_clip_that_shrank_after_the_scan(self, tmp_path: Path) -> None:
        path = make_clip(tmp_path / "a.mp4", frames=9)
        info = scan_clip(path, engine="pyav")
        make_clip(path, frames=5)
        with pytest.raises(ClipError, match="changed while it was read"):
            list(ClipReader(info))
