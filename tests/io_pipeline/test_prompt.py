import os
from pathlib import Path

import pytest

from fresco_core.errors import ClipError
from io_pipeline.prompt import MAX_BYTES, Prompt, TimedText, parse_prompt, read_prompt


def read(tmp_path: Path, content: bytes) -> Prompt:
    file = tmp_path / "clip.txt"
    file.write_bytes(content)
    return read_prompt(file)


@pytest.mark.parametrize(
    ("content", "positive", "negative"),
    [
        (b"a red car", "a red car", None),
        (b"  a red car \r\n", "a red car", None),
        (b"a red car,\nsnow\n", "a red car, snow", None),
        (b"\xef\xbb\xbfa red car", "a red car", None),
        ("über Straße, 雪".encode(), "über Straße, 雪", None),
        (b"a car\nNegative prompt: rain", "a car", "rain"),
        (b"a car\r\nNegative prompt: rain,\r\nfog\r\n", "a car", "rain, fog"),
        (b"a car\nnegative PROMPT:rain", "a car", "rain"),
        (b"a car\nNegative prompt:", "a car", ""),
        (b"a car\nNegative prompt: a\nNegative prompt: b", "a car", "a Negative prompt: b"),
        (b"no Negative prompt: here", "no Negative prompt: here", None),
    ],
)
def test_read(tmp_path: Path, content: bytes, positive: str, negative: str | None) -> None:
    assert read(tmp_path, content) == Prompt(positive, negative)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b" \n\t", "is empty"),
        (b"\xef\xbb\xbf\n", "is empty"),
        (b"Negative prompt: rain", "is empty"),
        (b"caf\xe9", "not UTF-8"),
        ("a car".encode("utf-16"), "not UTF-8"),
        (b"a\0b", "NUL"),
        (b"x" * (MAX_BYTES + 1), "larger than 1 MB"),
    ],
)
def test_refused_with_reason(tmp_path: Path, content: bytes, reason: str) -> None:
    with pytest.raises(ClipError, match=reason) as error:
        read(tmp_path, content)
    assert "clip.txt" in str(error.value)
    assert "\n" not in str(error.value)


def test_largest_prompt_is_read(tmp_path: Path) -> None:
    assert len(read(tmp_path, b"x" * MAX_BYTES).positive) == MAX_BYTES


def test_absent_file(tmp_path: Path) -> None:
    with pytest.raises(ClipError, match=r"absent\.txt: prompt cannot be read: No such file"):
        read_prompt(tmp_path / "absent.txt")


def test_name_with_odd_bytes(tmp_path: Path) -> None:
    file = tmp_path / "a\udcff.txt"
    file.write_bytes(b"a car")
    assert read_prompt(file).positive == "a car"
    with pytest.raises(ClipError) as error:
        read_prompt(tmp_path / "b\udcff.txt")
    str(error.value).encode()  # can be shown


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.txt"
    os.mkfifo(pipe)
    for path in (pipe, tmp_path):
        with pytest.raises(ClipError, match="prompt cannot be read: it is no regular file"):
            read_prompt(path)


class TestByTime:
    @pytest.mark.parametrize(
        ("line", "timed"),
        [
            ("[0-90] dusk", TimedText(0, 90, "dusk")),
            ("  [ 0 - 90 ]  at   dusk ", TimedText(0, 90, "at dusk")),
            ("[91-] night", TimedText(91, None, "night")),
            ("[-90] dawn", TimedText(0, 90, "dawn")),
            ("[45]flash", TimedText(45, 45, "flash")),
            ("[7-7] flash", TimedText(7, 7, "flash")),
            ("[0\u201390] dusk", TimedText(0, 90, "dusk")),
            ("[3] [old] (car:1.2)", TimedText(3, 3, "[old] (car:1.2)")),
        ],
    )
    def test_frames(self, tmp_path: Path, line: str, timed: TimedText) -> None:
        read_back = read(tmp_path, f"a city,\n{line}\nsnow\nNegative prompt: rain".encode())
        assert read_back == Prompt("a city, snow", "rain", (timed,))

    @pytest.mark.parametrize("line", ["[old car] x", "a [0-90] b", "[v2] x", "[5 cars] x", "[] x"])
    def test_other_brackets_are_text(self, tmp_path: Path, line: str) -> None:
        assert read(tmp_path, line.encode()) == Prompt(line)

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            ("[0:90] dusk", r"\[0:90\]: frames are given as \[0-90\], \[91-\]"),
            ("[0-90-95] dusk", "frames are given as"),
            ("[0.5] dusk", "frames are given as"),
            (f"[{'9' * 5000}] dusk", "frames are given as"),
            ("[90-0] dusk", r"\[90-0\] ends before it begins"),
            ("a\n[0-90]\ndusk", r"\[0-90\] has no text"),
            ("a\nNegative prompt: b\n[0-90] c", r"\[0-90\] is about the negative prompt"),
        ],
    )
    def test_refused(self, tmp_path: Path, content: str, reason: str) -> None:
        with pytest.raises(ClipError, match=reason) as error:
            read(tmp_path, content.encode())
        assert "clip.txt: [" in str(error.value)
        assert len(str(error.value)) < 400 + len(str(tmp_path))

    def test_of_a_frame(self) -> None:
        day, flash, night = (
            TimedText(0, 90, "day"),
            TimedText(45, 45, "f"),
            TimedText(91, None, "n"),
        )
        prompt = Prompt("a city", timed=(day, flash, night))
        assert [prompt.at(frame) for frame in (0, 45, 90, 91, 10**6)] == [
            "a city, day",
            "a city, day, f",
            "a city, day",
            "a city, n",
            "a city, n",
        ]
        assert Prompt("a city").at(5) == "a city"

    def test_without_a_text_for_all(self, tmp_path: Path) -> None:
        prompt = read(tmp_path, b"[0-4] day\n[8-] night")
        assert prompt.at(4) == "day"
        assert prompt.at(8) == "night"
        with pytest.raises(ClipError, match="no text for frame 5"):
            prompt.at(5)
        prompt.check((0, 4, 8, 12), "a.txt")
        with pytest.raises(ClipError, match=r"^a\.txt: prompt has no text for frame 6"):
            prompt.check((0, 4, 6, 7), "a.txt")
        Prompt("a city", timed=prompt.timed).check((6,), "a.txt")


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("[0-90] dusk", ()),
        ("[30-] dusk", ()),
        ("[40-99] dusk", ()),
        ("[40] dusk", ()),
        ("[0-100] dusk", ("prompt: [0-100] goes beyond the clip's last frame, 99",)),
        ("[100-] dusk", ("prompt: [100-] goes beyond the clip's last frame, 99",)),
        ("[-500] dusk", ("prompt: [0-500] goes beyond the clip's last frame, 99",)),
        (
            "[41-79] dusk",
            ("prompt: [41-79] has no key frame and changes nothing: the nearest are 40 and 80",),
        ),
        (
            "[7] dusk",
            ("prompt: [7] has no key frame and changes nothing: the nearest are 0 and 40",),
        ),
        # That is not said of frames after the last one that is translated, as in a preview.
        ("[93-95] dusk", ()),
    ],
)
def test_what_does_nothing_is_told(line: str, found: tuple[str, ...]) -> None:
    prompt = parse_prompt(f"a road\n{line}".encode(), "a.txt")
    assert prompt.warnings((0, 40, 80, 90), 99) == found
