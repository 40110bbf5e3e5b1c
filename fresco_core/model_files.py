"""Where the files of each model are: a folder, a single file, the hub."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fresco_core import hub
from fresco_core.adapter_files import (
    EMBEDDING,
    LORA,
    EmbeddingSource,
    FileKind,
    LoraSource,
    fetch_file,
    locate_file,
)
from fresco_core.checkpoint import PICKLES, file_names, tensor_shapes, weight_files
from fresco_core.errors import FrescodError, ModelsError

DEFAULT_BASE_CONFIG = "stable-diffusion-v1-5/stable-diffusion-v1-5"
SCHEDULER_CONFIG = "scheduler/scheduler_config.json"


@dataclass(frozen=True)
class Kind:
    """Which files make up one kind of model folder."""

    title: str
    components: tuple[str, ...]  # folders with config.json and weights; "" is the folder itself
    others: tuple[str, ...] = ()  # further files that are needed
    weights: bool = True

    def missing(self, names: Sequence[str]) -> list[str]:
        """What is lacking among a folder's file names."""
        lacking = [name for name in self.others if name not in names]
        if self.others and not _tokenizer_files(names):
            lacking.append("tokenizer/vocab.json")
        for component in self.components:
            if _join(component, "config.json") not in names:
                lacking.append(_join(component, "config.json"))
            if self.weights and not weight_files(names, component)[0]:
                pickles = [
                    name
                    for name in names
                    if Path(name).parent.as_posix() == (component or ".")
                    and Path(name).suffix in PICKLES
                ]
                lacking.append(
                    _join(component, "*.safetensors")
                    + (" (pickled weights are not opened)" if pickles else "")
                )
        return lacking

    def wanted(self, names: list[str]) -> list[str]:
        """The files to download among a repository's file names."""
        wanted = [name for name in self.others if name in names] + _tokenizer_files(names)
        for component in self.components:
            wanted.append(_join(component, "config.json"))
            wanted += weight_files(names, component)[0] if self.weights else []
        return wanted


BASE = Kind("base model", ("unet", "vae", "text_encoder"), ("model_index.json", SCHEDULER_CONFIG))
BASE_WITHOUT_VAE = Kind(
    "base model", ("unet", "text_encoder"), ("model_index.json", SCHEDULER_CONFIG)
)
BASE_CONFIG = Kind(
    "base model's configuration",
    BASE.components,
    ("model_index.json", SCHEDULER_CONFIG),
    weights=False,
)
VAE = Kind("VAE", ("",))
CONTROLNET = Kind("ControlNet", ("",))


def missing_models(
    base: str,
    *,
    vae: str | None = None,
    controlnets: Sequence[str] = (),
    loras: Sequence[str] = (),
    embeddings: Sequence[str] = (),
    base_config: str | None = None,
) -> list[str]:
    """What loading offline would find missing or damaged; one line each, with the remedy."""
    problems = []
    for source, kind in _base_sources(base, vae, controlnets, base_config):
        try:
            locate(source, kind, offline=True)
        except FrescodError as error:
            problems.append(str(error))
    for text, file_kind in _adapter_texts(loras, embeddings):
        try:
            locate_file(_adapter_source(text, file_kind), file_kind, offline=True)
        except FrescodError as error:
            problems.append(str(error))
    return problems


def fetch_models(
    base: str,
    *,
    vae: str | None = None,
    controlnets: Sequence[str] = (),
    loras: Sequence[str] = (),
    embeddings: Sequence[str] = (),
    base_config: str | None = None,
) -> None:
    """Download what loading offline would find missing in the hub's cache.

    Raises:
        ModelsError: the hub cannot be reached or has no such model; a local path is wrong.
    """
    for source, kind in _base_sources(base, vae, controlnets, base_config):
        locate(source, kind, offline=False)
    for text, file_kind in _adapter_texts(loras, embeddings):
        locate_file(_adapter_source(text, file_kind), file_kind, offline=False)


