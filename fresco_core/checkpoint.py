"""What a model folder or a ``.safetensors`` file holds, told without loading it."""

import json
import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from fresco_core.errors import ModelsError

Shapes = dict[str, tuple[int, ...]]

_VARIANTS = ("", ".fp16")
_SHARD = r"-\d+-of-\d+\.safetensors"
PICKLES = {".bin", ".ckpt", ".pt", ".pth"}


def weight_name(component: str = "", variant: str = "") -> str:
    """Usual name of a component's weights: transformers' for the text encoder, else diffusers'."""
    stem = "model" if component == "text_encoder" else "diffusion_pytorch_model"
    return f"{stem}{variant}.safetensors"


def weight_files(names: Collection[str], component: str = "") -> tuple[list[str], str | None]:
    """Choose the weight files of a component among file names.

    Args:
        names: file names with ``/``, relative to the model's folder.
        component: ``"unet"``, ``"vae"``, ``"text_encoder"``; empty where the folder itself is one.

    Returns:
        The files, whole or in shards with their index, empty if there are none; and the variant's
        name (None or ``"fp16"``). Only ``.safetensors`` counts: other formats run code when read.
    """
    prefix = f"{component}/" if component else ""
    for variant in _VARIANTS:
        whole = prefix + weight_name(component, variant)
        if whole in names:
            return [whole], variant[1:] or None
        stem = whole.removesuffix(".safetensors")
        index = f"{prefix}{weight_name(component)}.index{variant}.json"
        shards = sorted(name for name in names if re.fullmatch(_SHARD, name.removeprefix(stem)))
        if index in names and shards:
            return [index, *shards], variant[1:] or None
    return [], None


def file_names(folder: Path) -> list[str]:
    """All files below a folder, relative to it, with ``/``."""
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def read_config(path: Path) -> dict[str, Any]:
    """Read a component's ``config.json``.

    Raises:
        ModelsError: missing or damaged.
    """
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelsError(f"{path} cannot be read: fetch the model again") from error
    if not isinstance(config, dict):
        raise ModelsError(f"{path} is no model configuration: fetch the model again")
    return config


def tensor_shapes(path: Path) -> Shapes:
    """Names and shapes of a ``.safetensors`` file's tensors; checks that the file is whole.

    Raises:
        ModelsError: the file is truncated, damaged or in another format.
    """
    if path.suffix in PICKLES:
        raise ModelsError(
            f"{path} may run code when read and is not opened: convert it to .safetensors, or get "
            "it in that format"
        )
    if path.exists() and not os.access(path, os.R_OK):
        raise ModelsError(f"{path} may not be read by this user: correct its permissions")
    try:
        with safe_open(path, framework="np") as file:
            names = file.keys()
            return {name: tuple(file.get_slice(name).get_shape()) for name in names}
    except (SafetensorError, OSError) as error:
        raise ModelsError(f"{path} is truncated or no .safetensors file: fetch it again") from error
