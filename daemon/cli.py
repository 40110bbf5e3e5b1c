"""The command line: options in, exit code out. What it does lives in the other modules."""

import os
import shlex
import sys
import tomllib
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click

from daemon.base_config import read_base_config
from daemon.config import Layer, checked, merge, read_toml, to_toml
from daemon.printable import printable
from daemon.settings import Settings
from fresco_core.errors import FrescodError, ModelsError

INTERRUPTED = 130
PULL = "frescod models pull"  # as in messages about missing weights
Command = TypeVar("Command", bound=Callable[..., Any])

# Every option can be spelled with underscores too: --video_folder.
CONTEXT = {
    "token_normalize_func": lambda name: name.replace("_", "-"),
    "help_option_names": ["-h", "--help"],
    "max_content_width": 100,
}
FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


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
            type=click.Choice(["hed", "canny", "depth"]),
            help="Kind of control map.",
        ),
        click.option(
            "--set",
            "assignments",
            multiple=True,
            metavar="KEY=VALUE",
            help="Any key of config.toml, as in --set key_frames.batch_size=6.",
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
    config: Path | None,
    base_config: Path | None,
    assignments: Sequence[str] = (),
    control_type: str | None = None,
    devices: str | None = None,
    seed: int | None = None,
) -> tuple[Settings, tuple[str, ...]]:
    """Settings and warnings; command line beats YAML beats TOML.

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
        layer, warnings = read_base_config(base_config)
        layers.append(layer)
    values: dict[str, Any] = dict(_assignment(text) for text in assignments)
    named = {"control.type": control_type, "devices": devices, "translation.seed": seed}
    values.update({key: value for key, value in named.items() if value is not None})
    layers.append(checked(Layer("command line", values, typed=False)))
    return merge(*layers), warnings


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


def _assignment(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise click.BadParameter(f"{text!r} is not of the form key=value", param_hint="--set")
    value = value.strip()
    if value.startswith(("[", '"', "'")):
        try:
            return key.strip(), tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            raise click.BadParameter(
                f"{text!r}: the value is not TOML", param_hint="--set"
            ) from None
    return key.strip(), value


@click.group(context_settings=CONTEXT)
@click.version_option(metadata.version("frescod"), prog_name="frescod")
def cli() -> None:
    """Turn simulator clips into photo-realistic ones, with FRESCO."""


@cli.command()
@click.option(
    "--video-folder", type=FOLDER, required=True, metavar="DIR", help="Clips: .mp4 .avi .mov .mkv."
)
@click.option(
    "--prompt-folder",
    type=FOLDER,
    metavar="DIR",
    help="A .txt for each clip, of the same stem. Default: the video folder.",
)
@click.option(
    "--output-folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("output"),
    show_default=True,
    metavar="DIR",
    help="Gets a folder for each clip.",
)
@settings_options
@click.option("--force", is_flag=True, help="Do clips again that are done.")
@click.option(
    "--timeline",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="JSON",
    help="Write who worked when (Chrome trace format), and a picture of it beside it.",
)
@click.option("--debug", is_flag=True, help="Show the traceback of an unexpected error.")
def run(
    video_folder: Path,
    prompt_folder: Path | None,
    output_folder: Path,
    force: bool,
    timeline: Path | None,
    debug: bool,
    **options: Any,
) -> int:
    """Translate a folder of clips, then end.

    Exit code: 0 all done, 1 some clips failed, 2 wrong usage, 69 no usable device, 75 another run
    writes there, 78 wrong settings or missing weights, 130 or 143 interrupted.
    """
    settings, warnings = gather_settings(**options)
    from daemon.one_shot import run_folder

    try:
        return run_folder(
            video_folder,
            prompt_folder or video_folder,
            output_folder,
            settings,
            warnings=warnings,
            force=force,
            debug=debug,
            timeline=timeline,
        )
    except ModelsError as error:
        text = str(error).replace(f"run `{PULL}`", f"run `{pull_command(**options)}`")
        raise ModelsError(text) from error


@cli.command()
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("demo"),
    show_default=True,
    metavar="DIR",
    help="Where the clip, the model and the result go.",
)
def demo(output: Path) -> int:
    """Draw a short clip and translate it on the CPU with a tiny random-weight model."""
    from daemon.demo import run_demo

    return run_demo(output)


@cli.group()
def models() -> None:
    """The weights that the settings name."""


@models.command("list")
@settings_options
def models_list(**options: Any) -> int:
    """Show which weights are needed and whether they are here."""
    settings, _ = gather_settings(**options)
    from daemon.weights import list_weights

    return list_weights(settings, pull_command(**options))


@models.command("pull")
@settings_options
def models_pull(**options: Any) -> int:
    """Fetch the weights that are missing."""
    settings, _ = gather_settings(**options)
    from daemon.weights import pull_weights

    return pull_weights(settings)


@cli.command("check-config")
@settings_options
def check_config(**options: Any) -> None:
    """Check the settings and print every key as it would be used."""
    settings, warnings = gather_settings(**options)
    for warning in warnings:
        click.echo(printable(warning), err=True)
    click.echo(to_toml(settings), nl=False)


def run_command(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; a user's mistake is one line on stderr."""
    try:
        return int(cli.main(arguments, prog_name="frescod", standalone_mode=False) or 0)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.exceptions.Exit as exit_:
        return exit_.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("frescod: interrupted; the same command goes on from here", err=True)
        return INTERRUPTED
    except FrescodError as error:
        click.echo(f"frescod: {printable(str(error))}", err=True)
        return error.exit_code


def main() -> NoReturn:
    """Entry point of ``frescod``."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    code = run_command()
    try:
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)
