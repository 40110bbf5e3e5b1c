"""README.md names tests for every fault that something is promised for, and they are there."""

import ast
import re
from itertools import chain
from pathlib import Path

import pytest

HERE = Path(__file__).parent
README = (HERE / "README.md").read_text()

FAULTS = (
    "kill -9 of a GPU worker",
    "kill -9 of a CPU worker (prepare, propagate)",
    "kill -9 of the supervisor",
    "kill -9 of the whole process group",
    "power loss in mid-write",
    "crash between rename and `done`",
    "disk full in the output",
    "no memory for a block",
    "corrupt clip (flipped bits)",
    "truncated clip",
    "decoder hangs or aborts",
    "no video stream, zero frames, 1 frame, 1×1, 853×479, 16k×16k",  # noqa: RUF001
    "variable frame rate, rotation flag, 10-bit, odd sizes, no sound, two sound tracks",
    "file still being copied",
    "prompt arrives minutes after the clip",
    "empty prompt, 1 MB prompt, not UTF-8, NUL, byte-order mark",
    "missed inotify events, dead observer thread",
    "the same clip dropped twice; dropped again changed; renamed; deleted while queued; deleted while running",  # noqa: E501
    "unicode, spaces, quotes, newline, non-UTF-8 and 255-byte names; names that look like options or shell code",  # noqa: E501
    "symlink out of the inbox, FIFO, directory named `a.mp4`, `../x.toml` sidecar",
    "two daemons on one state folder",
    "configuration typo or value out of range",
    "SIGTERM once; twice",
    "clock set back a day",
    "CUDA out of memory",
    "GPU out of memory during propagation",
    "kill -9 of a GPU worker that propagates",
    "illegal memory access, Xid",
    "hung GPU step",
    "NaN or black frames",
    "model weights missing, wrong architecture, truncated file",
    "fewer GPUs than configured",
    "event loop blocked",
    "10,000 clips dropped at once",
    "CLI talks to a daemon that is gone, or belongs to someone else",
)


def rows() -> dict[str, list[str]]:
    """Faults, and the tests that are named for them."""
    cells = [line.strip("| ").split(" | ") for line in README.splitlines() if "::" in line]
    return {fault: re.findall(r"`([^`]+::[^`]+)`", tests) for fault, _, tests in cells}


def names(path: Path) -> set[str]:
    """Tests of a file, as pytest calls them."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}::{each.name}" for each in node.body if hasattr(each, "name")}
        elif isinstance(node, ast.FunctionDef):
            found.add(node.name)
    return found


@pytest.mark.parametrize("fault", FAULTS)
def test_has_tests(fault: str) -> None:
    assert rows()[fault]


def test_named_tests_exist() -> None:
    for test in chain.from_iterable(rows().values()):
        path, _, name = test.partition("::")
        assert name in names(HERE / path), test
