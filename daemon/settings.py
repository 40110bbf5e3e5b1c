"""Settings: ``config.toml`` as frozen models. Every key has a default and a description."""

import difflib
import hashlib
import json
import textwrap
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from fresco_core.errors import ConfigError

Scale = Annotated[float, Field(ge=0, le=10)]


class Section(BaseModel):
    """A table of ``config.toml``."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Models(Section):
    """Weights. Each is a hub id, a local folder in diffusers format or a .safetensors file."""

    base: str = Field(
        default="stable-diffusion-v1-5/stable-diffusion-v1-5",
        min_length=1,
        description="Base model, of the Stable Diffusion 1.5 kind.",
    )
    vae: str = Field(
        default="stabilityai/sd-vae-ft-mse",
        description='VAE that takes the place of the base model\'s own; "" keeps its own.',
    )
    controlnet: str = Field(
        default="", description='ControlNet; "" means lllyasviel/sd-controlnet-<control.type>.'
    )
    base_config: str = Field(
        default="",
        description=(
            "Folder or hub id with the configuration of a base model given as one file; "
            '"" means that of Stable Diffusion 1.5.'
        ),
    )
    dtype: Literal["auto", "float16", "bfloat16", "float32"] = Field(
        default="auto", description="Precision; auto is float16 on a GPU and float32 on the CPU."
    )
    offline: bool = Field(
        default=False, description="Never ask the hub: use only what is on this machine."
    )


class KeyFrames(Section):
    """Which frames are translated by diffusion, and how many at a time."""

    min_interval: int = Field(
        default=5, ge=1, le=100_000, description="Least distance of key frames."
    )
    max_interval: int = Field(
        default=5,
        ge=1,
        le=100_000,
        description=(
            "Largest distance aimed at. Equal to min_interval: every so many frames; "
            "larger: key frames go where the picture changes."
        ),
    )
    batch_size: int = Field(
        default=8,
        ge=3,
        le=16,
        description="Key frames translated together, the two carried ones included.",
    )
    resolution: int = Field(
        default=512,
        ge=64,
        le=2048,
        multiple_of=64,
        description="Short side of the working size in pixels.",
    )


class Translation(Section):
    """The diffusion itself."""

    steps: int = Field(default=20, ge=1, le=1000, description="Length of the noise schedule.")
    warmup_steps: int = Field(
        default=5,
        ge=-1,
        le=999,
        description=(
            "Steps of the schedule skipped: the more, the closer to the input. "
            "-1 starts from pure noise."
        ),
    )
    guidance_scale: float = Field(default=7.5, ge=1, le=50, description="Classifier-free guidance.")
    seed: int = Field(default=0, ge=0, le=2**63 - 1, description="Start of all random numbers.")


class Control(Section):
    """The control map that ties the result to the structure of the input."""

    enabled: bool = Field(default=True, description="Use a ControlNet.")
    type: Literal["hed", "canny", "depth"] = Field(
        default="hed", description="Kind of control map."
    )
    scale: float = Field(default=0.7, ge=0, le=2, description="How strongly the control map binds.")
    canny_low: int = Field(default=50, ge=0, le=1000, description="Lower threshold of canny.")
    canny_high: int = Field(default=100, ge=0, le=1000, description="Upper threshold of canny.")
    source: str = Field(
        default="",
        description='Weights of the hed or depth detector: hub id or local path; "" the usual one.',
    )


class Constraints(Section):
    """FRESCO's correspondence constraints; each can be switched off."""

    cross_frame_attention: bool = Field(
        default=True, description="Frames of a batch attend to a common set of tokens."
    )
    spatial_attention: bool = Field(
        default=True, description="Attention follows the self-similarity of the input frame."
    )
    temporal_attention: bool = Field(
        default=True, description="Attention along pixel trajectories."
    )
    feature_optimization: bool = Field(
        default=True,
        description="Optimise decoder features for spatial and temporal correspondence.",
    )
    background_smoothing: bool = Field(
        default=True,
        description=(
            "Smooth the background along the flow. Needs a saliency map, which this version "
            "does not make yet: until then it has no effect."
        ),
    )
    spatial_attention_steps: int = Field(
        default=1, ge=0, le=1000, description="Executed steps with spatial-guided attention."
    )
    temporal_attention_end: int = Field(
        default=350, ge=0, le=1000, description="Temporal-guided attention down to this timestep."
    )
    spatial_attention_scale: Scale = Field(
        default=0.2, description="Factor on the keys of spatial-guided attention."
    )
    temporal_attention_scale: Scale = Field(
        default=0.2, description="Factor on the keys of temporal-guided attention."
    )
    optimization_steps_end: int = Field(
        default=15,
        ge=0,
        le=1000,
        description="Features are optimised in the first so many schedule steps.",
    )
    optimization_iterations: int = Field(
        default=20, ge=1, le=1000, description="Adam iterations per optimisation."
    )
    optimization_learning_rate: float = Field(
        default=0.2, gt=0, le=10, description="Adam's learning rate."
    )
    optimization_spatial_weight: float = Field(
        default=100.0,
        ge=0,
        le=1e6,
        description="Weight of the spatial loss against the temporal loss.",
    )
    optimization_layers: tuple[Annotated[int, Field(ge=0, le=3)], ...] = Field(
        default=(0, 1, 2, 3), description="Decoder blocks whose input is optimised."
    )
    smoothing_steps: tuple[Annotated[int, Field(ge=0, le=999)], ...] = Field(
        default=(16, 17),
        description="Schedule steps at which the background's pixels are smoothed.",
    )


