"""Load the networks of the method: base model, VAE, ControlNets, LoRAs and embeddings."""

import inspect
import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import diffusers.utils.logging
import torch
import transformers.utils.logging
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    DDPMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from safetensors.torch import load_file
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from fresco_core.adapters import fuse_loras
from fresco_core.architecture import SD15, hint_widths
from fresco_core.checkpoint import (
    file_names,
    read_config,
    tensor_shapes,
    weight_files,
    weight_name,
)
from fresco_core.embeddings import add_embeddings
from fresco_core.errors import ModelsError
from fresco_core.model_files import missing_models, pull_models
from fresco_core.model_set import find_models

__all__ = ["DiffusionModels", "load_diffusion_models", "missing_models", "pull_models"]


@dataclass(frozen=True)
class DiffusionModels:
    """The networks of one process, frozen, in evaluation mode, on one device.

    LoRAs are part of ``unet`` and ``text_encoder``, embeddings of ``text_encoder`` and
    ``tokenizer``. ``scheduler`` carries the base model's noise schedule; ``base_name`` is what the
    base model was asked for by (prompt templates depend on it). Load once and hand on: nothing is
    cached here.
    """

    tokenizer: CLIPTokenizer
    text_encoder: CLIPTextModel
    unet: UNet2DConditionModel
    vae: AutoencoderKL
    controlnets: tuple[ControlNetModel, ...]
    scheduler: DDPMScheduler
    device: torch.device
    dtype: torch.dtype
    base_name: str


def load_diffusion_models(
    base: str,
    *,
    vae: str | None = None,
    controlnets: Sequence[str] = (),
    loras: Sequence[str] = (),
    embeddings: Sequence[str] = (),
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    base_config: str | None = None,
    offline: bool = False,
) -> DiffusionModels:
    """Load the models, each from a hub id, a folder or a ``.safetensors`` file.

    Everything that can be told from configurations and file headers is checked before any weights
    are read. Pickled weights (``.bin``, ``.ckpt``) are never opened; no safety checker is loaded.

    Args:
        base: base model of the Stable Diffusion 1.5 kind. A single file is in the original layout.
        vae: VAE that takes the place of the base model's own; None keeps that.
        controlnets: ControlNets in diffusers or original layout.
        loras: each ``source`` or ``source:weight``, in kohya's or diffusers' format; they become
            part of the base model.
        embeddings: textual inversions, each ``source`` or ``word=source``. The word stands for it
            in prompts; without one it is the name in the file, or else the file's own.
        device: where the networks are put.
        dtype: ``torch.float16``, ``torch.bfloat16`` or ``torch.float32``.
        base_config: for a single-file base model: folder or hub id of a diffusers model with the
            same architecture, for configurations and tokenizer. None means Stable Diffusion 1.5.
        offline: never ask the hub. Otherwise what its cache lacks is downloaded; what the cache has
            is taken from there without asking.

    Raises:
        ModelsError: something is missing, damaged or of another architecture; the message names it
            and the remedy.
    """
    device = torch.device(device)
    found = find_models(
        base,
        vae=vae,
        controlnets=controlnets,
        loras=loras,
        embeddings=embeddings,
        base_config=base_config,
        offline=offline,
    )
    with _quiet():
        own_vae = found.vae is None
        if found.base.is_dir():
            parts = _base_from_folder(found.base, dtype, with_vae=own_vae)
        else:
            parts = _base_from_file(found.base, found.config, dtype, with_vae=own_vae)
        if found.vae is not None:
            parts["vae"] = _vae(found.vae, found.config, dtype)
        control_networks = [_controlnet(place, found.unet, dtype) for place in found.controlnets]
        scheduler = DDPMScheduler.from_config(DDPMScheduler.load_config(found.config / "scheduler"))
        tokenizer = _tokenizer(found.config / "tokenizer")
    fuse_loras(parts["unet"], parts["text_encoder"], found.loras)
    add_embeddings(tokenizer, parts["text_encoder"], found.embeddings)

    return DiffusionModels(
        tokenizer=tokenizer,
        text_encoder=_freeze(parts["text_encoder"], device, dtype),
        unet=_freeze(parts["unet"], device, dtype),
        vae=_freeze(parts["vae"], device, dtype),
        controlnets=tuple(_freeze(network, device, dtype) for network in control_networks),
        scheduler=scheduler,
        device=device,
        dtype=dtype,
        base_name=base,
    )


def _base_from_folder(folder: Path, dtype: torch.dtype, *, with_vae: bool) -> dict[str, nn.Module]:
    parts = {
        "unet": _from_folder(UNet2DConditionModel, folder, "unet", dtype),
        "text_encoder": _text_encoder(folder),
    }
    if with_vae:
        parts["vae"] = _from_folder(AutoencoderKL, folder, "vae", dtype)
    return parts


def _base_from_file(
    file: Path, config_folder: Path, dtype: torch.dtype, *, with_vae: bool
) -> dict[str, nn.Module]:
    # The pipeline insists on a VAE: where another one is used, one without layers keeps the place.
    place_holder: dict[str, Any] = {} if with_vae else {"vae": AutoencoderKL(norm_num_groups=1)}
    with _refusing(f"base model {file}"):
        pipeline = StableDiffusionPipeline.from_single_file(
            str(file),
            config=str(config_folder),
            torch_dtype=dtype,
            local_files_only=True,
            safety_checker=None,
            feature_extractor=None,
            **place_holder,
        )
    names = ("unet", "text_encoder", "vae") if with_vae else ("unet", "text_encoder")
    return {name: _filled(getattr(pipeline, name), (), file) for name in names}


