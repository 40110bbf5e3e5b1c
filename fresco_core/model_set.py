"""A set of models: where each lies, and that they fit together. Needs no torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fresco_core.adapter_checks import base_layers, check_embeddings, check_lora
from fresco_core.adapter_files import EMBEDDING, LORA, EmbeddingSource, LoraSource, locate_file
from fresco_core.architecture import check_base, check_controlnet, check_vae
from fresco_core.errors import ModelsError
from fresco_core.model_files import (
    BASE,
    BASE_CONFIG,
    BASE_WITHOUT_VAE,
    CONTROLNET,
    DEFAULT_BASE_CONFIG,
    VAE,
    locate,
)


@dataclass(frozen=True)
class ModelSet:
    """Models that fit together, as far as configurations and file headers tell.

    Attributes:
        base: folder or ``.safetensors`` file.
        config: folder with the base model's configurations and tokenizer.
        unet: the UNet's configuration.
        vae: folder or file of one that takes the place of the base model's own; None: none does.
        controlnets: folders or files.
        loras: file and weight of each.
        embeddings: file of each and the word that stands for it; None: the one in the file.
    """

    base: Path
    config: Path
    unet: dict[str, Any]
    vae: Path | None
    controlnets: tuple[Path, ...]
    loras: tuple[tuple[Path, float], ...]
    embeddings: tuple[tuple[Path, str | None], ...]


def find_models(
    base: str,
    *,
    vae: str | None = None,
    controlnets: Sequence[str] = (),
    loras: Sequence[str] = (),
    embeddings: Sequence[str] = (),
    base_config: str | None = None,
    offline: bool = False,
) -> ModelSet:
    """Find the models and refuse those that cannot work together, before any weights are read.

    Arguments and errors are those of `fresco_core.models.load_diffusion_models`.
    """
    base_place = locate(base, BASE if vae is None else BASE_WITHOUT_VAE, offline)
    if base_place.is_dir():
        config = base_place
    else:
        config = locate(base_config or DEFAULT_BASE_CONFIG, BASE_CONFIG, offline)
        if config.is_file():
            raise ModelsError(f"base_config {base_config} is a file: name a folder or a hub id")
    vae_place = None if vae is None else locate(vae, VAE, offline)
    controlnet_places = tuple(locate(source, CONTROLNET, offline) for source in controlnets)
    lora_places = tuple(
        (locate_file(lora.source, LORA, offline), lora.weight)
        for lora in map(LoraSource.parse, loras)
    )
    embedding_places = tuple(
        (locate_file(embedding.source, EMBEDDING, offline), embedding.word)
        for embedding in map(EmbeddingSource.parse, embeddings)
    )

    unet = check_base(base_place, config)
    if vae_place is not None and vae_place.is_dir():
        check_vae(vae_place / "config.json")
    for place in controlnet_places:
        check_controlnet(place, unet)
    layers = base_layers(base_place) if lora_places and base_place.is_dir() else None
    for place, _ in lora_places:
        check_lora(place, unet, layers)
    check_embeddings(embedding_places, unet)
    return ModelSet(
        base_place, config, unet, vae_place, controlnet_places, lora_places, embedding_places
    )


def check_models(
    base: str,
    *,
    vae: str | None = None,
    controlnets: Sequence[str] = (),
    loras: Sequence[str] = (),
    embeddings: Sequence[str] = (),
    base_config: str | None = None,
) -> None:
    """Refuse models that cannot work together; all of them must be on this machine.

    Raises:
        ModelsError: the first that does not fit, and why.
    """
    find_models(
        base,
        vae=vae,
        controlnets=controlnets,
        loras=loras,
        embeddings=embeddings,
        base_config=base_config,
        offline=True,
    )
