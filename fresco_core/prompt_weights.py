"""Weights of words in a prompt, written as users of Stable Diffusion's web interfaces write them.

``(word)`` is 1.1 times as strong, ``(word:1.3)`` 1.3 times, ``[word]`` 1.1 times weaker; brackets
within brackets multiply. A backslash before a bracket or a backslash makes it text, and so are
brackets without a counterpart. Needs no torch.
"""

import re
from dataclasses import dataclass

LIGHTEST, HEAVIEST = 0.0, 2.0  # beyond, nothing is left of a picture
STRONGER = 1.1
MOST_WARNINGS = 3
MOST_FRAGMENTS = 64  # those lighter than 1 cost a pass of the text encoder each

_MARKS = re.compile(
    r"\\([()\[\]\\])|(?P<open>[(\[])|(?P<close>[)\]])"
    r"|:\s*(?P<weight>[+-]?(?:\d+\.?\d*|\.\d+))\s*\)"
)
# At the end of a group: a colon and what looks as if it were to be a weight.
_MEANT = re.compile(r":(?:\S{1,20}|\s*[+-]?\d\S{0,20})$")


@dataclass(frozen=True)
class Fragment:
    """A piece of a prompt whose words weigh the same."""

    text: str
    weight: float = 1.0


def read_weights(prompt: str) -> tuple[Fragment, ...]:
    """Fragments of a prompt, in order; together they are its text without the marks.

    Weights are held within `LIGHTEST` and `HEAVIEST`; what follows the first `MOST_FRAGMENTS`
    weighs 1. A prompt without marks is one fragment.
    """
    pieces, groups, _ = _read(prompt)
    return _merged(pieces, _multiplied(groups, len(pieces)))


def weight_warnings(prompt: str) -> list[str]:
    """What in brackets was probably meant for a weight and does not count as one; a few of it."""
    return _read(prompt)[2][:MOST_WARNINGS]


def _read(prompt: str) -> tuple[list[str], dict[int, tuple[int, float]], list[str]]:
    """Pieces of text; groups of these by their first piece: end and factor; warnings."""
    warnings: list[str] = []
    pieces: list[str] = []
    opened: list[int] = []  # pieces that are an opening bracket, until it is closed
    waiting = {"(": 0, "[": 0}
    groups: dict[int, tuple[int, float]] = {}
    position = 0
    for mark in _MARKS.finditer(prompt):
        pieces.append(prompt[position : mark.start()])
        position = mark.end()
        if mark["open"]:
            opened.append(len(pieces))
            waiting[mark["open"]] += 1
            pieces.append(mark["open"])
            continue
        partner = "[" if mark["close"] == "]" else "("
        if mark[1] is not None or not waiting[partner]:
            pieces.append(mark[1] or mark[0])
            continue
        begin = opened.pop()
        while pieces[begin] != partner:  # one without a counterpart in between: text
            waiting[pieces[begin]] -= 1
            begin = opened.pop()
        waiting[partner] -= 1
        pieces[begin] = ""
        factor = 1 / STRONGER if partner == "[" else STRONGER
        groups[begin] = len(pieces), float(mark["weight"] or factor)
        if not LIGHTEST <= groups[begin][1] <= HEAVIEST:
            warnings.append(
                f"weight {mark['weight']} is not within {LIGHTEST:g} and {HEAVIEST:g}: the nearer "
                "of both counts"
            )
        elif mark["weight"] is None and (meant := _MEANT.search(pieces[-1])):
            warnings.append(f"{meant[0]!r} at the end of brackets is no weight: read as text")
    pieces.append(prompt[position:])
    return pieces, groups, warnings


def _multiplied(groups: dict[int, tuple[int, float]], count: int) -> list[float]:
    """Weights of pieces: groups are apart or within each other."""
    weights: list[float] = []
    around = [(count, 1.0)]
    for piece in range(count):
        while around[-1][0] <= piece:
            around.pop()
        if piece in groups:
            end, factor = groups[piece]
            weight = min(max(around[-1][1] * factor, LIGHTEST), HEAVIEST)
            around.append((end, weight))
        weights.append(round(around[-1][1], 4))
    return weights


def _merged(pieces: list[str], weights: list[float]) -> tuple[Fragment, ...]:
    merged: list[Fragment] = []
    for text, weight in zip(pieces, weights, strict=True):
        if not text:
            continue
        if merged and not text.strip():
            weight = merged[-1].weight
        if len(merged) >= MOST_FRAGMENTS:
            weight = 1.0
        if merged and merged[-1].weight == weight:
            merged[-1] = Fragment(merged[-1].text + text, weight)
        else:
            merged.append(Fragment(text, weight))
    return tuple(merged)
