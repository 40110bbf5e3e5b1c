"""A clip written again has the same frames, times, rate, size, colours and sound."""

import errno
import io
import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
import pytest
from numpy.typing import NDArray

from fresco_core.errors import ClipError, FrescodError
from io_pipeline import sound
from io_pipeline.video import ClipReader, ClipWriter, scan_clip
from tests.io_pipeline.media import (
    NTSC,
    UNEVEN,
    decode,
    difference,
    make_clip,
    patch_error,
    patches,
    picture,
    probe,
    read,
    rewrite,
)

ROOT = Path(__file__).resolve().parents[2]


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

    def test_an_average_rate_of_a_long_fraction(self, tmp_path: Path) -> None:
        """Frames hidden by an edit list make the container's own average rate useless."""
        base = Fraction(1, 1_000_000_007)
        shown = [40_000_000 * number + number**2 for number in range(7)]
        path = make_clip(tmp_path / "a.mp4", times=[*range(-10, 0), *shown], time_base=base)
        info, _, result = rewrite(path)
        assert info.frame_rate.numerator > 2**31
        assert probe(result).times == probe(path).times == [time * base for time in shown]
        assert float(probe(result).rate) == pytest.approx(float(info.frame_rate), rel=1e-6)

    @pytest.mark.parametrize(
        "rate",
        [
            Fraction(29_989 * 90_000, 90_017_003),
            Fraction(10**15, 10**15 - 1),
            Fraction(2**40, 2**20 + 1),
            Fraction(1, 2**40),
        ],
    )
    def test_rates_the_encoder_cannot_be_told(self, tmp_path: Path, rate: Fraction) -> None:
        path = make_clip(tmp_path / "a.mp4", frames=3)
        info = replace(scan_clip(path), frame_rate=rate)
        with ClipReader(info) as reader, ClipWriter(tmp_path / "b.mp4", info) as writer:
            for frame in reader:
                writer.write(frame)
        assert probe(tmp_path / "b.mp4").times == probe(path).times

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

    def test_frames_hidden_by_an_edit_list(self, tmp_path: Path) -> None:
        path = make_clip(tmp_path / "a.mp4", times=range(-5, 20), sound=1)
        info, _, result = rewrite(path, sound_from=path)
        assert (info.frame_count, info.times[0], info.warnings) == (20, 0, ())
        before, after = probe(path), probe(result)
        assert (after.times, after.rate, after.sound) == (before.times, before.rate, before.sound)

    def test_a_clip_that_starts_before_zero_is_shifted_as_a_whole(self, tmp_path: Path) -> None:
        path = make_clip(tmp_path / "a.mp4", sound=1)
        info = scan_clip(path)
        early = 3 * info.times[1]
        shifted = replace(
            info, times=tuple(time - early for time in info.times), end=info.end - early
        )
        with (
            ClipReader(info) as reader,
            ClipWriter(tmp_path / "b.mp4", shifted, sound_from=path) as writer,
        ):
            for frame in reader:
                writer.write(frame)
        before, after = probe(path), probe(tmp_path / "b.mp4")
        assert after.times == before.times
        assert after.sound[0][0][0] - before.sound[0][0][0] == Fraction(3, 24)

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

    def test_sound_that_cannot_be_read_to_its_end(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = make_clip(tmp_path / "a.mp4", frames=48, sound=1)
        open_source = sound._open
        monkeypatch.setattr(sound, "_open", lambda source: _Breaking(open_source(source), after=9))
        _, writer, result = rewrite(path, sound_from=path)
        assert writer.warnings == [
            "the sound ends early: the rest cannot be read (Input/output error)"
        ]
        before, after = probe(path), probe(result)
        assert after.times == before.times
        assert after.sound == [before.sound[0][:9]]

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
        wide = replace(info, pixel_aspect=Fraction(4, 3))
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

    def test_no_sound_to_read(self, tmp_path: Path) -> None:
        info = scan_clip(make_clip(tmp_path / "a.mp4"))
        for name in ("none.mp4", "text.mp4"):
            (tmp_path / "text.mp4").write_text("Once upon a time")
            with pytest.raises(ClipError, match=f"{name}: its sound cannot be read"):
                ClipWriter(tmp_path / "b.mp4", info, sound_from=tmp_path / name)

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
        output = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout
        counted, seen, peak = map(int, output.split())
        assert counted == seen == frames
        peaks.append(peak)
    assert peaks[1] < 1.1 * peaks[0]


class _Breaking:
    """A container that fails after some packets, as on a bad disk."""

    def __init__(self, container: Any, after: int) -> None:
        self._container = container
        self._after = after

    def __getattr__(self, name: str) -> Any:
        return getattr(self._container, name)

    def __enter__(self) -> Any:
        return self._container

    def __exit__(self, *error: object) -> None:
        self._container.close()

    def demux(self, streams: Any) -> Iterator[Any]:
        yield from itertools.islice(self._container.demux(streams), self._after)
        raise av.error.OSError(errno.EIO, os.strerror(errno.EIO))


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