def _vae(place: Path, config_folder: Path, dtype: torch.dtype) -> nn.Module:
    if place.is_dir():
        return _from_folder(AutoencoderKL, place, "", dtype)
    config = read_config(config_folder / "vae" / "config.json")
    ours = "encoder.down_blocks.0.resnets.0.conv1.weight" in tensor_shapes(place)
    return _from_file(AutoencoderKL, place, config, dtype, diffusers_layout=ours)


def _controlnet(place: Path, unet: dict[str, Any], dtype: torch.dtype) -> nn.Module:
    if place.is_dir():
        return _from_folder(ControlNetModel, place, "", dtype)
    # A ControlNet is a copy of its UNet's encoder: the configuration is the UNet's.
    known = inspect.signature(ControlNetModel.__init__).parameters
    config = {name: value for name, value in unet.items() if name in known}
    shapes = tensor_shapes(place)
    config["conditioning_embedding_out_channels"] = hint_widths(shapes)
    ours = "conv_in.weight" in shapes
    return _from_file(ControlNetModel, place, config, dtype, diffusers_layout=ours)


class _Loadable(Protocol):
    def from_pretrained(self, folder: str, **options: Any) -> Any: ...

    def from_single_file(self, file: str, **options: Any) -> Any: ...


def _from_file(
    network: _Loadable,
    place: Path,
    config: dict[str, Any],
    dtype: torch.dtype,
    *,
    diffusers_layout: bool,
) -> nn.Module:
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "config.json").write_text(json.dumps(config))
        if diffusers_layout:  # then the file is a model folder that lost its configuration
            (folder / weight_name()).symlink_to(place.resolve())
            return _from_folder(network, folder, "", dtype, called=place)
        with _refusing(str(place)):
            model = network.from_single_file(
                str(place), config=str(folder), torch_dtype=dtype, local_files_only=True
            )
    return _filled(model, (), place)


def _from_folder(
    network: _Loadable,
    folder: Path,
    component: str,
    dtype: torch.dtype,
    called: Path | None = None,
) -> nn.Module:
    place = folder / component
    with _refusing(str(called or place)):
        model, report = network.from_pretrained(
            str(place),
            variant=weight_files(file_names(folder), component)[1],
            torch_dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
        )
    return _filled(model, report["missing_keys"], called or place)


def _text_encoder(folder: Path) -> nn.Module:
    """Load the text encoder whichever version of transformers wrote it.

    Version 5 dropped the prefix ``text_model.`` from the names of its tensors.
    """
    place, prefix = folder / "text_encoder", "text_model."
    weights: dict[str, torch.Tensor] = {}
    for name in weight_files(file_names(folder), "text_encoder")[0]:
        if name.endswith(".safetensors"):
            weights |= load_file(folder / name)
    with _refusing(str(place)):
        config = CLIPTextConfig.from_pretrained(str(place))
        with torch.device("meta"):
            expected = CLIPTextModel(config).state_dict()
        prefix_now = prefix if any(name.startswith(prefix) for name in expected) else ""
        weights = {prefix_now + name.removeprefix(prefix): w for name, w in weights.items()}
        model, report = CLIPTextModel.from_pretrained(
            None, config=config, state_dict=weights, output_loading_info=True
        )
    return _filled(model, report["missing_keys"], place)


def _filled(model: nn.Module, missing: Iterable[str], place: Path) -> nn.Module:
    unfilled = (name for name, tensor in model.named_parameters() if tensor.is_meta)
    lacking = sorted({*missing, *unfilled} - {"text_model.embeddings.position_ids"})
    if lacking:
        raise ModelsError(f"{place} lacks {len(lacking)} tensors ({lacking[0]}, …): fetch it again")
    return model


def _tokenizer(folder: Path) -> CLIPTokenizer:
    with _refusing(f"tokenizer {folder}"):
        return CLIPTokenizer.from_pretrained(str(folder), local_files_only=True)


def _freeze(network: Any, device: torch.device, dtype: torch.dtype) -> Any:
    network = network.eval().requires_grad_(False).to(device)
    return network if network.dtype == dtype else network.to(dtype)


@contextmanager
def _refusing(what: str) -> Iterator[None]:
    """Turn the libraries' many loading errors into one line."""
    try:
        yield
    except (ModelsError, MemoryError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        if "meta tensor" in reason or "NoneType" in reason:  # what stands where a file has nothing
            raise ModelsError(f"{what} lacks some of its tensors: fetch it again") from error
        raise ModelsError(f"{what} does not fit: {SD15} ({reason})") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the libraries' progress bars and advice off the terminal: errors become exceptions."""
    libraries = (diffusers.utils.logging, transformers.utils.logging)
    levels = [(library, library.get_verbosity()) for library in libraries]
    bars = transformers.utils.logging.is_progress_bar_enabled()
    for library, _ in levels:
        library.set_verbosity(logging.ERROR)
    transformers.utils.logging.disable_progress_bar()
    try:
        yield
    finally:
        for library, level in levels:
            library.set_verbosity(level)
        if bars:
            transformers.utils.logging.enable_progress_bar()
