"""Chunks joined are the clip in one piece: frames, times, rate, size, colours and sound."""

import itertools
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fresco_core.errors import ClipError, FrescodError
from io_pipeline.chunk import ChunkWriter, Picture
from io_pipeline.clip_info import ClipInfo
from io_pipeline.colour import Colour
from io_pipeline.join import join
from io_pipeline.video import scan_clip
from tests.io_pipeline.media import NTSC, decode, difference, make_clip, picture, probe


def clip_info(times: Sequence[int], size: tuple[int, int], base: Fraction) -> ClipInfo:
    """A clip that nobody has to decode."""
    steps = [after - before for before, after in itertools.pairwise(times)] or [1]
    end = times[-1] + steps[-1]
    return ClipInfo(
        path=Path("none.mp4"),
        width=size[0],
        height=size[1],
        frame_count=len(times),
        times=tuple(times),
        end=end,
        time_base=base,
        frame_rate=len(times) / ((end - times[0]) * base),
        rotation=0,
        mirrored=False,
        pixel_aspect=Fraction(1),
        colour=Colour(6, 2, 2, False),
        sound_tracks=0,
        codec="h264",
        pixel_format="yuv420p",
        engine="pyav",
        warnings=(),
    )


def joined(
    folder: Path, info: ClipInfo, cuts: Sequence[int], *, sound: bool = False, **how: object
) -> Path:
    """The clip of `picture`, cut before the frames of these numbers, joined again."""
    ends = [0, *cuts, info.frame_count]
    how = {"crf": 0, "preset": "veryfast"} | how
    chunks = []
    for first, last in itertools.pairwise(ends):
        chunks.append(folder / f"{len(cuts)}-{first}.chunk.mp4")
        with ChunkWriter(chunks[-1], Picture.of(info, **how)) as writer:  # type: ignore[arg-type]
            for number in range(first, last):
                writer.write(picture(number, info.width, info.height))
    result = folder / f"{len(cuts)}.mp4"
    join(result, chunks, info, sound_from=info.path if sound else None)
    return result


def same(one: Path, other: Path, *, frames: bool = True) -> None:
    """Two files show the same, at the same times."""
    assert probe(one) == probe(other)
    if frames:
        for mine, theirs in zip(decode(one), decode(other), strict=True):
            np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("cuts", [(1,), (39,), (13, 26), tuple(range(1, 40)), (31,)])
@pytest.mark.parametrize("rate", [Fraction(24), NTSC])
def test_any_cuts(tmp_path: Path, cuts: tuple[int, ...], rate: Fraction) -> None:
    info = scan_clip(make_clip(tmp_path / "a.mp4", frames=40, rate=rate, sound=2))
    result = joined(tmp_path, info, cuts, sound=True)
    same(result, joined(tmp_path, info, (), sound=True))
    before, after = probe(info.path), probe(result)
    assert (after.times, after.rate, after.sound) == (before.times, before.rate, before.sound)


def test_lossy_frames_stay_in_order(tmp_path: Path) -> None:
    info = scan_clip(make_clip(tmp_path / "a.mp4", frames=40))
    result = joined(tmp_path, info, (7, 8, 30), crf=18, preset="medium")
    for number, frame in enumerate(decode(result)):
        assert difference(frame, picture(number, 64, 64)) < 3


@settings(max_examples=40, deadline=None)
@given(
    steps=st.lists(st.integers(1, 9), min_size=0, max_size=24),
    even=st.booleans(),
    first=st.integers(-30, 30),
    size=st.sampled_from([(16, 16), (17, 15), (16, 9)]),
    data=st.data(),
)
def test_any_clip(
    steps: list[int], even: bool, first: int, size: tuple[int, int], data: st.DataObject
) -> None:
    """Steady or not, of any length and odd sizes too, before zero or after."""
    steps = [4] * len(steps) if even else steps
    times = list(itertools.accumulate(steps, initial=first))
    info = clip_info(times, size, Fraction(1, 100))
    places = st.lists(st.integers(1, max(1, len(times) - 1)), unique=True, max_size=len(steps))
    cuts = sorted(data.draw(places)) if steps else []
    with tempfile.TemporaryDirectory() as folder:
        result = joined(Path(folder), info, cuts)
        same(result, joined(Path(folder), info, ()))
        shift = max(0, -first)
        assert probe(result).times == [Fraction(time + shift, 100) for time in times]
        assert probe(result).rate == info.frame_rate


