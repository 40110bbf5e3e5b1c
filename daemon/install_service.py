"""``frescod install-service``: the files that make a systemd service of this program."""

import os
import re
import shlex
import sys
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import click

from daemon.printable import printable
from fresco_core.errors import ConfigError, FrescodError

# Where each goes; the settings are whose machine it is, and are written only where there are none.
PLACES = {
    "frescod.service": "etc/systemd/system/frescod.service",
    "metrics.conf.example": "etc/systemd/system/frescod.service.d/metrics.conf.example",
    "frescod.sysusers": "etc/sysusers.d/frescod.conf",
    "frescod.tmpfiles": "etc/tmpfiles.d/frescod.conf",
    "config.toml": "etc/frescod/config.toml",
}
KEPT = frozenset({"config.toml"})
CACHE = "/var/cache/frescod"

# What the unit's ProtectHome and PrivateTmp hide from the service.
_HIDDEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")


@dataclass(frozen=True)
class ServiceFile:
    """A file of the service: where it goes, below the root; whether an older one is kept."""

    place: Path
    text: str
    kept: bool


def install(root: Path, user: str, printed: bool) -> int:
    """Write the service's files below ``root``, or print them; returns the exit code.

    Raises:
        FrescodError: they cannot be written.
        ConfigError: this program cannot be a service as it is installed.
    """
    program = find_program()
    files = service_files(program, user)
    if printed:
        click.echo("\n".join(f"# --- /{file.place}\n{file.text}" for file in files), nl=False)
    else:
        for file in files:
            path = root / file.place
            try:
                done = write(file, root)
            except OSError as error:
                raise FrescodError(
                    f"{printable(path)}: cannot be written ({error.strerror}): run it as root, "
                    f"sudo {shlex.quote(str(program))} install-service, or with --print or --root"
                ) from error
            click.echo(f"{done:<10} {printable(path)}")
        click.echo(next_steps(program, user))
    if (lost := hidden(program)) is not None:
        click.echo(
            f"warning: {printable(lost)} is hidden from the service (ProtectHome, PrivateTmp): "
            "install frescod and its Python elsewhere, such as /opt/frescod",
            err=True,
        )
    return 0


def service_files(program: Path, user: str) -> tuple[ServiceFile, ...]:
    """The files of a service that runs ``program`` as ``user``."""
    templates = resources.files("daemon") / "systemd"
    files = []
    for name, place in PLACES.items():
        text = (templates / name).read_text(encoding="utf-8")
        word = exec_word(program) if name.endswith(".service") else shlex.quote(str(program))
        text = text.replace("@USER@", user).replace("@FRESCOD@", word)
        files.append(ServiceFile(Path(place), text, name in KEPT))
    return tuple(files)


def find_program() -> Path:
    """The absolute path of the ``frescod`` that runs.

    Raises:
        ConfigError: it was started in another way.
    """
    started = Path(sys.argv[0]).absolute()
    for path in (Path(sys.executable).absolute().parent / "frescod", started):
        if path.name == "frescod" and path.is_file() and os.access(path, os.X_OK):
            return path
    raise ConfigError(
        f"no frescod beside {printable(sys.executable)}: install it there (pip install), then run "
        "its install-service"
    )


def exec_word(program: Path) -> str:
    """A path as the first word of ``ExecStart=``, as systemd reads it.

    Raises:
        ConfigError: systemd runs no program of such a name.
    """
    text = str(program)
    if not text.isprintable() or set(text) & set("\"'\\"):
        raise ConfigError(
            f"{printable(program)}: systemd cannot run a program of this name: install frescod "
            "in a folder with a plain name, such as /opt/frescod"
        )
    text = text.replace("%", "%%")
    return text if re.fullmatch(r"[\w/.%+-]+", text) else f'"{text}"'


def write(file: ServiceFile, root: Path) -> str:
    """Bring one file about; returns what was done: written, replaced, unchanged or kept.

    What is there is replaced in one rename, unless it is to be kept or is a link, as ``systemctl
    mask`` makes.

    Raises:
        OSError: it cannot be written.
    """
    path = root / file.place
    content = file.text.encode()
    there = path.read_bytes() if path.is_file() else None
    if there == content:
        return "unchanged"
    if path.is_symlink() or (file.kept and there is not None):
        return "kept"
    for folder in reversed(path.parents):
        if not folder.is_dir():
            folder.mkdir()
            folder.chmod(0o755)  # whatever the umask: the service has to get there
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as stream:
            stream.write(content)
            os.fchmod(stream.fileno(), 0o644)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.rename(path)
    finally:
        temporary.unlink(missing_ok=True)
    return "written" if there is None else "replaced"


def next_steps(program: Path, user: str) -> str:
    """What is left to be done, as text."""
    command = shlex.quote(str(program))
    config = f"/{PLACES['config.toml']}"
    as_user = f"runuser -u {user} -- env XDG_CACHE_HOME={CACHE} {command}"
    return f"""
Next, as root:
    systemd-sysusers
    systemd-tmpfiles --create
    {as_user} models pull --config {config}
    {as_user} doctor --config {config}
    systemctl daemon-reload
    systemctl enable --now frescod"""


def hidden(program: Path) -> Path | None:
    """A part of this program that the service would not find, if there is one."""
    for part in (program, Path(__file__), Path(sys.executable)):
        for path in (part.absolute(), part.resolve()):
            if any(path.is_relative_to(folder) for folder in _HIDDEN):
                return path
    return None
