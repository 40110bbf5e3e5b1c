"""Import of the YAML job files of the published FRESCO code (``--base-config``)."""

import difflib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from daemon.config import Layer, checked
from fresco_core.errors import ConfigError

# A key that stands for one of ours; others are in `_settings`.
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
    "use_freeu": "freeu.enabled",
    "end_opt_step": "constraints.optimization_end",
    "use_salinecy": "constraints.background_smoothing",
    "max_process": "propagation.processes",
}

# Weights of a network: the setting that names the file, and the one that chooses the network.
NETWORKS: Mapping[str, tuple[str, str, str]] = {
    "gmflow_path": ("flow.weights", "flow.model", "gmflow"),
    "sod_path": ("saliency.weights", "saliency.model", "egnet"),
}

# Whether all frames are made: the name is older than our own propagation.
RUN_EBSYNTH = "run_ebsynth"

# The one clip that a file was written for: what `BaseConfig` has of it, the first that is given.
OF_CLIP: Mapping[str, str] = {
    "file_path": "clip",
    "video_path": "clip",
    "save_path": "output",
    "prompt": "prompt",
}

# As the published code reads a prompt; it has no key for that.
AS_PUBLISHED: Mapping[str, Any] = {"prompts.syntax": "literal"}

KEYS = (*SETTING, *NETWORKS, RUN_EBSYNTH, *OF_CLIP)


@dataclass(frozen=True)
class BaseConfig:
    """What an old YAML job file says: settings, and the one clip it was written for.

    Attributes:
        layer: the settings.
        warnings: one line each, on what counts only where that clip is the one to translate.
        clip, output: relative paths are those of the working folder, as they were for the
            published script. None: the file has no such key, or an empty one.
        prompt: the same.
    """

    layer: Layer
    warnings: tuple[str, ...] = ()
    clip: Path | None = None
    output: Path | None = None
    prompt: str | None = None


def read_base_config(path: Path) -> BaseConfig:
    """Read an old YAML job file.

    Raises:
        ConfigError: the file cannot be read or is not YAML; an unknown key or a bad value.
    """
    content = _read(path)
    for key in content:
        if key not in KEYS:
            near = difflib.get_close_matches(str(key), KEYS, n=1, cutoff=0)
            raise ConfigError(f"{path}: {key}: no such key; did you mean {near[0]}?")
    values = dict(AS_PUBLISHED)
    for key, value in content.items():
        if key == "sod_path" and _needs_no(path, content, key):
            continue
        values.update(_settings(path, key, value))
    texts = {key: _text(path, key, content.get(key)) for key in OF_CLIP}
    named = [key for key, text in texts.items() if text]
    of_clip = {OF_CLIP[key]: texts[key] for key in reversed(named)}
    told = (
        f"{path}: {', '.join(named)}: of the one clip it was written for, which `frescod run` "
        "takes without --video-folder; not of others"
    )
    return BaseConfig(
        Layer(str(path), values),
        warnings=(told,) if named else (),
        clip=Path(of_clip["clip"]) if "clip" in of_clip else None,
        output=Path(of_clip["output"]) if "output" in of_clip else None,
        prompt=of_clip.get("prompt"),
    )


class _Loader(yaml.SafeLoader):
    """Refuses a key that is there twice: of two values one would count silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        lines: dict[Any, int] = {}
        pairs = node.value if isinstance(node, yaml.MappingNode) else []  # a tag says what it likes
        for key in (key for key, _ in pairs if isinstance(key, yaml.ScalarNode)):
            if key.value in lines:
                problem = f"{key.value} is in line {lines[key.value]} already: remove one of both"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            lines[key.value] = key.start_mark.line + 1
        return dict(super().construct_mapping(node, deep))


def _read(path: Path) -> dict[Any, Any]:
    try:
        content = yaml.load(path.read_bytes(), _Loader)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise ConfigError(f"{path}: not a job file: {line}{error.problem}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        text = " ".join(str(error).split()).replace(' in "<byte string>",', "")
        raise ConfigError(f"{path}: not a YAML file: {text}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected lines of the form key: value")
    return content


def _settings(path: Path, key: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Our settings for one key, checked; errors name the YAML's own key."""
    if key in SETTING:
        if key == "num_warmup_steps" and isinstance(value, int):
            value = max(value, -1)  # any negative number means: from pure noise
        if key == "controlnet_type" and isinstance(value, str):
            value = value.lower()
        try:
            checked(Layer(str(path), {SETTING[key]: value}))
        except ConfigError as error:
            raise ConfigError(str(error).replace(SETTING[key], key, 1)) from None
        yield SETTING[key], value
    elif key in NETWORKS:
        file, model, network = NETWORKS[key]
        if text := _text(path, key, value):
            yield file, text
            yield model, network
    elif key == RUN_EBSYNTH:
        if not isinstance(value, bool):
            raise ConfigError(f"{path}: {_told(key, value)} is not allowed: give true or false")
        yield "output.frames", "all" if value else "keys"


def _needs_no(path: Path, content: Mapping[str, Any], key: str) -> bool:
    """Whether the saliency weights that are named may be absent, as they are: none are used."""
    file = _text(path, key, content[key])
    return content.get("use_salinecy") is False and not Path(file).expanduser().is_file()


def _text(path: Path, key: str, value: Any) -> str:
    """A text; empty where there is none."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ConfigError(f"{path}: {_told(key, value)} is not allowed: give text")
    return value


def _told(key: str, value: Any) -> str:
    return f"{key} = {json.dumps(value, default=str)}"