def test_decoding_times_rise_and_are_never_late(tmp_path: Path) -> None:
    info = scan_clip(make_clip(tmp_path / "a.mp4", frames=40))
    result = joined(tmp_path, info, (1, 2, 20), preset="medium", crf=18)
    with av.open(str(result)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    times = [packet.dts for packet in packets]
    assert sorted(set(times)) == times
    assert all(packet.dts <= packet.pts for packet in packets)
    assert any(packet.dts < packet.pts for packet in packets)


def test_pixel_aspect_and_colour_travel(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.mp4", frames=4, matrix=1)
    info = replace(scan_clip(path), pixel_aspect=Fraction(4, 3))
    after = scan_clip(joined(tmp_path, info, (2,)))
    assert after.pixel_aspect == Fraction(4, 3)
    assert after.colour.matrix == 1


def test_joining_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    info = scan_clip(make_clip(tmp_path / "a.mp4", frames=8, sound=1))
    once = joined(tmp_path, info, (3,), sound=True).read_bytes()
    assert joined(tmp_path, info, (3,), sound=True).read_bytes() == once


def test_chunks_of_another_encoding_are_refused(tmp_path: Path) -> None:
    info = clip_info([0, 1], (32, 32), Fraction(1, 24))
    for number, size in enumerate((32, 48)):
        with ChunkWriter(tmp_path / f"{number}.mp4", Picture.of(info, width=size)) as writer:
            writer.write(picture(0, 32, 32))
    chunks = [tmp_path / "0.mp4", tmp_path / "1.mp4"]
    with pytest.raises(FrescodError, match=r"1\.mp4: was encoded otherwise"):
        join(tmp_path / "out.mp4", chunks, info)


def test_missing_frames(tmp_path: Path) -> None:
    info = clip_info([0, 1, 2], (32, 32), Fraction(1, 24))
    with ChunkWriter(tmp_path / "0.mp4", Picture.of(info)) as writer:
        writer.write(picture(0, 32, 32))
    with pytest.raises(ValueError, match="1 of 3 frames"):
        join(tmp_path / "out.mp4", [tmp_path / "0.mp4"], info)


@pytest.mark.parametrize("content", [None, b"", b"Once upon a time"])
def test_a_chunk_that_cannot_be_read(tmp_path: Path, content: bytes | None) -> None:
    info = clip_info([0], (32, 32), Fraction(1, 24))
    if content is not None:
        (tmp_path / "0.mp4").write_bytes(content)
    with pytest.raises(FrescodError, match=r"0\.mp4: cannot be read .*--force"):
        join(tmp_path / "out.mp4", [tmp_path / "0.mp4"], info)


def test_sound_that_cannot_be_read(tmp_path: Path) -> None:
    info = clip_info([0], (32, 32), Fraction(1, 24))
    with ChunkWriter(tmp_path / "0.mp4", Picture.of(info)) as writer:
        writer.write(picture(0, 32, 32))
    with pytest.raises(ClipError, match="its sound cannot be read"):
        join(tmp_path / "out.mp4", [tmp_path / "0.mp4"], info, sound_from=tmp_path / "none.mp4")


def test_real_clips(clips_dir: Path, tmp_path: Path) -> None:
    clips = sorted(clips_dir.glob("*.mp4"))
    assert clips
    for clip in clips:
        info = scan_clip(clip)
        folder = tmp_path / clip.stem
        folder.mkdir()
        cuts = range(31, info.frame_count, 31)
        result = joined(folder, info, cuts, sound=True, crf=18, preset="ultrafast")
        before, after = probe(clip), probe(result)
        assert (after.times, after.rate, after.sound) == (before.times, before.rate, before.sound)
        assert (after.width, after.height) == (before.width, before.height)
