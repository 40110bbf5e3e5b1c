"""What lies in a folder: which names are clips, which file belongs to which, in which order."""

import fnmatch
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from daemon.jobs import Job
from io_pipeline.control_source import VIDEO_SUFFIXES, ControlFile, control_name, meant
from io_pipeline.natural_order import natural_order

CLIP_SUFFIXES = VIDEO_SUFFIXES
PROMPT_SUFFIX = ".txt"
SETTINGS_SUFFIX = ".toml"


@dataclass(frozen=True)
class FolderScan:
    """What a run is given: pairs, clips without a prompt, and what looks like a clip only.

    ``without_clip``: control maps of no clip; ``misspelt``: what may have been meant as control
    maps of a clip, and the name that it would have then.
    """

    jobs: tuple[Job, ...]
    without_prompt: tuple[Path, ...]
    not_files: tuple[Path, ...]
    without_clip: tuple[Path, ...] = ()
    misspelt: tuple[tuple[Path, str], ...] = ()


def scan(
    clips: Path,
    prompts: Path,
    output: Path,
    *,
    prompt: Path | None = None,
    only: str | None = None,
) -> FolderScan:
    """Pair every clip in ``clips`` with the ``.txt`` of the same stem in ``prompts``.

    Clips come in natural order (``2`` before ``10``). Hidden files are left out; links are
    followed. ``<stem>.toml`` and control maps beside the clip go with it. A result folder is named
    by the clip's stem. Of several clips with one stem that goes to the clip that has it in
    ``output`` already, else to the first; the others' folders are named by their whole file names.

    Args:
        prompt: the prompt file of clips that have none of their own.
        only: the file name of the one clip that counts.

    Raises:
        OSError: a folder cannot be read.
    """
    prompt_files = _by_stem(prompts, PROMPT_SUFFIX)
    settings_files = _by_stem(clips, SETTINGS_SUFFIX)
    control_files = _control_files(clips)
    pairs: list[tuple[Path, Path]] = []
    without_prompt: list[Path] = []
    not_files: list[Path] = []
    stems = set()
    for path in _entries(clips, CLIP_SUFFIXES):
        if not path.is_file():  # a folder, a FIFO, a broken link
            not_files.append(path)
            continue
        if control_name(path.name):
            continue
        stems.add(composed(path.stem))
        prompt_file = _beside(path, prompt_files) or prompt
        if prompt_file is None:
            without_prompt.append(path)
            continue
        pairs.append((path, prompt_file))
    names = _result_names([path for path, _ in pairs], output)
    jobs = tuple(
        Job(
            *pair,
            name,
            settings_file=_beside(pair[0], settings_files),
            control_files=tuple(control_files.get(composed(pair[0].stem), ())),
        )
        for pair, name in zip(pairs, names, strict=True)
        if only in (None, pair[0].name)
    )
    if only is not None:  # the others only have a say in its name
        without_prompt = [path for path in without_prompt if path.name == only]
        not_files = [path for path in not_files if path.name == only]
    without_clip = [
        file.path
        for stem, files in control_files.items()
        if stem not in stems and only is None
        for file in files
    ]
    asked = stems if only is None else stems & {composed(Path(only).stem)}
    misspelt = tuple(_misspelt(clips, asked, prompt_files))
    return FolderScan(jobs, tuple(without_prompt), tuple(not_files), tuple(without_clip), misspelt)


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


def _by_stem(folder: Path, suffix: str) -> dict[str, list[Path]]:
    found = defaultdict(list)
    for path in _entries(folder, frozenset({suffix})):
        if path.is_file():
            found[composed(path.stem)].append(path)
    return found


def _control_files(folder: Path) -> dict[str, list[ControlFile]]:
    """Control maps by the composed stems of their clips, in natural order."""
    found = defaultdict(list)
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if control_of(entry.name)]
    for name in sorted(names, key=natural_order):
        path, what = folder / name, control_of(name)
        if what is None or is_hidden(name):
            continue
        if path.is_dir() if control_name(name) is None else path.is_file():
            stem, kind = what
            found[composed(stem)].append(ControlFile(kind, path))
    return found


def _misspelt(
    folder: Path, stems: Container[str], prompts: Container[str]
) -> Iterator[tuple[Path, str]]:
    """Names that are nearly those of control maps; a clip with a prompt of its own is a clip."""
    for name in sorted(os.listdir(folder), key=natural_order):
        as_video, as_folder = meant(name), meant(name, folder=True)
        found = as_video or as_folder
        if found is None or is_hidden(name) or composed(found[0]) not in stems:
            continue
        if composed(stem_of(name)) not in prompts if as_video else (folder / name).is_dir():
            yield folder / name, found[1]


def _beside(clip: Path, files: dict[str, list[Path]]) -> Path | None:
    found = {path.name: path for path in files.get(composed(clip.stem), ())}
    name = best_match(clip.stem, found)
    return None if name is None else found[name]


def _entries(folder: Path, suffixes: frozenset[str]) -> list[Path]:
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if suffix_of(entry.name) in suffixes]
    return [folder / name for name in sorted(names, key=natural_order) if not is_hidden(name)]


# --- names ---------------------------------------------------------------------------------------


def suffix_of(name: str) -> str:
    """The suffix in lower case, with its dot; "" where the name has none."""
    stem, dot, suffix = name.rpartition(".")
    return f".{suffix.lower()}" if stem and dot else ""


def stem_of(name: str) -> str:
    """The name without its suffix."""
    return name.rpartition(".")[0] or name


def control_of(name: str) -> tuple[str, str] | None:
    """The clip's stem and the kind of control maps that are a video, or a folder, of this name."""
    return control_name(name) or control_name(name, folder=True)


def is_clip(name: str) -> bool:
    """Whether a file of this name is a clip."""
    return suffix_of(name) in CLIP_SUFFIXES and control_name(name) is None


def composed(stem: str) -> str:
    """By which files find each other.

    Some systems store an accented letter as one character, others as two.
    """
    return stem if stem.isascii() else unicodedata.normalize("NFC", stem)


def best_match(stem: str, names: Iterable[str]) -> str | None:
    """Of names with an equal composed stem the one that belongs to a clip; None: there is none.

    That is one with exactly the clip's stem, where there is one; of several, the last.
    """
    return max(names, key=lambda name: (stem_of(name) == stem, natural_order(name)), default=None)


def is_hidden(name: str) -> bool:
    """Whether its name begins with a dot."""
    return name.startswith(".")


class Ignored:
    """Names that are left alone: hidden ones, and those that one of the patterns describes."""

    def __init__(self, patterns: Iterable[str]) -> None:
        # One expression: several patterns would be tried one by one, for thousands of names.
        self._pattern = re.compile("|".join(map(fnmatch.translate, patterns)) or r"(?!)")

    def __contains__(self, name: str) -> bool:
        return is_hidden(name) or self._pattern.match(name) is not None
