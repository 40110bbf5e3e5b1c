"""A folder of clips and a folder of prompts -> jobs."""

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
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


def scan(clips: Path, prompts: Path, output: Path) -> Inbox:
    """Pair every clip in ``clips`` with the ``.txt`` of the same stem in ``prompts``.

    Clips come in natural order (``2`` before ``10``). Hidden files are left out; links are
    followed. A result folder is named by the clip's stem. Of several clips with one stem that goes
    to the clip that has it in ``output`` already, else to the first; the others' folders are named
    by their whole file names.

    Raises:
        OSError: a folder cannot be read.
    """
    prompt_files = _by_stem(prompts)
    pairs: list[tuple[Path, Path]] = []
    without_prompt: list[Path] = []
    not_files: list[Path] = []
    for path in _entries(clips, CLIP_SUFFIXES):
        if not path.is_file():  # a folder, a FIFO, a broken link
            not_files.append(path)
            continue
        prompt_file = prompt_files.get(path.stem) or prompt_files.get(_composed(path.stem))
        if prompt_file is None:
            without_prompt.append(path)
            continue
        pairs.append((path, prompt_file))
    names = _result_names([path for path, _ in pairs], output)
    jobs = tuple(Job(*pair, name) for pair, name in zip(pairs, names, strict=True))
    return Inbox(jobs, tuple(without_prompt), tuple(not_files))


def _result_names(clips: Sequence[Path], output: Path) -> list[str]:
    files_of = defaultdict(list)
    for path in clips:
        files_of[path.stem].append(path.name)
    holder = {stem: _holder(output / stem) for stem, files in files_of.items() if len(files) > 1}
    names: dict[str, None] = {}  # in order
    for path in clips:
        held = holder.get(path.stem)
        others = held in files_of[path.stem] and held != path.name
        names[path.name if others or path.stem in names else path.stem] = None
    return list(names)


def _holder(folder: Path) -> str | None:
    """File name of the clip that a result was made from; None where there is no result."""
    from io_pipeline.publish import read_manifest  # imports OpenCV and PyAV

    clip = (read_manifest(folder) or {}).get("clip")
    file = clip.get("file") if isinstance(clip, dict) else None
    return file if isinstance(file, str) else None


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
