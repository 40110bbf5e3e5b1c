"""A folder of clips and a folder of prompts -> jobs."""

import os
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from daemon.jobs import Job

CLIP_SUFFIXES = frozenset({".mp4", ".avi", ".mov", ".mkv"})


@dataclass(frozen=True)
class Inbox:
    """What lies in the folders: pairs, clips without a prompt, and what looks like a clip only."""

    jobs: tuple[Job, ...]
    without_prompt: tuple[Path, ...]
    not_files: tuple[Path, ...]


def scan(clips: Path, prompts: Path) -> Inbox:
    """Pair every clip in ``clips`` with the ``.txt`` of the same stem in ``prompts``.

    Clips come in natural order (``2`` before ``10``). Hidden files are left out; links are
    followed. Of two clips with one stem the second's result folder is named by its whole file name.

    Raises:
        OSError: a folder cannot be read.
    """
    prompt_files = _by_stem(prompts)
    jobs: list[Job] = []
    without_prompt: list[Path] = []
    not_files: list[Path] = []
    taken: set[str] = set()
    for path in _entries(clips, CLIP_SUFFIXES):
        if not path.is_file():  # a folder, a FIFO, a broken link
            not_files.append(path)
            continue
        prompt_file = prompt_files.get(path.stem) or prompt_files.get(_composed(path.stem))
        if prompt_file is None:
            without_prompt.append(path)
            continue
        name = path.name if path.stem in taken else path.stem
        taken.add(name)
        jobs.append(Job(path, prompt_file, name))
    return Inbox(tuple(jobs), tuple(without_prompt), tuple(not_files))


def _by_stem(folder: Path) -> dict[str, Path]:
    files = [path for path in _entries(folder, frozenset({".txt"})) if path.is_file()]
    # Some systems store an accented letter as one character, others as two: both find each other.
    return {_composed(path.stem): path for path in files} | {path.stem: path for path in files}


def _entries(folder: Path, suffixes: frozenset[str]) -> list[Path]:
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if not entry.name.startswith(".")]
    paths = [folder / name for name in names]
    return sorted(
        (path for path in paths if path.suffix.lower() in suffixes),
        key=lambda path: natural_order(path.name),
    )


def natural_order(name: str) -> tuple[list[int | str], str]:
    """Sort key in which numbers count by value, so that ``clip2`` comes before ``clip10``."""
    parts = re.split("([0-9]+)", name.casefold())
    # Text and numbers alternate, so a number is never compared with text.
    return [int(part) if index % 2 else part for index, part in enumerate(parts)], name


def _composed(stem: str) -> str:
    return unicodedata.normalize("NFC", stem)
