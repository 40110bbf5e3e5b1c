"""``config.toml``: read, checked key by key, merged with other sources, written."""

import difflib
import json
import textwrap
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from daemon.section import Section
from daemon.settings import Settings
from fresco_core.errors import ConfigError

WARMUP, STRENGTH = "translation.warmup_steps", "translation.strength"
CONTROL_TYPE, CONTROLNET = "control.type", "models.controlnet"


@dataclass(frozen=True)
class Layer:
    """Settings from one source: dotted key to value.

    ``typed``: values have types of their own; else they may be text, read as what the key holds.
    """

    source: str
    values: Mapping[str, Any]
    typed: bool = True


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
        return " or ".join(str(choice) for choice in get_args(field.annotation))
    if get_origin(field.annotation) is tuple:
        if get_args(field.annotation)[0] is str:
            return "a list of texts"
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
        tables = tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{path}: not a TOML file: {error}") from error
    return checked(Layer(str(path), dict(flatten(tables))))


def flatten(tables: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Dotted keys of what TOML has as tables."""
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
            _tree({key: value}, strict=layer.typed)
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


def _tree(values: Mapping[str, Any], *, strict: bool = False) -> Settings:
    tree: dict[str, Any] = {}
    for key, value in values.items():
        section, _, name = key.rpartition(".")
        value = tuple(value) if isinstance(value, list) else value
        (tree.setdefault(section, {}) if section else tree)[name] = value
    return Settings.model_validate(tree, strict=strict)


def merge(*layers: Layer) -> Settings:
    """Settings from checked layers, a later one going before an earlier one.

    Raises:
        ConfigError: values that exclude each other.
    """
    values: dict[str, Any] = {}
    source: dict[str, str] = {}
    named_for: tuple[str, ...] | None = None  # the kind that a ControlNet was named beside
    for layer in layers:
        if WARMUP in layer.values and STRENGTH not in layer.values:
            values.pop(STRENGTH, None)  # two ways to say one thing: the last one said counts
        for network in ("flow", "saliency"):
            model, weights = f"{network}.model", f"{network}.weights"
            if model in values and layer.values.get(model, values[model]) != values[model]:
                values.pop(weights, None)  # they are the other model's
        values.update(layer.values)
        if CONTROLNET in layer.values:
            named_for = _tree(values).control.type if CONTROL_TYPE in values else None
        source.update(dict.fromkeys(layer.values, layer.source))
    settings = _tree(values)
    if named_for is not None:
        _check_controlnet(settings, source, named_for)
    _check_together(settings, source)
    return settings


def _check_controlnet(
    settings: Settings, source: Mapping[str, str], named_for: tuple[str, ...]
) -> None:
    """Refuse a ControlNet for another kind of control maps: what it would see means nothing to it.

    ``named_for``: the kinds as they were where it was named.
    """
    networks, kinds = settings.models.controlnet, settings.control.type
    if settings.control.enabled and any(networks) and named_for != kinds:
        raise ConfigError(
            f"{CONTROL_TYPE} = {_kinds(kinds)} ({source[CONTROL_TYPE]}) does not go with "
            f"{CONTROLNET} = {_kinds(networks)} ({source[CONTROLNET]}), which was named for "
            f'{_kinds(named_for)}: name another one where the kind is, or "" for the '
            "usual one"
        )


def _kinds(values: tuple[str, ...]) -> str:
    return json.dumps(values[0] if len(values) == 1 else list(values), ensure_ascii=False)


def _check_together(settings: Settings, source: Mapping[str, str]) -> None:
    """Refuse values that exclude each other; ``source``: where a key's value comes from."""
    frames, translation = settings.key_frames, settings.translation
    control, constraints = settings.control, settings.constraints
    for low, high, low_key, high_key, fits in (
        (frames.min_interval, frames.max_interval, "key_frames.min_interval",
         "key_frames.max_interval", frames.min_interval <= frames.max_interval),
        (translation.warmup_steps, translation.steps, "translation.warmup_steps",
         "translation.steps",
         translation.strength > 0 or translation.warmup_steps < translation.steps),
        (control.canny_low, control.canny_high, "control.canny_low",
         "control.canny_high", control.canny_low <= control.canny_high),
        (constraints.smoothing_begin, constraints.smoothing_end, "constraints.smoothing_begin",
         "constraints.smoothing_end", constraints.smoothing_begin <= constraints.smoothing_end),
    ):  # fmt: skip
        if not fits:
            raise ConfigError(
                f"{low_key} = {low} ({source.get(low_key, 'default')}) does not go with "
                f"{high_key} = {high} ({source.get(high_key, 'default')}): "
                f"make the first smaller or the second larger"
            )

    def told(key: str, value: Any) -> str:
        return f"{key} = {json.dumps(value)} ({source.get(key, 'default')})"

    if translation.strength > 0 and not round(translation.strength * translation.steps):
        raise ConfigError(
            f"{told('translation.strength', translation.strength)} of "
            f"{told('translation.steps', translation.steps)} is no step: make one of them larger"
        )
    if settings.propagation.patch % 2 == 0:
        raise ConfigError(
            f"{told('propagation.patch', settings.propagation.patch)} is not allowed: give an odd "
            "number"
        )
    kinds = list(control.type)
    networks = settings.models.controlnet
    count = f"one value or {len(kinds)}" if len(kinds) > 1 else "one value"
    for key, values in (
        ("control.scale", control.scale),
        ("control.source", control.source),
        ("models.controlnet", networks),
    ):
        if len(values) not in (1, len(kinds)):
            raise ConfigError(
                f"{told(key, list(values))} does not go with {told('control.type', kinds)}: give "
                f"{count}"
            )
    if len(kinds) > 1 and len(networks) == 1 and networks[0]:
        raise ConfigError(
            f"{told('models.controlnet', networks[0])} does not go with "
            f"{told('control.type', kinds)}: name a ControlNet for each, in a list"
        )


def toml_value(key: str, value: Any) -> Any:
    """What a checked value, which may be text, is called in a ``config.toml``."""
    tree = _tree({key: value}).model_dump(mode="json")
    section, _, name = key.rpartition(".")
    return tree[section][name] if section else tree[name]


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
