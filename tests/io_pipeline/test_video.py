"""Clips are read and written frame by frame, without losing a frame, a time or a sound packet."""

import importlib.util
import io
import os
import shutil
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from fresco_core.errors import ClipError, ConfigError, FrescodError
from io_pipeline import decord_engine
from io_pipeline.video import ClipInfo, ClipReader, ClipWriter, Engine, scan_clip
from tests.io_pipeline.media import (
    cut,
    decode,
    flip_bytes,
    make_clip,
    patches,
    picture,
    probe,
)

NTSC = Fraction(30000, 1001)
HAVE_DECORD = importlib.util.find_spec("decord") is not None
needs_decord = pytest.mark.skipif(not HAVE_DECORD, reason="decord is not installed")
UNEVEN = [0, 100, 150, 900, 1000, 1500, 1525]


def rewrite(path: Path, **arguments: Any) -> tuple[ClipInfo, ClipWriter, Path]:
    """Read a clip and write it again, untouched."""
    info = scan_clip(path)
    result = path.with_name(path.stem + "-again.mp4")
    with ClipReader(info) as reader, ClipWriter(result, info, **arguments) as writer:
        for frame in reader:
            writer.write(frame)
    return info, writer, result


def read(path: Path, engine: Engine = "auto") -> list[NDArray[np.uint8]]:
    with ClipReader(scan_clip(path, engine=engine)) as reader:
        return list(reader)


