"""The stages of a run, made from settings: what is loaded once, before the first clip."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import torch

from daemon.settings import Settings
from daemon.weights import flow_weights, missing_message, missing_weights, model_sources
from fresco_core.attention import AttentionOptions
from fresco_core.errors import FrescodError, ModelsError
from fresco_core.flow import load_flow
from fresco_core.hub import HubError
from fresco_core.models import DiffusionModels, load_diffusion_models
from fresco_core.optimization import OptimizationOptions
from fresco_core.options import TranslationOptions
from fresco_core.prompts import cut_off, effective_prompts
from fresco_core.propagation import PropagationOptions
from fresco_core.translator import FrescoTranslator
from io_pipeline.control_maps import load_detector
from io_pipeline.prepare import Prepare
from io_pipeline.prompt import Prompt
from io_pipeline.propagate import Propagate
from io_pipeline.translate import Translate

LIBRARIES = ("frescod", "torch", "diffusers", "transformers", "opencv-python-headless", "av")


class DeviceError(FrescodError):
    """The device asked for is not there."""

    exit_code = 69


@dataclass(frozen=True)
class Stages:
    """What a clip passes through.

    Attributes:
        prepare, translate, propagate: the stages of `io_pipeline`.
        inspect: warnings about a prompt.
        facts: for the manifest: device, models, versions.
    """

    prepare: Prepare
    translate: Translate
    propagate: Propagate
    inspect: Callable[[Prompt], tuple[str, ...]]
    facts: Mapping[str, Any]


def load_stages(settings: Settings) -> Stages:
    """Load every model that the settings name.

    Raises:
        ModelsError: weights are missing or do not fit.
        DeviceError: the device is not there.
    """
    device = choose_device(settings.device)
    dtype = choose_dtype(settings.models.dtype, device)
    control, frames = settings.control, settings.key_frames
    sources = model_sources(settings)
    if settings.models.offline and (problems := missing_weights(settings)):
        raise ModelsError(missing_message(problems))
    detector = None
    try:
        models = load_diffusion_models(
            **sources, device=device, dtype=dtype, offline=settings.models.offline
        )
        if control.enabled:
            detector = load_detector(
                control.type,
                source=control.source or None,
                canny_low=control.canny_low,
                canny_high=control.canny_high,
                device=str(device),
                offline=settings.models.offline,
            )
    except HubError as error:  # it names the first that is missing: name them all
        problems = missing_weights(settings) or [str(error)]
        raise ModelsError(f"from the hub: {error.reason}; {missing_message(problems)}") from error
    flow = load_flow(settings.flow.model, flow_weights(settings), device)
    options = translation_options(settings)
    return Stages(
        prepare=Prepare(
            detector,
            min_interval=frames.min_interval,
            max_interval=frames.max_interval,
            batch_size=frames.batch_size,
            resolution=frames.resolution,
            decoder=settings.clips.decoder,
            on_truncated=settings.clips.on_truncated,
            max_pixels=settings.limits.max_pixels,
        ),
        translate=Translate(FrescoTranslator(models, flow, options)),
        propagate=Propagate(flow, propagation_options(settings)),
        inspect=lambda prompt: _cut(models, options, prompt),
        facts={
            "device": _device_name(device),
            "dtype": str(dtype).removeprefix("torch."),
            "models": {
                **sources,
                "control_type": control.type if control.enabled else None,
                "flow": flow.name,
            },
            "versions": {name: _version(name) for name in LIBRARIES},
        },
    )


def choose_device(name: str) -> torch.device:
    """The device of a setting.

    Raises:
        DeviceError: it is not there.
    """
    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type != "cuda":
        return device
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    index = device.index or 0
    if index >= count:
        raise DeviceError(
            f"device {name} is not there ({count} usable GPUs): choose another, or cpu"
        )
    return torch.device("cuda", index)


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """The precision of a setting."""
    if name == "auto":
        return torch.float16 if device.type == "cuda" else torch.float32
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def translation_options(settings: Settings) -> TranslationOptions:
    """The translator's options."""
    translation, constraints, prompts = (
        settings.translation,
        settings.constraints,
        settings.prompts,
    )
    added = f", {prompts.added}, " if prompts.added else ""
    return TranslationOptions(
        steps=translation.steps,
        warmup_steps=translation.warmup_steps,
        guidance_scale=translation.guidance_scale,
        control_scale=settings.control.scale,
        seed=translation.seed,
        added_prompt=None if prompts.added == "auto" else added,
        negative_prompt=None if prompts.negative == "auto" else prompts.negative,
        repeat_noise=translation.repeat_noise,
        cross_frame_attention=constraints.cross_frame_attention,
        spatial_attention=constraints.spatial_attention,
        temporal_attention=constraints.temporal_attention,
        feature_optimization=constraints.feature_optimization,
        background_smoothing=constraints.background_smoothing,
        spatial_attention_steps=constraints.spatial_attention_steps,
        temporal_attention_end=constraints.temporal_attention_end,
        optimization_end=constraints.optimization_end,
        optimized_levels=constraints.optimized_levels,
        smoothing_begin=constraints.smoothing_begin,
        smoothing_end=constraints.smoothing_end,
        attention=AttentionOptions(
            constraints.spatial_attention_scale, constraints.temporal_attention_scale
        ),
        optimization=OptimizationOptions(
            constraints.optimization_iterations,
            constraints.optimization_learning_rate,
            constraints.optimization_spatial_weight,
        ),
    )


def propagation_options(settings: Settings) -> PropagationOptions:
    """The options of propagation, which are named alike."""
    return PropagationOptions(**settings.propagation.model_dump())


def _cut(models: DiffusionModels, options: TranslationOptions, prompt: Prompt) -> tuple[str, ...]:
    positive, negative = effective_prompts(
        prompt.positive,
        prompt.negative,
        models.base_name,
        added=options.added_prompt,
        default_negative=options.negative_prompt,
    )
    texts = [("positive", positive)]
    # The published negative prompts are as long as they are: nobody needs to be told at each clip.
    if prompt.negative is not None or options.negative_prompt is not None:
        texts.append(("negative", negative))
    return tuple(
        f"{kind} prompt is too long for the text encoder, cut off: {rest}"
        for kind, text in texts
        if (rest := cut_off(models.tokenizer, text))
    )


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def _version(library: str) -> str | None:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return None
