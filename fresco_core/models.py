"""Load the networks of the method: base model, VAE, ControlNet."""

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

from fresco_core import hub
from fresco_core.checkpoint import (
    PICKLES,
    Shapes,
    file_names,
    read_config,
    tensor_shapes,
    weight_files,
)
from fresco_core.errors import FrescodError, ModelsError

DEFAULT_BASE_CONFIG = "stable-diffusion-v1-5/stable-diffusion-v1-5"
_SD15 = "frescod needs models of the Stable Diffusion 1.5 kind"


@dataclass(frozen=True)
class DiffusionModels:
    """The networks of one process, frozen, in evaluation mode, on one device.

    ``scheduler`` carries the base model's noise schedule; ``base_name`` is what the base model was
    asked for by (prompt templates depend on it). Load once and hand on: nothing is cached here.
    """

    tokenizer: CLIPTokenizer
    text_encoder: CLIPTextModel
    unet: UNet2DConditionModel
    vae: AutoencoderKL
    controlnet: ControlNetModel | None
    scheduler: DDPMScheduler
    device: torch.device
    dtype: torch.dtype
    base_name: str


@dataclass(frozen=True)
class _Kind:
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


_SCHEDULER = "scheduler/scheduler_config.json"
_BASE = _Kind("base model", ("unet", "vae", "text_encoder"), ("model_index.json", _SCHEDULER))
_BASE_WITHOUT_VAE = _Kind("base model", ("unet", "text_encoder"), ("model_index.json", _SCHEDULER))
_BASE_CONFIG = _Kind(
    "base model's configuration", _BASE.components, ("model_index.json", _SCHEDULER), weights=False
)
_VAE = _Kind("VAE", ("",))
_CONTROLNET = _Kind("ControlNet", ("",))