def pull_models(
    base: str,
    *,
    vae: str | None = None,
    controlnets: Sequence[str] = (),
    loras: Sequence[str] = (),
    embeddings: Sequence[str] = (),
    base_config: str | None = None,
) -> list[Path]:
    """Bring every model named by a hub id up to date in the hub's cache; only the files needed.

    Returns:
        Where each model lies, local ones included.

    Raises:
        ModelsError: the hub cannot be reached or has no such model; a local path is wrong.
    """
    places = [
        _fetch(source, kind) if _is_on_hub(source) else locate(source, kind, offline=True)
        for source, kind in _base_sources(base, vae, controlnets, base_config)
    ]
    return places + [
        fetch_file(_adapter_source(text, file_kind), file_kind)
        for text, file_kind in _adapter_texts(loras, embeddings)
    ]


def _base_sources(
    base: str, vae: str | None, controlnets: Sequence[str], base_config: str | None
) -> Iterator[tuple[str, Kind]]:
    yield base, BASE if vae is None else BASE_WITHOUT_VAE
    if Path(base).expanduser().is_file():
        yield base_config or DEFAULT_BASE_CONFIG, BASE_CONFIG
    if vae is not None:
        yield vae, VAE
    for controlnet in dict.fromkeys(controlnets):
        yield controlnet, CONTROLNET


def _adapter_texts(
    loras: Sequence[str], embeddings: Sequence[str]
) -> Iterator[tuple[str, FileKind]]:
    yield from ((text, LORA) for text in loras)
    yield from ((text, EMBEDDING) for text in embeddings)


def _adapter_source(text: str, kind: FileKind) -> str:
    parse = LoraSource.parse if kind is LORA else EmbeddingSource.parse
    return parse(text).source


def _is_on_hub(source: str) -> bool:
    return not Path(source).expanduser().exists() and hub.is_hub_id(source)


def locate(source: str, kind: Kind, offline: bool) -> Path:
    """Folder or file with all that is needed."""
    place = Path(source).expanduser()
    if place.is_file():
        tensor_shapes(place)
        return place
    if place.is_dir():
        return _complete(place, kind, "put the missing files there or name another model")
    if not hub.is_hub_id(source):
        raise ModelsError(
            f"{kind.title} {source} not found: give a folder, a .safetensors file, or a hub id "
            f"for `{hub.PULL_COMMAND}`"
        )
    cached = hub.cached_folder(source)
    if cached is not None and not kind.missing(file_names(cached)):
        return _complete(cached, kind, hub.PULL)
    if offline:
        raise ModelsError(f"{kind.title} {source} {hub.absence(source)}: {hub.PULL}")
    return _fetch(source, kind)


def _fetch(source: str, kind: Kind) -> Path:
    def choose(names: list[str]) -> list[str]:
        if missing := kind.missing(names):
            raise ModelsError(f"the hub's {source} has no {', '.join(missing)}")
        return kind.wanted(names)

    return _complete(hub.fetch_folder(source, choose), kind, hub.PULL)


def _complete(folder: Path, kind: Kind, remedy: str) -> Path:
    names = file_names(folder)
    if missing := kind.missing(names):
        raise ModelsError(f"{kind.title} {folder} lacks {', '.join(missing)}: {remedy}")
    for component in kind.components if kind.weights else ():
        for name in weight_files(names, component)[0]:
            if name.endswith(".safetensors"):
                tensor_shapes(folder / name)
    return folder


def _tokenizer_files(names: Sequence[str]) -> list[str]:
    """Files of the tokenizer; empty if they are not enough."""
    files = [name for name in names if name.startswith("tokenizer/")]
    plain = {"tokenizer/vocab.json", "tokenizer/merges.txt"}
    return files if "tokenizer/tokenizer.json" in files or plain <= set(files) else []


def _join(component: str, name: str) -> str:
    return f"{component}/{name}" if component else name