class Flow(Section):
    """Optical flow between frames."""

    model: Literal["dis", "raft"] = Field(
        default="dis", description="dis needs no weights; raft is better and slower."
    )
    weights: str = Field(default="", description='Local weights file of raft; "" the usual one.')


class Prompts(Section):
    """Text added to every clip's prompt."""

    added: str = Field(
        default="auto",
        description='Appended to the positive prompt; auto: what suits the base model; "" nothing.',
    )
    negative: str = Field(
        default="auto",
        description=(
            "Negative prompt of clips whose prompt file has none; auto: what suits the base model."
        ),
    )


class Propagation(Section):
    """From key frames to all frames between them."""

    enabled: bool = Field(
        default=True, description="false: translate the key frames only and write no blend.mp4."
    )


class Output(Section):
    """The result folder."""

    crf: int = Field(
        default=18, ge=0, le=51, description="H.264 quality of the videos; lower is better."
    )
    comparison: bool = Field(
        default=True,
        description="Write comparison.mp4: input, control map and output side by side.",
    )
    contact_sheet: bool = Field(default=True, description="Write contact_sheet.png.")


class Settings(Section):
    """All of ``config.toml``."""

    device: str = Field(
        default="auto",
        pattern=r"^(auto|cpu|cuda(:\d+)?)$",
        description='Where the models run: "auto", "cpu", "cuda" or "cuda:N".',
        json_schema_extra={"allowed": "auto, cpu, cuda or cuda:N"},
    )
    models: Models = Models()
    key_frames: KeyFrames = KeyFrames()
    translation: Translation = Translation()
    control: Control = Control()
    constraints: Constraints = Constraints()
    flow: Flow = Flow()
    prompts: Prompts = Prompts()
    propagation: Propagation = Propagation()
    output: Output = Output()

    def fingerprint(self) -> str:
        """SHA-256 (hex) of every setting that changes the result: not where it is computed."""
        values = self.model_dump(mode="json")
        del values["device"], values["models"]["offline"]
        return hashlib.sha256(
            json.dumps(values, sort_keys=True, separators=(",", ":")).encode()
        ).hexdigest()


@dataclass(frozen=True)
class Layer:
    """Settings from one source: dotted key to value."""

    source: str
    values: Mapping[str, Any]