def load_diffusion_models(
    base: str,
    *,
    vae: str | None = None,
    controlnet: str | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    base_config: str | None = None,
    offline: bool = False,
) -> DiffusionModels:
    """Load base model, VAE and ControlNet, each from a hub id, a folder or a ``.safetensors`` file.

    Everything that can be told from configurations and file headers is checked before any weights
    are read. Pickled weights (``.bin``, ``.ckpt``) are never opened; no safety checker is loaded.

    Args:
        base: base model of the Stable Diffusion 1.5 kind. A single file is in the original layout.
        vae: VAE that takes the place of the base model's own; None keeps that.
        controlnet: ControlNet in diffusers or original layout; None loads none.
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
    base_kind = _BASE if vae is None else _BASE_WITHOUT_VAE
    base_place = _locate(base, base_kind, offline)
    if base_place.is_dir():
        config_folder = base_place
    else:
        config_folder = _locate(base_config or DEFAULT_BASE_CONFIG, _BASE_CONFIG, offline)
        if config_folder.is_file():
            raise ModelsError(f"base_config {base_config} is a file: name a folder or a hub id")
    vae_place = None if vae is None else _locate(vae, _VAE, offline)
    controlnet_place = None if controlnet is None else _locate(controlnet, _CONTROLNET, offline)

    unet_config = _check_base(base_place, config_folder)
    if vae_place is not None and vae_place.is_dir():
        _check_vae(vae_place / "config.json")
    if controlnet_place is not None:
        _check_controlnet(controlnet_place, unet_config)

    with _quiet():
        own_vae = vae_place is None
        if base_place.is_dir():
            parts = _base_from_folder(base_place, dtype, with_vae=own_vae)
        else:
            parts = _base_from_file(base_place, config_folder, dtype, with_vae=own_vae)
        if vae_place is not None:
            parts["vae"] = _vae(vae_place, config_folder, dtype)
        control_network = None
        if controlnet_place is not None:
            control_network = _controlnet(controlnet_place, unet_config, dtype)
        scheduler = DDPMScheduler.from_config(
            DDPMScheduler.load_config(config_folder / "scheduler")
        )
        tokenizer = _tokenizer(config_folder / "tokenizer")

    return DiffusionModels(
        tokenizer=tokenizer,
        text_encoder=_freeze(parts["text_encoder"], device, dtype),
        unet=_freeze(parts["unet"], device, dtype),
        vae=_freeze(parts["vae"], device, dtype),
        controlnet=None if control_network is None else _freeze(control_network, device, dtype),
        scheduler=scheduler,
        device=device,
        dtype=dtype,
        base_name=base,
    )


def missing_models(
    base: str,
    *,
    vae: str | None = None,
    controlnet: str | None = None,
    base_config: str | None = None,
) -> list[str]:
    """What loading offline would find missing or damaged; one line each, with the remedy."""
    problems = []
    for source, kind in _sources(base, vae, controlnet, base_config):
        try:
            _locate(source, kind, offline=True)
        except FrescodError as error:
            problems.append(str(error))
    return problems


def pull_models(
    base: str,
    *,
    vae: str | None = None,
    controlnet: str | None = None,
    base_config: str | None = None,
) -> list[Path]:
    """Bring every model named by a hub id up to date in the hub's cache; only the files needed.

    Returns:
        Where each model lies, local ones included.

    Raises:
        ModelsError: the hub cannot be reached or has no such model; a local path is wrong.
    """
    return [
        _fetch(source, kind) if _is_on_hub(source) else _locate(source, kind, offline=True)
        for source, kind in _sources(base, vae, controlnet, base_config)
    ]


def _sources(
    base: str, vae: str | None, controlnet: str | None, base_config: str | None
) -> Iterator[tuple[str, _Kind]]:
    yield base, _BASE if vae is None else _BASE_WITHOUT_VAE
    if Path(base).expanduser().is_file():
        yield base_config or DEFAULT_BASE_CONFIG, _BASE_CONFIG
    if vae is not None:
        yield vae, _VAE
    if controlnet is not None:
        yield controlnet, _CONTROLNET


def _is_on_hub(source: str) -> bool:
    return not Path(source).expanduser().exists() and hub.is_hub_id(source)


def _locate(source: str, kind: _Kind, offline: bool) -> Path:
    """Folder or file with all that is needed."""
    place = Path(source).expanduser()
    if place.is_file():
        tensor_shapes(place)
        return place
    if place.is_dir():
        return _complete(place, kind, "put the missing files there or name another model")
    if not hub.is_hub_id(source):
        raise ModelsError(
            f"{kind.title} {source} not found: give a folder, a .safetensors file, or a hub id and "
            "run `frescod models pull`"
        )
    cached = hub.cached_folder(source)
    if cached is not None and not kind.missing(file_names(cached)):
        return _complete(cached, kind, hub.PULL)
    if offline:
        raise ModelsError(f"{kind.title} {source} is not on this machine: {hub.PULL}")
    return _fetch(source, kind)


def _fetch(source: str, kind: _Kind) -> Path:
    def choose(names: list[str]) -> list[str]:
        if missing := kind.missing(names):
            raise ModelsError(f"the hub's {source} has no {', '.join(missing)}")
        return kind.wanted(names)

    return _complete(hub.fetch_folder(source, choose), kind, hub.PULL)


def _complete(folder: Path, kind: _Kind, remedy: str) -> Path:
    names = file_names(folder)
    if missing := kind.missing(names):
        raise ModelsError(f"{kind.title} {folder} lacks {', '.join(missing)}: {remedy}")
    for component in kind.components if kind.weights else ():
        for name in weight_files(names, component)[0]:
            if name.endswith(".safetensors"):
                tensor_shapes(folder / name)
    return folder


def _check_base(place: Path, config_folder: Path) -> dict[str, Any]:
    """Refuse what is not of the Stable Diffusion 1.5 kind; returns the UNet's configuration."""
    unet = read_config(config_folder / "unet" / "config.json")
    text = read_config(config_folder / "text_encoder" / "config.json")
    schedule = read_config(config_folder / _SCHEDULER)
    kind = read_config(config_folder / "model_index.json").get("_class_name", "")
    if unet.get("in_channels", 4) != 4:
        raise ModelsError(
            f"base model {place} takes {unet['in_channels']} latent channels, not 4 (a model for "
            f"inpainting or editing?): {_SD15}"
        )
    width = unet.get("cross_attention_dim", 1280)
    if "XL" in kind or text.get("hidden_size") != width:
        raise ModelsError(
            f"base model {place}: its text encoder ({text.get('hidden_size')} wide) and UNet "
            f"({width}) do not make a pair: {_SD15}"
        )
    prediction = schedule.get("prediction_type", "epsilon")
    if prediction != "epsilon":
        raise ModelsError(f"base model {place} predicts {prediction}, not epsilon: {_SD15}")
    if (config_folder / "vae" / "config.json").is_file():
        _check_vae(config_folder / "vae" / "config.json")
    if place.is_file():
        _check_original_layout(place, tensor_shapes(place), unet)
    return unet


def _check_original_layout(place: Path, shapes: Shapes, unet: dict[str, Any]) -> None:
    prefix = "model.diffusion_model.input_blocks."
    first = shapes.get(f"{prefix}0.0.weight")
    words = shapes.get(f"{prefix}1.1.transformer_blocks.0.attn2.to_k.weight")
    text = "cond_stage_model.transformer.text_model.embeddings.position_embedding.weight"
    if first is None or words is None or text not in shapes:
        raise ModelsError(
            f"base model {place} is not laid out like a Stable Diffusion 1.5 file: {_SD15}"
        )
    expected = (unet["block_out_channels"][0], 4, unet["cross_attention_dim"])
    if (first[0], first[1], words[1]) != expected:
        raise ModelsError(
            f"base model {place} has first width, latent channels, text width "
            f"{(first[0], first[1], words[1])}; its configuration says {expected}: {_SD15}, or "
            "name its own configuration as base_config"
        )


