"""Settings on the command line: the options they come from, the same for every command."""

import shlex
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, get_origin

import click
from pydantic import BeforeValidator

from daemon.config import Layer, checked, keys, merge, read_toml
from daemon.presets import PRESETS, PREVIEW, preset_layers
from daemon.settings import Settings
from fresco_core.errors import ModelsError

PULL = "frescod models pull"  # as in messages about missing weights
SYSTEM_CONFIG = Path("/etc/frescod/config.toml")
Command = TypeVar("Command", bound=Callable[..., Any])

# Keys that hold a list: whether one value may be written as such.
LISTS = {
    key: any(isinstance(each, BeforeValidator) for each in field.metadata)
    for key, field in keys()
    if get_origin(field.annotation) is tuple
}

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def _control_type(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> str | None:
    if value is not None:
        kind = click.Choice(["hed", "canny", "depth"])
        for part in value.split(","):
            kind.convert(part.strip(), parameter, context)
    return value


def settings_options(command: Command) -> Command:
    """The options that settings come from, the same for every command."""
    for option in (
        click.option("--seed", type=int, help="Start of all random numbers."),
        click.option(
            "--devices",
            "--device",
            "devices",
            metavar="LIST",
            help="auto (all GPUs), or a list: cuda:0,cuda:1, cpu, cpu*2.",
        ),
        click.option(
            "--control-type",
            metavar="KIND",
            callback=_control_type,
            help="Kind of control map: hed, canny or depth; several with commas between.",
        ),
        click.option(
            "--set",
            "assignments",
            multiple=True,
            metavar="KEY=VALUE",
            help="Any key of config.toml, as in --set key_frames.batch_size=6.",
        ),
        click.option(
            "--preview", is_flag=True, help="A first look: as --preset preview, after the others."
        ),
        click.option(
            "--preset",
            "presets",
            multiple=True,
            type=click.Choice(list(PRESETS)),
            help="Settings that go together; may be given again, the last one counts.",
        ),
        click.option(
            "--base-config", type=FILE, metavar="YAML", help="Job file of the published FRESCO."
        ),
        click.option(
            "--config",
            type=FILE,
            metavar="TOML",
            help="Settings; without it ./config.toml, if there is one.",
        ),
    ):
        command = option(command)
    return command


def gather_settings(
    config: Path | None = None,
    base_config: Path | None = None,
    assignments: Sequence[str] = (),
    control_type: str | None = None,
    devices: str | None = None,
    seed: int | None = None,
    presets: Sequence[str] = (),
    preview: bool = False,
) -> tuple[Settings, tuple[str, ...]]:
    """Settings and warnings; command line beats presets beat YAML beats TOML.

    Raises:
        ConfigError: an unknown key or a bad value.
        click.BadParameter: an assignment that is none.
    """
    layers: list[Layer] = []
    warnings: tuple[str, ...] = ()
    if config is None and Path("config.toml").is_file():
        config = Path("config.toml")
    if config is not None:
        layers.append(read_toml(config))
    if base_config is not None:
        from daemon.base_config import read_base_config  # imports YAML, which few need

        job = read_base_config(base_config)
        layers.append(job.layer)
        warnings = job.warnings
    layers += preset_layers([*presets, PREVIEW] if preview else presets)
    values: dict[str, Any] = assigned(assignments)
    named = {"control.type": control_type, "devices": devices, "translation.seed": seed}
    values.update({key: value for key, value in named.items() if value is not None})
    layers.append(checked(Layer("command line", values, typed=False)))
    return merge(*layers), warnings


def service_config(config: Path | None) -> Path | None:
    """The file that the daemon's settings come from: as given, of this folder, of the system."""
    if config is None and not Path("config.toml").is_file() and SYSTEM_CONFIG.is_file():
        return SYSTEM_CONFIG
    return config


@contextmanager
def naming_pull(options: dict[str, Any]) -> Iterator[None]:
    """Have messages about missing weights name the command that fetches just these."""
    try:
        yield
    except ModelsError as error:
        raise ModelsError(with_pull(str(error), options)) from error


def with_pull(text: str, options: Mapping[str, Any]) -> str:
    """A message about missing weights, naming the command that fetches just these."""
    return text.replace(f"run `{PULL}`", f"run `{pull_command(**options)}`")


def pull_command(
    config: Path | None = None,
    base_config: Path | None = None,
    assignments: Sequence[str] = (),
    control_type: str | None = None,
    **others: object,
) -> str:
    """The command line that fetches what these options need; others make no difference."""
    options = {"--config": config, "--base-config": base_config, "--control-type": control_type}
    words = [*PULL.split()]
    for name, value in options.items():
        words += [name, str(value)] if value is not None else []
    for assignment in assignments:
        words += ["--set", assignment]
    return shlex.join(words)


def assigned(texts: Sequence[str]) -> dict[str, Any]:
    """Values by key of the ``--set`` options.

    Raises:
        click.BadParameter: see `assignment`; or a key that holds a list is there twice, where both
            may have been meant. Of other keys the last one counts.
    """
    values: dict[str, Any] = {}
    for key, value in map(assignment, texts):
        if key in values and key in LISTS:
            raise click.BadParameter(
                f"{key} is set twice: several values are {key}=A,B", param_hint="--set"
            )
        values[key] = value
    return values


def assignment(text: str) -> tuple[str, Any]:
    """Key and value of ``key=value``; the value is text, unless it is quoted or a list.

    The text of a key that holds a list is a list with commas between.

    Raises:
        click.BadParameter: it is not of that form, or names presets.
    """
    key, equals, value = (part.strip() for part in text.partition("="))
    if not equals or not key:
        raise click.BadParameter(f"{text!r} is not of the form key=value", param_hint="--set")
    if key == "preset":
        raise click.BadParameter("presets have an option: --preset NAME", param_hint="--set")
    if value.startswith(("[", '"', "'")):
        try:
            return key, tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            raise click.BadParameter(
                f"{text!r}: the value is not TOML", param_hint="--set"
            ) from None
    if key in LISTS and ("," in value or not LISTS[key]):
        return key, [part.strip() for part in value.split(",")] if value else []
    return key, value
