"""The commands that set frescod up on a machine: ``install-service`` and ``doctor``."""

import re
from pathlib import Path

import click

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