def _check_vae(config_path: Path) -> None:
    vae = read_config(config_path)
    channels = vae.get("latent_channels", 4)
    factor = 2 ** (len(vae.get("block_out_channels", (1,))) - 1)
    if (channels, factor) != (4, 8):
        raise ModelsError(
            f"VAE {config_path.parent} has {channels} latent channels at 1/{factor} of the size, "
            f"not 4 at 1/8: {_SD15}"
        )


def _check_controlnet(place: Path, unet: dict[str, Any]) -> None:
    wanted = {
        "first width": unet["block_out_channels"][0],
        "text width": unet["cross_attention_dim"],
    }
    if place.is_dir():
        config = read_config(place / "config.json")
        wanted["block widths"] = list(unet["block_out_channels"])
        wanted["layers per block"] = unet.get("layers_per_block", 2)
        found = {
            "first width": (config.get("block_out_channels") or [None])[0],
            "text width": config.get("cross_attention_dim"),
            "block widths": list(config.get("block_out_channels", ())),
            "layers per block": config.get("layers_per_block", 2),
        }
    else:
        shapes = tensor_shapes(place)
        first = shapes.get("control_model.input_blocks.0.0.weight", shapes.get("conv_in.weight"))
        words = [shape for name, shape in shapes.items() if name.endswith("attn2.to_k.weight")]
        if first is None or not words or not _hint_widths(shapes):
            raise ModelsError(f"{place} is no ControlNet for Stable Diffusion 1.5")
        found = {"first width": first[0], "text width": words[0][1]}
    for name, value in wanted.items():
        if found[name] != value:
            raise ModelsError(
                f"ControlNet {place} has {name} {found[name]}, the base model {value}: choose a "
                "ControlNet made for this base model"
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
    with _refusing(f"VAE {place}"):
        vae = AutoencoderKL.from_single_file(
            str(place),
            config=str(config_folder),
            subfolder="vae",
            torch_dtype=dtype,
            local_files_only=True,
        )
    return _filled(vae, (), place)


def _controlnet(place: Path, unet: dict[str, Any], dtype: torch.dtype) -> nn.Module:
    if place.is_dir():
        return _from_folder(ControlNetModel, place, "", dtype)
    # A ControlNet is a copy of its UNet's encoder: the configuration is the UNet's.
    known = inspect.signature(ControlNetModel.__init__).parameters
    config = {name: value for name, value in unet.items() if name in known}
    config["conditioning_embedding_out_channels"] = _hint_widths(tensor_shapes(place))
    with TemporaryDirectory() as folder, _refusing(f"ControlNet {place}"):
        Path(folder, "config.json").write_text(json.dumps(config))
        controlnet = ControlNetModel.from_single_file(
            str(place), config=folder, torch_dtype=dtype, local_files_only=True
        )
    return _filled(controlnet, (), place)


def _hint_widths(shapes: Shapes) -> list[int]:
    """Widths of the layers that read the control map, in either layout; empty if there are none."""
    original = [f"control_model.input_hint_block.{i}.weight" for i in (0, 4, 8, 12)]
    embedding = "controlnet_cond_embedding"
    ours = [f"{embedding}.conv_in.weight", *(f"{embedding}.blocks.{i}.weight" for i in (1, 3, 5))]
    for names in (original, ours):
        if all(name in shapes for name in names):
            return [shapes[name][0] for name in names]
    return []


class _Loadable(Protocol):
    def from_pretrained(self, folder: str, **options: Any) -> Any: ...


def _from_folder(network: _Loadable, folder: Path, component: str, dtype: torch.dtype) -> nn.Module:
    place = folder / component
    with _refusing(str(place)):
        model, report = network.from_pretrained(
            str(place),
            variant=weight_files(file_names(folder), component)[1],
            torch_dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
        )
    return _filled(model, report["missing_keys"], place)


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
    lacking = sorted(name for name in missing if "position_ids" not in name)
    lacking += [name for name, tensor in model.named_parameters() if tensor.is_meta]
    if lacking:
        raise ModelsError(f"{place} lacks {len(lacking)} tensors ({lacking[0]}, …): fetch it again")
    return model


def _tokenizer(folder: Path) -> CLIPTokenizer:
    with _refusing(f"tokenizer {folder}"):
        return CLIPTokenizer.from_pretrained(str(folder), local_files_only=True)


def _tokenizer_files(names: Sequence[str]) -> list[str]:
    """Files of the tokenizer; empty if they are not enough."""
    files = [name for name in names if name.startswith("tokenizer/")]
    plain = {"tokenizer/vocab.json", "tokenizer/merges.txt"}
    return files if "tokenizer/tokenizer.json" in files or plain <= set(files) else []


def _freeze(network: Any, device: torch.device, dtype: torch.dtype) -> Any:
    network = network.eval().requires_grad_(False).to(device)
    return network if network.dtype == dtype else network.to(dtype)


def _join(component: str, name: str) -> str:
    return f"{component}/{name}" if component else name


@contextmanager
def _refusing(what: str) -> Iterator[None]:
    """Turn the libraries' many loading errors into one line."""
    try:
        yield
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelsError(f"{what} does not fit: {_SD15} ({reason})") from error


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
