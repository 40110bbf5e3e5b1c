"""Import of the YAML job files of the published FRESCO code (``--base-config``)."""

import difflib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from daemon.config import Layer, checked
from fresco_core.errors import ConfigError

# Set for every clip from the folders given on the command line.
PER_CLIP = frozenset({"file_path", "video_path", "save_path", "prompt"})

SETTING: Mapping[str, str] = {
    "mininterv": "key_frames.min_interval",
    "maxinterv": "key_frames.max_interval",
    "batch_size": "key_frames.batch_size",
    "seed": "translation.seed",
    "num_inference_steps": "translation.steps",
    "num_warmup_steps": "translation.warmup_steps",
    "sd_path": "models.base",
    "use_controlnet": "control.enabled",
    "controlnet_type": "control.type",
    "cond_scale": "control.scale",
    "end_opt_step": "constraints.optimization_end",
    "use_salinecy": "constraints.background_smoothing",
}

# Changes no result.
IGNORED = frozenset({"max_process"})

# Keys this version has nothing for: what happens instead, and when that makes no difference.
UNSUPPORTED: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "use_freeu": ("FreeU stays off", lambda value: not value),
    "gmflow_path": ("the flow is that of [flow] model", lambda value: not value),
    "sod_path": ("what is background is told by its motion", lambda value: not value),
    "run_ebsynth": (
        "all frames are written; keys/ holds the key frames",
        lambda value: bool(value),
    ),
}
SWITCHES = frozenset({"use_freeu", "run_ebsynth"})


@dataclass(frozen=True)
class BaseConfig:
    """What an old YAML job file says: settings, and the one clip it was written for.

    ``warnings``: one line each. ``clip``, ``output``: relative paths are those of the working
    folder, as they were for the published script. None: the file has no such key.
    """

    layer: Layer
    warnings: tuple[str, ...] = ()
    clip: Path | None = None  # file_path, or video_path
    output: Path | None = None  # save_path
    prompt: str | None = None


def read_base_config(path: Path) -> BaseConfig:
    """Read an old YAML job file.

    Raises:
        ConfigError: the file cannot be read or is not YAML; an unknown key or a bad value.
    """
    try:
        content = yaml.safe_load(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not a YAML file: {' '.join(str(error).split())}") from error
    if content is None:
        content = {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected lines of the form key: value")

    values: dict[str, Any] = {}
    unsupported: list[str] = []
    for key, value in content.items():
        if key in SETTING:
            values[SETTING[key]] = _value(path, key, value)
        elif key in SWITCHES and not isinstance(value, bool):
            shown = json.dumps(value, default=str)
            raise ConfigError(f"{path}: {key} = {shown} is not allowed: give true or false")
        elif key in UNSUPPORTED:
            instead, makes_no_difference = UNSUPPORTED[key]
            if not makes_no_difference(value):
                unsupported.append(f"{key} ({instead})")
        elif key not in PER_CLIP | IGNORED:
            names = [*SETTING, *UNSUPPORTED, *PER_CLIP, *IGNORED]
            near = difflib.get_close_matches(str(key), names, n=1, cutoff=0)
            raise ConfigError(f"{path}: {key}: no such key; did you mean {near[0]}?")
    warnings = (
        (f"{path}: not supported in this version: {', '.join(unsupported)}",) if unsupported else ()
    )
    clip = _text(path, content, "file_path") or _text(path, content, "video_path")
    output = _text(path, content, "save_path")
    return BaseConfig(
        Layer(str(path), values),
        warnings,
        clip=None if clip is None else Path(clip),
        output=None if output is None else Path(output),
        prompt=_text(path, content, "prompt"),
    )


def _text(path: Path, content: Mapping[Any, Any], key: str) -> str | None:
    """A text of the one clip; None where there is none, or an empty one.

    Raises:
        ConfigError: it is no text.
    """
    value = content.get(key)
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        shown = json.dumps(value, default=str)
        raise ConfigError(f"{path}: {key} = {shown} is not allowed: give text")
    return value


def _value(path: Path, key: str, value: Any) -> Any:
    """The value as our settings want it, checked; errors name the YAML's own key."""
    if key == "num_warmup_steps" and isinstance(value, int):
        value = max(value, -1)  # any negative number means: from pure noise
    if key == "controlnet_type" and isinstance(value, str):
        value = value.lower()
    try:
        checked(Layer(str(path), {SETTING[key]: value}))
    except ConfigError as error:
        raise ConfigError(str(error).replace(SETTING[key], key, 1)) from None
    return value
