"""Where LoRAs and embeddings are: one file each, by its path, in a folder or on the hub.

Needs no torch. Both are named with something beside: ``owner/lora:0.8`` a weight, ``word=file.pt``
the word that stands for an embedding in prompts.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fresco_core import hub
from fresco_core.checkpoint import PICKLES, file_names, tensor_shapes
from fresco_core.errors import ModelsError

LARGEST_WEIGHT = 10.0  # of a LoRA; far beyond what leaves a picture


@dataclass(frozen=True)
class FileKind:
    """What one kind of single file is called.

    Attributes:
        title: in messages.
        suffixes: of files that are read.
        usual: which of several files in one folder is meant.
    """

    title: str
    suffixes: tuple[str, ...]
    usual: tuple[str, ...]

    def choose(self, names: Sequence[str], folder: str) -> str:
        """The one file among a folder's names that is meant.

        Raises:
            ModelsError: there is none, or there are several.
        """
        found = [name for name in names if "/" not in name and Path(name).suffix in self.suffixes]
        for name in self.usual:
            if name in found:
                return name
        if len(found) == 1:
            return found[0]
        if not found:
            pickles = any(Path(name).suffix in PICKLES for name in names)
            reason = " (pickled weights are not opened)" if pickles else ""
            wanted = " or ".join(self.suffixes)
            raise ModelsError(f"{self.title} {folder} has no {wanted} file{reason}: name another")
        raise ModelsError(
            f"{self.title} {folder} has {len(found)} files ({', '.join(sorted(found)[:3])}, …): "
            f"name one of them, as {folder}/{sorted(found)[0]}"
        )


LORA = FileKind("LoRA", (".safetensors",), ("pytorch_lora_weights.safetensors",))
EMBEDDING = FileKind(
    "embedding",
    (".safetensors", ".pt", ".bin"),
    ("learned_embeds.safetensors", "learned_embeds.bin"),
)


@dataclass(frozen=True)
class LoraSource:
    """A LoRA as a setting names it: file, folder or hub id; how strongly it works."""

    source: str
    weight: float = 1.0

    @classmethod
    def parse(cls, text: str) -> "LoraSource":
        """Read ``source`` or ``source:weight``.

        Raises:
            ModelsError: what follows the last colon is no weight.
        """
        source, colon, number = text.rpartition(":")
        if not colon or Path(text).expanduser().exists():
            return cls(text)
        try:
            weight = float(number)
        except ValueError:
            weight = math.nan
        if not source or not abs(weight) <= LARGEST_WEIGHT:
            raise ModelsError(
                f"LoRA {text}: {number!r} is no weight between -{LARGEST_WEIGHT:g} and "
                f"{LARGEST_WEIGHT:g}: write it as {source or 'file'}:0.8"
            )
        return cls(source, weight)


@dataclass(frozen=True)
class EmbeddingSource:
    """An embedding as a setting names it: file, folder or hub id; its word, or None for its own."""

    source: str
    word: str | None = None

    @classmethod
    def parse(cls, text: str) -> "EmbeddingSource":
        """Read ``source`` or ``word=source``.

        Raises:
            ModelsError: the word is empty or has blanks in it.
        """
        word, equals, source = text.partition("=")
        if not equals or Path(text).expanduser().exists():
            return cls(text)
        if not source or not word or re.search(r"\s", word):
            raise ModelsError(f"embedding {text}: write it as word=file, the word without blanks")
        return cls(source, word)


def locate_file(source: str, kind: FileKind, offline: bool) -> Path:
    """The file that a path, a folder or a hub id names; what the cache lacks is downloaded.

    Raises:
        ModelsError: it is not there, or damaged; the message names the remedy.
    """
    place = Path(source).expanduser()
    if place.is_file():
        return _whole(place, kind)
    if place.is_dir():
        return _whole(place / kind.choose(file_names(place), str(place)), kind)
    repository, name = _on_hub(source, kind)
    if (cached := hub.cached_folder(repository)) is not None:
        names = file_names(cached)
        if name in names if name else _has_any(names, kind):
            return _whole(cached / (name or kind.choose(names, source)), kind)
    if offline:
        raise ModelsError(f"{kind.title} {source} {hub.absence(source)}: {hub.PULL}")
    return fetch_file(source, kind)


def fetch_file(source: str, kind: FileKind) -> Path:
    """Bring the file that a hub id names up to date in the hub's cache; a local one is left alone.

    Raises:
        ModelsError: it cannot be had.
    """
    if Path(source).expanduser().exists():
        return locate_file(source, kind, offline=True)
    repository, wanted = _on_hub(source, kind)
    chosen: list[str] = []

    def choose(names: list[str]) -> list[str]:
        if wanted and wanted not in names:
            raise ModelsError(f"the hub's {repository} has no {wanted}")
        chosen.append(wanted or kind.choose(names, source))
        return chosen

    folder = hub.fetch_folder(repository, choose)
    return _whole(folder / chosen[0], kind)


def _on_hub(source: str, kind: FileKind) -> tuple[str, str | None]:
    """Repository and file of a hub id; None for whichever file there is."""
    parts = re.fullmatch(r"([^/]+/[^/]+)/(.+)", source)
    if parts and hub.is_hub_id(parts[1]) and Path(source).suffix in kind.suffixes:
        return parts[1], parts[2]
    if hub.is_hub_id(source):
        return source, None
    raise ModelsError(
        f"{kind.title} {source} not found: give a {kind.suffixes[0]} file, a folder, or a hub id "
        f"for `{hub.PULL_COMMAND}`"
    )


def _has_any(names: Sequence[str], kind: FileKind) -> bool:
    return any("/" not in name and Path(name).suffix in kind.suffixes for name in names)


def _whole(path: Path, kind: FileKind) -> Path:
    if path.suffix == ".safetensors" or path.suffix not in kind.suffixes:
        tensor_shapes(path)
    return path