def keys(model: type[Section] = Settings, prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every dotted key of ``config.toml`` with its field, in the order of the file."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from keys(field.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name, field


def allowed(field: FieldInfo) -> str:
    """What a key may hold, in words: ``3 to 16``, ``true or false``."""
    extra = field.json_schema_extra
    if isinstance(extra, dict) and "allowed" in extra:
        return str(extra["allowed"])
    if get_origin(field.annotation) is Literal:
        return " or ".join(get_args(field.annotation))
    if get_origin(field.annotation) is tuple:
        _, limits = get_args(get_args(field.annotation)[0])
        return f"a list of whole numbers, each {_limits(limits.metadata)}"
    if field.annotation is bool:
        return "true or false"
    if field.annotation is str:
        return "text" + (", not empty" if field.metadata else "")
    kind = "a whole number" if field.annotation is int else "a number"
    return f"{kind}, {_limits(field.metadata)}"


def _limits(metadata: list[Any]) -> str:
    limits = {
        name: getattr(item, name)
        for item in metadata
        for name in ("ge", "gt", "le", "multiple_of")
        if hasattr(item, name)
    }
    low = f"{limits['ge']:g}" if "ge" in limits else f"above {limits['gt']:g}"
    text = f"{low} to {_plain(limits['le'])}"
    if "multiple_of" in limits:
        text += f", a multiple of {limits['multiple_of']}"
    return text


def _plain(number: float) -> str:
    return str(int(number)) if number == int(number) else str(number)


def read_toml(path: Path) -> Layer:
    """Read a ``config.toml``.

    Raises:
        ConfigError: the file cannot be read or is not TOML; an unknown key or a bad value.
    """
    try:
        tables = tomllib.loads(path.read_bytes().decode())
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{path}: not a TOML file: {error}") from error
    return checked(Layer(str(path), dict(_flatten(tables))))


def _flatten(tables: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in tables.items():
        if isinstance(value, dict):
            yield from ((f"{name}.{key}", inner) for key, inner in value.items())
        else:
            yield name, value


def checked(layer: Layer) -> Layer:
    """The layer itself, when every key exists and every value is allowed.

    Raises:
        ConfigError: with the source, the key, and the nearest name or what is allowed.
    """
    known = dict(keys())
    for key, value in layer.values.items():
        if key not in known:
            raise ConfigError(f"{layer.source}: {key}: {unknown(key, known)}")
        try:
            _tree({key: value})
        except ValidationError:
            shown = json.dumps(value, default=str)
            raise ConfigError(
                f"{layer.source}: {key} = {shown} is not allowed: give {allowed(known[key])}"
            ) from None
    return layer


def unknown(key: str, known: Mapping[str, object]) -> str:
    """``no such key; did you mean …?``"""
    if key in Settings.model_fields:
        return f"is a section, not a key: write [{key}] and its keys below"
    last = key.rpartition(".")[2]
    same = [name for name in known if name.rpartition(".")[2] == last]
    by_last = {name.rpartition(".")[2]: name for name in known}
    near = (
        same
        or difflib.get_close_matches(key, known, n=1, cutoff=0.7)
        or [by_last[name] for name in difflib.get_close_matches(last, by_last, n=1)]
    )
    if near:
        return f"no such key; did you mean {near[0]}?"
    return "no such key; frescod check-config lists all keys"


def _tree(values: Mapping[str, Any]) -> Settings:
    tree: dict[str, Any] = {}
    for key, value in values.items():
        section, _, name = key.rpartition(".")
        (tree.setdefault(section, {}) if section else tree)[name] = value
    return Settings.model_validate(tree)


def merge(*layers: Layer) -> Settings:
    """Settings from checked layers, a later one going before an earlier one.

    Raises:
        ConfigError: values that exclude each other.
    """
    values: dict[str, Any] = {}
    source: dict[str, str] = {}
    for layer in layers:
        values.update(layer.values)
        source.update(dict.fromkeys(layer.values, layer.source))
    settings = _tree(values)
    frames, translation, control = settings.key_frames, settings.translation, settings.control
    for low, high, low_key, high_key, fits in (
        (frames.min_interval, frames.max_interval, "key_frames.min_interval",
         "key_frames.max_interval", frames.min_interval <= frames.max_interval),
        (translation.warmup_steps, translation.steps, "translation.warmup_steps",
         "translation.steps", translation.warmup_steps < translation.steps),
        (control.canny_low, control.canny_high, "control.canny_low",
         "control.canny_high", control.canny_low <= control.canny_high),
    ):  # fmt: skip
        if not fits:
            raise ConfigError(
                f"{low_key} = {low} ({source.get(low_key, 'default')}) does not go with "
                f"{high_key} = {high} ({source.get(high_key, 'default')}): "
                f"make the first smaller or the second larger"
            )
    return settings


def to_toml(settings: Settings) -> str:
    """The settings as a ``config.toml`` with every key described."""
    values = settings.model_dump(mode="json")
    lines: list[str] = []
    section = ""
    for key, field in keys():
        table, _, name = key.rpartition(".")
        if table != section:
            section = table
            about = (Settings.model_fields[table].annotation.__doc__ or "").strip()
            lines += ["", f"# {about}", f"[{table}]"]
        value = values[table][name] if table else values[name]
        hint = "" if field.annotation is str else f" ({allowed(field)})"
        lines += textwrap.wrap(
            f"{field.description}{hint}", 96, initial_indent="# ", subsequent_indent="# "
        )
        lines += [f"{name} = {json.dumps(value, ensure_ascii=False)}"]
    return "\n".join(lines).lstrip("\n") + "\n"
