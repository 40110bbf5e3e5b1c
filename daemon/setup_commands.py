"""The commands that set frescod up on a machine: ``install-service`` and ``doctor``."""

import re
from pathlib import Path
from typing import Any

import click

from daemon.command_settings import gather_settings, service_config, settings_options, with_pull

USER = r"[a-z_][a-z0-9_-]{0,30}"


def _user(context: click.Context, parameter: click.Parameter, value: str) -> str:
    if not re.fullmatch(USER, value) or value == "root":
        raise click.BadParameter(f"{value!r} is no name of an ordinary user")
    return value


@click.command("install-service")
@click.option(
    "--root",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=Path("/"),
    metavar="DIR",
    help="Write below DIR, as for an image of another machine.",
)
@click.option("--print", "printed", is_flag=True, help="Print the files and write nothing.")
@click.option(
    "--user",
    default="frescod",
    show_default=True,
    callback=_user,
    help="Whom the service runs as, and the group that may use it.",
)
def install_service(root: Path, printed: bool, user: str) -> int:
    """Make a systemd service of this frescod.

    Writes the unit, its user, its folders and a first /etc/frescod/config.toml, and says what to do
    next. Run again after an upgrade: settings that are there are kept.
    """
    from daemon.install_service import install

    return install(root, user, printed)


@click.command()
@settings_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(as_json: bool, **options: Any) -> int:
    """Look the machine over: devices, weights, codecs, folders, disk, memory, limits.

    One line for each, with what to do about it. As the service's user, and with its settings, it
    sees what the service will see. Exit code: 1 where there is a problem.
    """
    options["config"] = service_config(options["config"])
    settings, _ = gather_settings(**options)
    from daemon.doctor import Check, doctor
    from daemon.doctor_checks import CHECKS
    from daemon.doctor_folders import job_file

    checks = [*CHECKS]
    if base_config := options["base_config"]:
        checks.append(Check("job file", lambda _: job_file(base_config)))
    return doctor(settings, checks, as_json, lambda text: with_pull(text, options))
