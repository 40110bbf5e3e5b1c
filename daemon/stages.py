"""Settings -> descriptions of what each kind of worker does. Imports no torch, loads nothing."""

import functools
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata

from daemon.devices import DeviceError, is_gpu
from daemon.memory import size_bytes
from daemon.settings import Settings
from daemon.weights import detector_sources, local_file, model_sources
from daemon.weights_identity import weights_identity
from fresco_core.errors import ConfigError
from fresco_core.options import (
    AttentionOptions,
    FreeUOptions,
    OcclusionOptions,
    OptimizationOptions,
    TranslationOptions,
)
from fresco_core.propagation import PropagationOptions
from fresco_core.propagation.program import check_program
from io_pipeline.cpu_stage import CpuStage
from io_pipeline.device_stage import DeviceStage
from io_pipeline.options import KeyFrameOptions, MapOptions
from io_pipeline.publish import COMPARISON_PRESET
from io_pipeline.reading import ReaderStage

# Those that pictures pass through, or that say how.
LIBRARIES = (
    "frescod",
    "torch",
    "torchvision",
    "diffusers",
    "transformers",
    "compel",
    "controlnet-aux",
    "opencv-python-headless",
    "numpy",
    "scipy",
    "numba",
    "av",
    "decord",
)
_COUNT_SECONDS = 60
_COUNT = "import torch; print(torch.cuda.device_count() if torch.cuda.is_available() else 0)"


@dataclass(frozen=True)
class Stages:
    """What each kind of worker does, for every job; what jobs may choose comes with their tasks.

    Attributes:
        reader, cpu: a reader; a process of the CPU pool.
        devices: the names of the devices, see `choose_devices`.
        absent: those that the settings name and that are not there.
        device: a device, by its name.
        identity: what shapes a result beside clip, prompt and settings: an interrupted one is
            continued only where this is the same. Told once all weights are on this machine, and
            the same from then on, as are the weights that were loaded.
    """

    reader: ReaderStage
    cpu: CpuStage
    devices: tuple[str, ...]
    absent: tuple[str, ...]
    device: Callable[[str], DeviceStage]
    identity: Callable[[], Mapping[str, str]]


def make_stages(
    settings: Settings, visible: Callable[[], int] | None = None, *, required: bool = True
) -> Stages:
    """Describe the workers that the settings ask for; ``visible`` counts the usable GPUs.

    Where not all devices are ``required``, those that are not there are left out.

    Raises:
        DeviceError, ConfigError: see `choose_devices`.
        ConfigError: the program that is to propagate is not there, or the GPU that is to.
    """
    if settings.propagation.engine == "ebsynth":
        check_program(settings.propagation.program)
    sources, side = model_sources(settings), settings.control.device
    detectors = detector_sources(settings)
    named = {**sources, "control_types": detectors["kinds"]}
    models = {
        # As JSON has it: this goes into the manifest.
        key: list(value) if isinstance(value, tuple) else value
        for key, value in named.items()
    }

    names = choose_devices(settings.devices, visible or visible_gpus, required=required)
    check_propagation(settings, names)
    versions = library_versions()

    @functools.cache
    def identity() -> Mapping[str, str]:
        return {
            "devices": " ".join(sorted({name.partition(":")[0] for name in names})),
            **{name: str(version) for name, version in versions.items()},
            "comparison": COMPARISON_PRESET,  # windows of another one are no video together
            **weights_identity(settings),
        }

    def device(name: str) -> DeviceStage:
        return DeviceStage(
            device=name,
            dtype=settings.models.dtype,
            models=sources,
            flow=(settings.flow.model, local_file(settings.flow.weights)),
            saliency=(settings.saliency.model, local_file(settings.saliency.weights)),
            detectors=None if side == "cpu" or not detectors["kinds"] else detectors,
            facts={"models": models, "versions": versions},
        )

    return Stages(
        reader=ReaderStage(settings.limits.max_pixels),
        cpu=CpuStage(None if side == "gpu" or not detectors["kinds"] else detectors),
        devices=names,
        absent=tuple(set(re.findall(r"cuda:\d+", settings.devices)) - set(names)),
        device=device,
        identity=identity,
    )


