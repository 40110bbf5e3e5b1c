"""The command line: options in, exit code out. What it does lives in the other modules."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import click

from daemon.command_settings import gather_settings, naming_pull, pull_command, settings_options
from daemon.config import to_toml
from daemon.printable import printable
from daemon.service_commands import SERVICE_COMMANDS
from daemon.setup_commands import doctor, install_service
from fresco_core.errors import FrescodError

INTERRUPTED = 130

# Every option can be spelled with underscores too: --video_folder.
CONTEXT = {
    "token_normalize_func": lambda name: name.replace("_", "-"),
    "help_option_names": ["-h", "--help"],
    "max_content_width": 100,
}
FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@click.group(context_settings=CONTEXT)
@click.version_option(package_name="frescod", prog_name="frescod")
def cli() -> None:
    """Turn simulator clips into photo-realistic ones, with FRESCO."""


@cli.command()
@click.option(
    "--video-folder",
    type=FOLDER,
    metavar="DIR",
    help="Clips: .mp4 .avi .mov .mkv. Without it: the one clip that --base-config names.",
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
    metavar="DIR",
    help="Gets a folder for each clip. Default: output, or the save_path of --base-config's clip.",
)
@click.option("--prompt", metavar="TEXT", help="What clips without a prompt file are to look like.")
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
    video_folder: Path | None,
    prompt_folder: Path | None,
    output_folder: Path | None,
    prompt: str | None,
    force: bool,
    timeline: Path | None,
    debug: bool,
    **options: Any,
) -> int:
    """Translate a folder of clips, or one clip, then end.

    Exit code: 0 all done, 1 some clips failed, 2 wrong usage, 69 no usable device, 75 another run
    writes there, 78 wrong settings or missing weights, 130 or 143 interrupted.
    """
    settings, warnings = gather_settings(**options)
    from daemon.run_input import run_input

    given = run_input(video_folder, prompt_folder, output_folder, prompt, options["base_config"])
    if given.only is not None:
        warnings = ()  # they are about what does not count for other clips
    from daemon.one_shot import run_folder

    with naming_pull(options):
        return run_folder(
            given.clips,
            given.prompts,
            given.output,
            settings,
            warnings=warnings,
            force=force,
            debug=debug,
            timeline=timeline,
            prompt=given.prompt,
            only=given.only,
        )


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


for command in (*SERVICE_COMMANDS, doctor, install_service):
    cli.add_command(command)


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
