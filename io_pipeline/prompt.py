"""Prompt files: a positive prompt, texts for some of the frames, and a negative prompt.

Whatever has no special form is the positive prompt, of all frames. A line ``[0-90] dusk`` adds
"dusk" to it for frames 0 to 90, ``[91-] night`` from 91 on, ``[-90] dawn`` up to 90, ``[45] flash``
for that frame. Frames count from 0; both ends are included. After a line ``Negative prompt:`` comes
the negative one, which is the same for all frames.
"""

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fresco_core.errors import ClipError
from io_pipeline.regular_file import open_regular

MAX_BYTES = 1_000_000
NEGATIVE = "negative prompt:"
FORMS = "[0-90], [91-], [-90] or [45]"
# Dashes as keyboards have them, and as word processors make them of these.
_TIMED = re.compile(r"\[\s*([0-9]{0,12})\s*(?:([-\u2010-\u2014])\s*([0-9]{0,12})\s*)?\](.*)")
# Brackets with numbers alone are meant to be frames; with a word they are text.
_LIKE_TIMED = re.compile(r"\[[^\]\w]*[0-9](?:[0-9]|[^\]\w])*\]")


@dataclass(frozen=True)
class TimedText:
    """What is added to the prompt of the frames ``first`` to ``last``; None: to the clip's end."""

    first: int
    last: int | None
    text: str

    @property
    def frames(self) -> str:
        """As a prompt file has them.

        >>> [TimedText(*each, "dusk").frames for each in ((0, 90), (91, None), (4, 4))]
        ['[0-90]', '[91-]', '[4]']
        """
        if self.first == self.last:
            return f"[{self.first}]"
        return f"[{self.first}-{'' if self.last is None else self.last}]"

    def covers(self, frame: int) -> bool:
        """Whether it is said of this frame."""
        return self.first <= frame and (self.last is None or frame <= self.last)


@dataclass(frozen=True)
class Prompt:
    """What a clip is to look like.

    Attributes:
        positive: of all frames; may be empty where ``timed`` has a text for all that count.
        negative: None where the prompt file has none.
        timed: what is added for some frames, in the file's order.
    """

    positive: str
    negative: str | None = None
    timed: tuple[TimedText, ...] = ()

    def at(self, frame: int) -> str:
        """The positive prompt of a frame: that of all, and every text that covers it.

        Raises:
            ClipError: there is none.
        """
        texts = [self.positive, *(timed.text for timed in self.timed if timed.covers(frame))]
        joined = ", ".join(filter(None, texts))
        if not joined:
            raise ClipError(
                f"prompt has no text for frame {frame}: extend the frames of one, or add a line "
                "without frames, which is for all of them"
            )
        return joined

    def warnings(self, keys: Sequence[int], last: int) -> tuple[str, ...]:
        """What of ``timed`` does nothing, or reaches beyond the clip's ``last`` frame.

        ``keys``: the key frames, in order, up to the last that is translated.
        """
        found = []
        for timed in self.timed:
            if max(timed.first, timed.last or 0) > last:
                found.append(f"prompt: {timed.frames} goes beyond the clip's last frame, {last}")
            elif timed.first <= keys[-1] and not any(map(timed.covers, keys)):
                before = max(key for key in keys if key < timed.first)
                after = min(key for key in keys if key > timed.first)
                found.append(
                    f"prompt: {timed.frames} has no key frame and changes nothing: the nearest are "
                    f"{before} and {after}"
                )
        return tuple(found)

    def check(self, frames: Iterable[int], name: str) -> None:
        """Raise ClipError, which begins with ``name``, where one of these frames has no prompt."""
        for frame in frames if not self.positive else ():
            try:
                self.at(frame)
            except ClipError as error:
                raise ClipError(f"{name}: {error}") from None


def read_prompt(path: str | os.PathLike[str]) -> Prompt:
    """Read a prompt file.

    Raises:
        ClipError: it cannot be read, or not as `parse_prompt` wants it.
    """
    path = Path(path)
    name = os.fsencode(path).decode(errors="backslashreplace")
    try:
        with open_regular(path) as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ClipError(f"{name}: prompt cannot be read: {error.strerror}") from error
    return parse_prompt(content, name)


def parse_prompt(content: bytes, name: str) -> Prompt:
    """The content of a prompt file: UTF-8, with or without a byte-order mark.

    Line breaks within a prompt become blanks. A line that starts with ``Negative prompt:`` (in
    any case) begins the negative prompt. A text for some frames is one line. Messages begin with
    ``name``.

    Raises:
        ClipError: it is empty, too large or not text; frames are not given as they have to be.
    """
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
    timed: list[TimedText] = []
    for line in map(str.strip, text.splitlines()):
        if _LIKE_TIMED.match(line):
            if negative is not None:
                raise ClipError(
                    f"{name}: {_shown(line)} is about the negative prompt, which is one for all "
                    "frames: put it before `Negative prompt:`"
                )
            timed.append(_timed(line, name))
        elif negative is None and line.lower().startswith(NEGATIVE):
            negative = [line[len(NEGATIVE) :]]
        else:
            (positive if negative is None else negative).append(line)
    prompt = Prompt(
        _joined(positive), None if negative is None else _joined(negative), tuple(timed)
    )
    if not prompt.positive and not prompt.timed:
        raise ClipError(f"{name}: prompt is empty; write what the clip is to look like")
    return prompt


def _timed(line: str, name: str) -> TimedText:
    """A line that begins with frames."""
    found = _TIMED.fullmatch(line)
    first, dash, last, text = found.groups() if found is not None else ("", None, "", "")
    if not first and not last:
        raise ClipError(f"{name}: {_shown(line)}: frames are given as {FORMS}")
    if not text.strip():
        raise ClipError(f"{name}: {_shown(line)} has no text: write it on the same line")
    start = int(first or 0)
    end = int(last) if last else (None if dash else start)
    if end is not None and end < start:
        raise ClipError(f"{name}: {_shown(line)} ends before it begins: give the first frame first")
    return TimedText(start, end, _joined([text]))


def _shown(line: str) -> str:
    """The frames of a line."""
    shown, bracket, _ = line[:60].partition("]")
    return shown + bracket


def _joined(lines: list[str]) -> str:
    return " ".join(" ".join(lines).split())
