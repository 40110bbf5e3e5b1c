import time

import pytest

from fresco_core.prompt_weights import MOST_FRAGMENTS, MOST_WARNINGS, read_weights, weight_warnings


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a car", [("a car", 1)]),
        ("", []),
        ("a (red) car", [("a ", 1), ("red", 1.1), (" car", 1)]),
        ("a (red:1.4), [dull]", [("a ", 1), ("red", 1.4), (", ", 1), ("dull", 0.9091)]),
        ("(a: .5)", [("a", 0.5)]),
        ("((a) b:1.5) c", [("a", 1.65), (" b", 1.5), (" c", 1)]),
        ("[[a]]", [("a", 0.8264)]),
        ("(deformed, (x:1.2):1.4), y", [("deformed, ", 1.4), ("x", 1.68), (", y", 1)]),
        (r"a \(b\) \[c\] \\ \d", [(r"a (b) [c] \ \d", 1)]),
        ("(x:9) (y:-1)", [("x ", 2), ("y", 0)]),
        ("(" * 9 + "a" + ")" * 9, [("a", 2)]),
        # without a counterpart: text
        (":( sad, [a", [(":( sad, [a", 1)]),
        ("a) b] x:1.5)", [("a) b] x:1.5)", 1)]),
        ("(a [b) c", [("a [b", 1.1), (" c", 1)]),
        ("[a:2)]", [("a:2)", 0.9091)]),
        ("(a:abc)", [("a:abc", 1.1)]),
    ],
)
def test_brackets_weigh_words(prompt: str, expected: list[tuple[str, float]]) -> None:
    assert [(part.text, part.weight) for part in read_weights(prompt)] == expected


@pytest.mark.parametrize(
    ("prompt", "told"),
    [
        ("(a:1.3) (b:0), [c] (photo: a car) :-) 16:9", []),
        (r"\(a:99\) b:99)", []),
        ("(a:99)", ["weight 99 is"]),
        ("(a:-1) (ratio 16:9)", ["weight -1 is", "weight 9 is"]),
        ("(a:abc)", ["':abc' at"]),
        ("(a: 1,3)", ["': 1,3' at"]),
        ("[a:0.5]", ["':0.5' at"]),
        ("(a:x) " * 9, ["':x' at"] * MOST_WARNINGS),
    ],
)
def test_what_was_meant_for_a_weight_is_told(prompt: str, told: list[str]) -> None:
    found = weight_warnings(prompt)
    assert [text[: len(begin)] for text, begin in zip(found, told, strict=True)] == told


def test_only_so_many_fragments_have_weights_of_their_own() -> None:
    parts = read_weights("a (b:0.5) " * 1000)
    assert len(parts) == MOST_FRAGMENTS + 1
    assert parts[-1].weight == 1
    assert "".join(part.text for part in parts) == "a b " * 1000


@pytest.mark.parametrize(
    "prompt", ["(" * 8000 + "a" + ")" * 8000, "[(" * 8000, "[" * 8000 + ")" * 8000]
)
def test_no_prompt_takes_long_to_read(prompt: str) -> None:
    begin = time.monotonic()
    assert read_weights(prompt)
    assert time.monotonic() - begin < 2
