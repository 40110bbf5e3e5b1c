import os
from pathlib import Path

import pytest

from fresco_core.errors import ClipError
from io_pipeline.prompt import MAX_BYTES, Prompt, read_prompt


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
