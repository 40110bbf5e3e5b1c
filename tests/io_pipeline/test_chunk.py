"""A chunk stands for itself: its bytes follow from its frames and how they are encoded."""

import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from fresco_core.errors import FrescodError
from io_pipeline import chunk
from io_pipeline.chunk import ChunkWriter, Picture
from io_pipeline.colour import Colour
from tests.io_pipeline.media import decode, difference, picture

STEADY = Picture(64, 48, Colour(6, 2, 2, False), None, Fraction(24), True, 18, "veryfast")


def write(path: Path, how: Picture, numbers: range) -> Path:
    with ChunkWriter(path, how) as writer:
        for number in numbers:
            writer.write(picture(number, how.width, how.height))
    return path


@pytest.mark.parametrize("count", [1, 2, 3, 31])
@pytest.mark.parametrize("size", [(64, 48), (63, 47), (1, 1)])
@pytest.mark.parametrize("steady", [True, False])
def test_frames_in_order(tmp_path: Path, count: int, size: tuple[int, int], steady: bool) -> None:
    how = replace(STEADY, width=size[0], height=size[1], steady=steady)
    frames = decode(write(tmp_path / "a.mp4", how, range(count)))
    assert len(frames) == count
    for number, frame in enumerate(frames):
        assert difference(frame, picture(number, *size)) < 4


def test_it_starts_anew_and_stays_by_itself(tmp_path: Path) -> None:
    write(tmp_path / "a.mp4", STEADY, range(31))
    with av.open(str(tmp_path / "a.mp4")) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    assert [packet.is_keyframe for packet in packets] == [True] + 30 * [False]
    assert packets[0].pts == min(packet.pts for packet in packets)


def test_the_same_frames_give_the_same_bytes_in_another_process(tmp_path: Path) -> None:
    mine = write(tmp_path / "a.mp4", STEADY, range(5, 25)).read_bytes()
    code = (
        "from pathlib import Path; from tests.io_pipeline.test_chunk import *;"
        f"write(Path({str(tmp_path / 'b.mp4')!r}), STEADY, range(5, 25))"
    )
    root = Path(__file__).resolve().parents[2]
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True)
    assert (tmp_path / "b.mp4").read_bytes() == mine


def test_the_same_frames_give_the_same_bytes_time_and_again(tmp_path: Path) -> None:
    """Some of x264's machine code goes by what happens to lie in memory."""
    how = replace(STEADY, width=96, height=64, preset="medium")
    random = np.random.default_rng(0)
    made, held = set(), []
    for _ in range(60):
        held.append(bytes(random.integers(1, 1 << 17)))
        made.add(write(tmp_path / "a.mp4", how, range(18)).read_bytes())
    assert len(made) == 1


@pytest.mark.parametrize(
    ("flags", "options"), [(" avx512f ", {"x264-params": "asm=AVX2"}), (" avx2 ", {}), (None, {})]
)
def test_machine_code_of_512_bits_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str | None, options: dict[str, str]
) -> None:
    told = tmp_path / "cpuinfo"
    if flags is not None:
        told.write_text(f"flags : sse2{flags}bmi1")
    monkeypatch.setattr(chunk, "_CPU", told)
    assert chunk._same_bytes() == options


def test_what_keeps_bytes_the_same_is_told_the_encoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunk, "SAME_BYTES", {"x264-params": "keyint=1"})
    with av.open(str(write(tmp_path / "a.mp4", STEADY, range(7)))) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    assert [packet.is_keyframe for packet in packets] == 7 * [True]


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(FrescodError, match="cannot be written"):
        ChunkWriter(tmp_path / "none" / "a.mp4", STEADY)


def test_an_exception_passes_through(tmp_path: Path) -> None:
    writer = ChunkWriter(tmp_path / "a.mp4", STEADY)
    writer.write(picture(0, 64, 48))
    with pytest.raises(KeyError, match="mine"), writer:
        {}["mine"]
