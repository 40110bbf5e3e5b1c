"""Prompt files: a positive prompt, and after a line ``Negative prompt:`` the negative one."""

import os
from dataclasses import dataclass
from pathlib import Path

from fresco_core.errors import ClipError
from io_pipeline.regular_file import open_regular

MAX_BYTES = 1_000_000
NEGATIVE = "negative prompt:"


@dataclass(frozen=True)
class Prompt:
    """What a clip is to look like. ``negative`` is None where the prompt file has none."""

    positive: str
    negative: str | None = None


def read_prompt(path: str | os.PathLike[str]) -> Prompt:
    """Read a prompt file: UTF-8, with or without a byte-order mark.

    Line breaks within a prompt become blanks. A line that starts with ``Negative prompt:`` (in
    any case) begins the negative prompt.

    Raises:
        ClipError: the file cannot be read, is empty, too large or not text.
    """
    path = Path(path)
    name = os.fsencode(path).decode(errors="backslashreplace")
    try:
        with open_regular(path) as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ClipError(f"{name}: prompt cannot be read: {error.strerror}") from error
    if len(content) > MAX_BYTES:
        raise ClipError(f"{name}: prompt is larger than 1 MB; is this the right file?")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ClipError(f"{name}: prompt is not UTF-8 text; save it as UTF-8") from None
    if "\0" in text:
        raise ClipError(f"{name}: prompt contains a NUL byte; save it as plain UTF-8 text")

    positive: list[str] = []
    negative: list[str] | None = None
    for line in text.splitlines():
        if negative is None and line.strip().lower().startswith(NEGATIVE):
            negative = [line.strip()[len(NEGATIVE) :]]
        else:
            (positive if negative is None else negative).append(line)
    prompt = Prompt(_joined(positive), None if negative is None else _joined(negative))
    if not prompt.positive:
        raise ClipError(f"{name}: prompt is empty; write what the clip is to look like")
    return prompt


def _joined(lines: list[str]) -> str:
    return " ".join(" ".join(lines).split())
