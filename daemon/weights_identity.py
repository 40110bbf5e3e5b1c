"""Which weights lie behind the names in the settings: a file may be exchanged in place."""

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from daemon.settings import Settings
from daemon.weights import detector_sources, model_sources
from fresco_core import hub
from fresco_core.adapter_files import EmbeddingSource, LoraSource
from fresco_core.flow.weights import FLOW
from fresco_core.model_files import DEFAULT_BASE_CONFIG
from fresco_core.saliency.weights import SALIENCY
from io_pipeline.control_maps import DEFAULT_SOURCE, find_detector


def weights_identity(settings: Settings) -> dict[str, str]:
    """One word for each of the weights that the settings name, by what it is for.

    It changes with names, sizes and times of local files, and with the commit of what the hub's
    cache has. Weights are not read; all of them must be on this machine.

    Raises:
        ModelsError: a file is missing, or not what it has to be.
    """
    return {title: _word(source) for title, source in _named(settings)}


def _named(settings: Settings) -> Iterator[tuple[str, str]]:
    sources = model_sources(settings)
    yield "base", sources["base"]
    if Path(sources["base"]).expanduser().is_file():
        yield "base_config", sources["base_config"] or DEFAULT_BASE_CONFIG
    if sources["vae"] is not None:
        yield "vae", sources["vae"]
    for i, source in enumerate(sources["controlnets"]):
        yield f"controlnet {i}", source
    for i, text in enumerate(sources["loras"]):
        yield f"lora {i}", LoraSource.parse(text).source
    for i, text in enumerate(sources["embeddings"]):
        yield f"embedding {i}", EmbeddingSource.parse(text).source
    detectors = zip(*detector_sources(settings).values(), strict=True)
    for i, (kind, source) in enumerate(detectors):
        if kind == "canny":
            continue
        if Path(source or DEFAULT_SOURCE).expanduser().exists():
            source = str(find_detector(kind, source, offline=True))  # its folder may hold others
        yield f"detector {i}", source or DEFAULT_SOURCE
    for family in (FLOW, SALIENCY):
        section = getattr(settings, family.purpose)
        if (path := family.choose(section.model, section.weights).weights) is not None:
            yield family.purpose, str(path)
    if settings.propagation.engine == "ebsynth":
        program = str(Path(settings.propagation.program).expanduser())
        yield "program", shutil.which(program) or program


def _word(source: str) -> str:
    place = Path(source).expanduser()
    if not place.exists():
        repository = "/".join(source.split("/")[:2])  # a LoRA's hub id may have a file behind it
        cached = hub.cached_folder(repository) if hub.is_hub_id(repository) else None
        return "" if cached is None else cached.name  # the commit
    files = sorted(place.rglob("*")) if place.is_dir() else [place]
    digest = hashlib.sha256()
    for file in files:
        if file.is_file():
            found = file.stat()
            name = file.relative_to(place).as_posix()
            digest.update(f"{name}\0{found.st_size}\0{found.st_mtime_ns}\0".encode())
    return digest.hexdigest()
