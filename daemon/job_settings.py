"""A job's own settings: ``<stem>.toml`` beside its clip, over those of the program."""

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from daemon.config import Layer, checked, flatten, keys, merge, unknown
from daemon.presets import preset_layers, preset_names
from daemon.printable import printable
from daemon.settings import Settings
from fresco_core.errors import ClipError, ConfigError
from io_pipeline.regular_file import open_regular

MAX_BYTES = 64 << 10
MAX_MESSAGE = 300  # characters of what is wrong
PRIORITY, PRESET = "priority", "preset"
PRIORITIES = range(-1000, 1001)

_SECTIONS = (
    "key_frames", "translation", "constraints", "freeu", "prompts", "propagation", "output"
)  # fmt: skip
_SINGLE = ("clips.on_truncated", "control.scale", "control.canny_low", "control.canny_high")
# Who propagates, and how much at once; where results go.
_NOT = (
    "propagation.engine",
    "propagation.program",
    "propagation.processes",
    "propagation.device",
    "propagation.device_memory",
    "output.folder",
)
# All else is loaded once for all clips, or names a place on this machine.
ALLOWED = frozenset(
    key
    for key, _ in keys()
    if key in _SINGLE or (key.partition(".")[0] in _SECTIONS and key not in _NOT)
)


def job_settings(settings: Settings, file: Path | None, source: Path | None = None) -> Settings:
    """The settings of one job: its own file goes before the program's; None: it has none.

    In the file, what is set by name goes before its ``preset``.
    ``source``: where the file is to be opened, as `daemon.job_files.JobFiles` has it.

    Raises:
        ClipError: the file cannot be read, is none or too large; it is not TOML, or has a key or a
            value that is not allowed; values exclude each other.
    """
    if file is None:
        return settings
    name = printable(file.name)
    values = _read(file, source)
    try:
        priority = values.pop(PRIORITY, 0)
        if not _is_priority(priority):
            raise ConfigError(
                f"{name}: {PRIORITY} = {json.dumps(priority, default=str)} is not allowed: give a "
                f"whole number, {PRIORITIES[0]} to {PRIORITIES[-1]}"
            )
        presets = preset_names(name, values.pop(PRESET, []))
        own = _checked(Layer(name, values))
        ours = settings.model_dump(exclude_defaults=True)
        return merge(Layer("config.toml", dict(flatten(ours))), *preset_layers(presets), own)
    except ValueError as error:  # it cannot even be shown
        raise ClipError(f"{name}: has a number that is too long") from error
    except ConfigError as error:
        text = printable(str(error))
        raise ClipError(text if len(text) <= MAX_MESSAGE else f"{text[:MAX_MESSAGE]}…") from error


def job_priority(file: Path | None) -> int:
    """The ``priority`` of a job's settings file; 0 where it has none, or none that is allowed."""
    if file is None:
        return 0
    try:
        priority = _read(file).get(PRIORITY, 0)
    except ClipError:  # told when the job is begun
        return 0
    return priority if _is_priority(priority) else 0


def _is_priority(value: Any) -> bool:
    return type(value) is int and value in PRIORITIES


def _read(file: Path, source: Path | None = None) -> dict[str, Any]:
    """Dotted key to value."""
    name, source = printable(file.name), source or file
    try:
        # What is held is opened by a link of the kernel's own.
        with open_regular(source, follow=source != file) as content:
            data = content.read(MAX_BYTES + 1)
    except OSError as error:
        raise ClipError(f"{name}: cannot be read: {error.strerror}") from error
    if len(data) > MAX_BYTES:
        raise ClipError(f"{name}: is larger than 64 KiB; are these the clip's settings?")
    try:
        return dict(flatten(tomllib.loads(data.decode("utf-8-sig"))))
    except UnicodeDecodeError as error:
        raise ClipError(f"{name}: is not UTF-8 text; save it as UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise ClipError(f"{name}: not a TOML file: {printable(str(error))}") from error


def _checked(layer: Layer) -> Layer:
    """As `daemon.config.checked`, of the keys that a job may have."""
    everything: Mapping[str, object] = dict(keys())
    for key in layer.values:
        if key in ALLOWED:
            continue
        if key in everything:
            raise ConfigError(
                f"{layer.source}: {key} cannot be set for one clip: set it in config.toml"
            )
        near = unknown(key, dict.fromkeys([*sorted(ALLOWED), PRIORITY, PRESET]))
        raise ConfigError(f"{layer.source}: {key}: {near}")
    return checked(layer)