def difference(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    return float(np.abs(one.astype(np.int16) - other).mean())


def patch_error(frame: NDArray[np.uint8]) -> float:
    """Mean difference from the four colours of :func:`patches`, away from their borders."""
    height, width = frame.shape[:2]
    error = np.abs(frame.astype(np.int16) - patches(0, width, height)).astype(float)
    rows = np.r_[8 : height // 2 - 8, height // 2 + 8 : height - 8]
    columns = np.r_[8 : width // 2 - 8, width // 2 + 8 : width - 8]
    return float(error[np.ix_(rows, columns)].mean())


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
        with pytest.raises(ClipError, match="damaged near frame"):
            scan_clip(flip_bytes(path))

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


class TestColour:
    @pytest.mark.parametrize("full_range", [False, True])
    @pytest.mark.parametrize("matrix", [1, 6])
    def test_tags_are_respected_and_kept(
        self, tmp_path: Path, matrix: int, full_range: bool
    ) -> None:
        path = make_clip(
            tmp_path / "a.mp4", matrix=matrix, full_range=full_range, paint=patches, frames=3
        )
        for frame in read(path):
            assert patch_error(frame) <= 1
        _, _, result = rewrite(path)
        assert probe(result).matrix == matrix
        assert not probe(result).full_range
        for frame in read(result):
            assert patch_error(frame) <= 2

    @pytest.mark.parametrize(
        ("width", "height", "matrix"), [(64, 64, 6), (512, 896, 6), (1280, 720, 1), (720, 1280, 1)]
    )
    def test_untagged_is_judged_by_size(
        self, tmp_path: Path, width: int, height: int, matrix: int
    ) -> None:
        path = make_clip(tmp_path / "a.mp4", width=width, height=height, frames=1)
        info, _, result = rewrite(path)
        assert info.colour.matrix == matrix
        assert probe(result).matrix == matrix

    @pytest.mark.parametrize(
        ("name", "codec", "pixel_format"),
        [
            ("a.mp4", "libx264", "yuv420p10le"),
            ("a.mp4", "libx264", "yuv422p"),
            ("a.avi", "png", "rgb24"),
            ("a.avi", "mjpeg", "yuvj420p"),
        ],
    )
    def test_other_pixel_formats(
        self, tmp_path: Path, name: str, codec: str, pixel_format: str
    ) -> None:
        path = make_clip(
            tmp_path / name, codec=codec, pixel_format=pixel_format, paint=patches, frames=2
        )
        _, _, result = rewrite(path)
        assert probe(result).pixel_format == "yuv420p"
        for frame in [*read(path), *read(result)]:
            assert patch_error(frame) <= 2

    def test_smooth_pictures_survive_at_an_odd_size(self, tmp_path: Path) -> None:
        _, _, result = rewrite(make_clip(tmp_path / "a.mp4", width=853, height=479, frames=2))
        assert probe(result).pixel_format == "yuv444p"
        assert (probe(result).width, probe(result).height) == (853, 479)
        for number, frame in enumerate(read(result)):
            assert difference(frame, picture(number, 853, 479)) < 3


class TestEngines:
    @needs_decord
    @pytest.mark.parametrize(
        "arguments",
        [{"rate": NTSC}, {"matrix": 1}, {"times": UNEVEN, "time_base": Fraction(1, 600)}],
        ids=["plain", "BT.709", "uneven"],
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
    @pytest.mark.parametrize(
        "arguments",
        [{"rotation": 90}, {"pixel_format": "yuv420p10le"}, {"width": 853, "height": 479}],
        ids=["rotated", "10 bit", "4:4:4"],
    )
    def test_decord_is_not_trusted_with_others(
        self, tmp_path: Path, arguments: dict[str, Any]
    ) -> None:
        path = make_clip(tmp_path / "a.mp4", frames=3, **arguments)
        info = scan_clip(path, engine="decord")
        assert info.engine == "pyav"
        assert "read with PyAV" in info.warnings[-1]
        assert len(list(ClipReader(info))) == 3

    @needs_decord
    def test_decord_is_not_trusted_with_a_cut_file(self, tmp_path: Path) -> None:
        path = cut(make_clip(tmp_path / "a.mkv", frames=60))
        assert scan_clip(path, engine="decord").engine == "pyav"

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
        with pytest.raises(ConfigError, match="install decord or choose engine pyav"):
            scan_clip(path, engine="decord")

    def test_a_clip_that_shrank_after_the_scan(self, tmp_path: Path) -> None:
        path = make_clip(tmp_path / "a.mp4", frames=9)
        info = scan_clip(path, engine="pyav")
        make_clip(path, frames=5)
        with pytest.raises(ClipError, match="changed while it was read"):
            list(ClipReader(info))


class TestWriter:
    @pytest.mark.parametrize("frames", [1, 2, 3, 7, 60])
    def test_count_times_and_rate(self, tmp_path: Path, frames: int) -> None:
        path = make_clip(tmp_path / "a.mp4", frames=frames, rate=NTSC, sound=1)
        _, _, result = rewrite(path, sound_from=path)
        before, after = probe(path), probe(result)
        assert after.times == before.times == [number / NTSC for number in range(frames)]
        assert after.rate == NTSC
        assert after.sound == before.sound
        assert (after.codec, after.pixel_format) == ("h264", "yuv420p")

    @pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
    def test_uneven_times(self, tmp_path: Path, suffix: str) -> None:
        base = Fraction(1, 600 if suffix == ".mp4" else 1000)
        path = make_clip(tmp_path / f"a{suffix}", times=UNEVEN, time_base=base, sound=1)
        info, _, result = rewrite(path, sound_from=path)
        after = probe(result)
        assert after.times == probe(path).times == [time * base for time in UNEVEN]
        assert after.rate == info.frame_rate

    def test_frames_keep_their_order(self, tmp_path: Path) -> None:
        _, _, result = rewrite(make_clip(tmp_path / "a.mp4", frames=40))
        for number, frame in enumerate(read(result)):
            assert difference(frame, picture(number, 64, 64)) < 3
            assert difference(frame, picture(number + 1, 64, 64)) > 10

    def test_milliseconds_keep_the_rational_rate(self, tmp_path: Path) -> None:
        path = make_clip(tmp_path / "a.mkv", frames=50, rate=NTSC)
        _, _, result = rewrite(path)
        assert probe(result).times == probe(path).times
        assert probe(result).rate == NTSC

    def test_late_start_and_late_sound(self, tmp_path: Path) -> None:
        times = [37 + 100 * number for number in range(20)]
        path = make_clip(
            tmp_path / "a.mp4",
            times=times,
            time_base=Fraction(1, 2400),
            sound=1,
            sound_offset=0.25,
        )
        _, _, result = rewrite(path, sound_from=path)
        before, after = probe(path), probe(result)
        assert after.times == before.times
        assert before.sound[0][0][0] > Fraction(1, 5)
        assert after.sound == before.sound

    @pytest.mark.parametrize("tracks", [0, 1, 2])
    @pytest.mark.parametrize(
        ("suffix", "codec"),
        [(".mp4", "aac"), (".mkv", "libopus"), (".mkv", "ac3"), (".avi", "mp3")],
    )
    def test_sound_is_copied(self, tmp_path: Path, tracks: int, suffix: str, codec: str) -> None:
        path = make_clip(
            tmp_path / f"a{suffix}", frames=40, sound=tracks, sound_codec=codec, b_frames=0
        )
        info, writer, result = rewrite(path, sound_from=path)
        before, after = probe(path), probe(result)
        assert info.sound_tracks == len(after.sound) == tracks
        assert [[data for _, data in track] for track in after.sound] == [
            [data for _, data in track] for track in before.sound
        ]
        for track_before, track_after in zip(before.sound, after.sound, strict=True):
            for (one, _), (other, _) in zip(track_before, track_after, strict=True):
                assert abs(one - other) < Fraction(1, 10000)
        assert writer.warnings == []

    @pytest.mark.parametrize("suffix", [".mov", ".avi"])
    def test_sound_mp4_cannot_carry_is_encoded(self, tmp_path: Path, suffix: str) -> None:
        path = make_clip(tmp_path / f"a{suffix}", frames=48, sound=2, sound_codec="pcm_s16le")
        _, writer, result = rewrite(path, sound_from=path)
        assert [text.split(" was")[0] for text in writer.warnings] == [
            "sound track 1 (pcm_s16le)",
            "sound track 2 (pcm_s16le)",
        ]
        for before, after in zip(_sound(path), _sound(result), strict=True):
            length = min(len(before), len(after))
            assert length > 90_000
            assert float(np.abs(before[:length] - after[:length]).mean()) < 0.01

    def test_sound_is_interleaved(self, tmp_path: Path) -> None:
        path = make_clip(tmp_path / "a.mp4", frames=240, sound=1)
        _, _, result = rewrite(path, sound_from=path)
        with av.open(str(result)) as container:
            order = [packet.stream.type for packet in container.demux() if packet.size]
        quarter = len(order) // 4
        assert "audio" in order[:quarter]
        assert "video" in order[-quarter:]

    def test_index_stands_in_front(self, tmp_path: Path) -> None:
        _, _, result = rewrite(make_clip(tmp_path / "a.mp4"))
        data = result.read_bytes()
        assert data.index(b"moov") < data.index(b"mdat")

    def test_pixel_aspect(self, tmp_path: Path) -> None:
        path = make_clip(tmp_path / "a.mp4")
        info = scan_clip(path)
        wide = ClipInfo(**{**info.__dict__, "pixel_aspect": Fraction(4, 3)})
        with ClipReader(info) as reader, ClipWriter(tmp_path / "b.mp4", wide) as writer:
            for frame in reader:
                writer.write(frame)
        assert scan_clip(tmp_path / "b.mp4").pixel_aspect == Fraction(4, 3)

    @pytest.mark.parametrize("size", [(32, 32), (128, 192)])
    def test_frames_are_resized(self, tmp_path: Path, size: tuple[int, int]) -> None:
        info = scan_clip(make_clip(tmp_path / "a.mp4", frames=3))
        with ClipWriter(tmp_path / "b.mp4", info) as writer:
            for _ in range(3):
                writer.write(patches(0, *size))
        for frame in decode(tmp_path / "b.mp4"):
            assert frame.shape == (64, 64, 3)
            assert difference(frame, patches(0, 64, 64)) < 6

    def test_wrong_number_of_frames(self, tmp_path: Path) -> None:
        info = scan_clip(make_clip(tmp_path / "a.mp4", frames=2))
        frame = picture(0, 64, 64)
        with pytest.raises(ValueError, match="1 of 2"), ClipWriter(tmp_path / "b.mp4", info) as few:
            few.write(frame)
        with ClipWriter(tmp_path / "b.mp4", info) as many:
            many.write(frame)
            many.write(frame)
            with pytest.raises(ValueError, match="already written"):
                many.write(frame)

    def test_an_exception_passes_through(self, tmp_path: Path) -> None:
        info = scan_clip(make_clip(tmp_path / "a.mp4", sound=1))
        writer = ClipWriter(tmp_path / "b.mp4", info, sound_from=info.path)
        writer.write(picture(0, 64, 64))
        with pytest.raises(KeyError, match="mine"), writer:
            {}["mine"]

    def test_no_such_folder(self, tmp_path: Path) -> None:
        info = scan_clip(make_clip(tmp_path / "a.mp4"))
        with pytest.raises(FrescodError, match="cannot be written"):
            ClipWriter(tmp_path / "none" / "b.mp4", info)


def test_real_clips(clips_dir: Path, tmp_path: Path) -> None:
    clips = sorted(clips_dir.glob("*.mp4"))
    assert clips
    for clip in clips:
        info = scan_clip(clip)
        result = tmp_path / clip.name
        with (
            ClipReader(info) as reader,
            ClipWriter(result, info, sound_from=clip, preset="ultrafast") as writer,
        ):
            for frame in reader:
                writer.write(frame)
        before, after = probe(clip), probe(result)
        assert after.times == before.times
        assert (after.rate, after.width, after.height) == (before.rate, before.width, before.height)
        assert after.sound == before.sound
        with av.open(str(clip)) as one, av.open(str(result)) as other:
            pairs = zip(one.decode(video=0), other.decode(video=0), strict=True)
            for number, (old, new) in enumerate(pairs):
                if number % 20 == 0:
                    old_HWC, new_HWC = (
                        old.to_ndarray(format="rgb24"),
                        new.to_ndarray(format="rgb24"),
                    )
                    assert difference(old_HWC, new_HWC) < 4


_MEASURE = r"""
import re, sys
from pathlib import Path
from io_pipeline.video import ClipReader, ClipWriter, scan_clip
clip = Path(sys.argv[1])
seen = []
info = scan_clip(clip, on_frame=lambda number, frame: seen.append(number))
with ClipReader(info) as reader, ClipWriter(
    clip.with_suffix(".out.mp4"), info, sound_from=clip, preset="veryfast"
) as writer:
    for frame in reader:
        writer.write(frame)
# Not ru_maxrss: a process starts with its parent's.
peak = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
print(info.frame_count, len(seen), peak.group(1))
"""


def test_a_clip_ten_times_longer_needs_no_more_memory(tmp_path: Path) -> None:
    peaks = []
    for frames in (150, 1500):
        path = make_clip(tmp_path / f"{frames}.mkv", frames=frames, width=160, height=96, sound=1)
        command = [sys.executable, "-c", _MEASURE, str(path)]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        counted, seen, peak = map(int, output.split())
        assert counted == seen == frames
        peaks.append(peak)
    assert peaks[1] < 1.1 * peaks[0]


def _sound(path: Path) -> list[NDArray[np.float32]]:
    """Samples of every track, first channel, in -1..1."""
    data = io.BytesIO(path.read_bytes())
    tracks = []
    with av.open(data) as container:
        count = len(container.streams.audio)
    for track in range(count):
        resampler = av.AudioResampler(format="fltp", layout="stereo", rate=48000)
        data.seek(0)
        with av.open(data) as container:
            parts = [
                part.to_ndarray()[0]
                for frame in container.decode(audio=track)
                for part in resampler.resample(frame)
            ]
        tracks.append(np.concatenate(parts))
    return tracks