def choose_devices(
    text: str, visible: Callable[[], int], *, required: bool = True
) -> tuple[str, ...]:
    """The devices of a setting, one for each process: ``cuda:N`` and ``cpu``, which may repeat.

    Args:
        text: ``auto`` (all GPUs, the CPU where there is none), ``cuda`` (all GPUs), or a list of
            ``cuda:N``, ``cpu`` and ``cpu*N``.
        visible: counts the usable GPUs; asked only where it matters.
        required: all of a list have to be there; else one is enough.

    Raises:
        DeviceError: a GPU is not there.
        ConfigError: not such a list, or one in which a GPU occurs twice.
    """
    if text == "cpu":
        return ("cpu",)
    names: list[str] = []
    if text in ("auto", "cuda"):
        names = [f"cuda:{i}" for i in range(visible())]
        if text == "auto":
            return tuple(names) or ("cpu",)
        if not names:
            raise DeviceError("no usable GPU is there: set devices to cpu, or check the driver")
        return tuple(names)
    for item in text.split(","):
        match = re.fullmatch(r"\s*(?:cuda:(\d+)|cpu(?:\*([1-9]\d*))?)\s*", item)
        if match is None:
            raise ConfigError(
                f"devices = {text!r}: {item.strip()!r} is none: give auto, cuda, or a list of "
                "cuda:N, cpu and cpu*N"
            )
        gpu, times = match.groups()
        names += [f"cuda:{int(gpu)}"] if gpu else ["cpu"] * int(times or 1)
    gpus = [name for name in names if name != "cpu"]
    if twice := next((name for name in gpus if gpus.count(name) > 1), None):
        raise ConfigError(f"devices = {text!r} names {twice} twice: one process is enough for it")
    if gpus:
        count = visible()
        absent = [name for name in gpus if int(name.removeprefix("cuda:")) >= count]
        if not required and len(absent) < len(names):
            return tuple(name for name in names if name not in absent)
        if absent:
            there = ", ".join(f"cuda:{i}" for i in range(count)) or "no usable GPU"
            raise DeviceError(
                f"device {', '.join(absent)} is not there ({there}): choose another, or cpu"
            )
    return tuple(names)


def check_propagation(settings: Settings, names: Sequence[str]) -> None:
    """Raise ConfigError where these devices cannot propagate as the settings want it."""
    memory = settings.propagation.device_memory
    if size_bytes(memory) == 0:
        raise ConfigError(f"propagation.device_memory = {memory!r} is no memory: write 4GiB")
    if settings.propagation.device == "gpu" and not any(is_gpu(name) for name in names):
        raise ConfigError(
            f'propagation.device = "gpu", but devices are {", ".join(names)}: set it to auto or '
            "cpu, or name a GPU in devices"
        )


def visible_gpus() -> int:
    """How many GPUs torch can use, asked in a process of its own; 0 at once without a driver.

    Raises:
        DeviceError: there is no answer; a broken driver may hang.
    """
    if not any(os.path.exists(path) for path in ("/dev/nvidiactl", "/dev/dxg")):
        return 0
    # -P: not what lies in the folder that the program is run from.
    command = [sys.executable, "-P", "-c", _COUNT]
    try:
        answer = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            timeout=_COUNT_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise DeviceError(
            f"the GPUs could not be counted in {_COUNT_SECONDS} s: check the driver "
            "(nvidia-smi), or set devices to cpu"
        ) from error
    return int(answer.stdout) if answer.returncode == 0 else 0


def library_versions() -> dict[str, str | None]:
    """What shapes a result beside settings and weights; None for what is not installed."""
    return {name: _version(name) for name in LIBRARIES}


def key_frame_options(settings: Settings) -> KeyFrameOptions:
    """Which frames become key frames; named alike."""
    return KeyFrameOptions(
        **settings.key_frames.model_dump(),
        on_truncated=settings.clips.on_truncated,
        first_batch_only=settings.output.frames == "preview",
    )


def map_options(settings: Settings) -> MapOptions:
    """How control maps are drawn."""
    return MapOptions(settings.control.canny_low, settings.control.canny_high)


def translation_options(settings: Settings) -> TranslationOptions:
    """The translator's options."""
    translation, constraints = settings.translation, settings.constraints
    prompts, freeu = settings.prompts, settings.freeu
    warmup_steps = translation.warmup_steps
    if translation.strength:
        warmup_steps = translation.steps - max(1, round(translation.strength * translation.steps))
    added = f", {prompts.added}, " if prompts.added else ""
    return TranslationOptions(
        steps=translation.steps,
        warmup_steps=warmup_steps,
        guidance_scale=translation.guidance_scale,
        control_scales=settings.control.scale,
        seed=translation.seed,
        added_prompt=None if prompts.added == "auto" else added,
        negative_prompt=None if prompts.negative == "auto" else prompts.negative,
        prompt_weights=prompts.syntax == "weights",
        repeat_noise=translation.repeat_noise,
        keep_colours=translation.keep_colours,
        freeu=FreeUOptions(freeu.b1, freeu.b2, freeu.s1, freeu.s2) if freeu.enabled else None,
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
            constraints.spatial_attention_scale,
            constraints.temporal_attention_scale,
            constraints.spatial_attention_bias,
        ),
        optimization=OptimizationOptions(
            constraints.optimization_iterations,
            constraints.optimization_learning_rate,
            constraints.optimization_spatial_weight,
        ),
        occlusion=OcclusionOptions(
            constraints.occlusion_slope, constraints.occlusion_margin, constraints.occlusion_colour
        ),
    )


def propagation_options(settings: Settings) -> PropagationOptions:
    """The options of propagation, which are named alike."""
    values = settings.propagation.model_dump(exclude={"processes", "device", "device_memory"})
    return PropagationOptions(**{**values, "poisson_clip": values["poisson_clip"] or None})


def _version(library: str) -> str | None:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return None
