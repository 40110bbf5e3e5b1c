"""``frescod install-service``: what it writes, what it leaves alone, what it says."""

import os
import re
import shutil
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from daemon import install_service
from daemon.config import read_toml
from daemon.install_service import PLACES, exec_word, find_program, hidden, service_files
from daemon.setup_commands import install_service as command
from fresco_core.errors import ConfigError, FrescodError
from tests.conftest import ROOT

PROGRAM = Path("/opt/frescod/bin/frescod")
UNIT = PLACES["frescod.service"]
CONFIG = PLACES["config.toml"]


@pytest.fixture(autouse=True)
def program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install_service, "find_program", lambda: PROGRAM)
    monkeypatch.setattr(install_service, "hidden", lambda program: None)


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def done(result: Result) -> dict[str, str]:
    """What was done to each file, by its name in `PLACES`."""
    found = re.findall(r"^(written|replaced|unchanged|kept) +(/.*)$", result.output, re.M)
    return {
        name: word for word, path in found for name, place in PLACES.items() if path.endswith(place)
    }


def test_writes_everything_and_says_what_is_next(tmp_path: Path) -> None:
    result = run("--root", tmp_path)
    assert result.exit_code == 0
    assert done(result) == dict.fromkeys(PLACES, "written")
    for place in PLACES.values():
        assert stat.S_IMODE((tmp_path / place).stat().st_mode) == 0o644
        assert "@" not in re.sub(r"modprobe@|@[a-z]", "", (tmp_path / place).read_text())
    assert [path for path in tmp_path.rglob("*") if path.name.endswith(".tmp")] == []
    for step in (
        "systemd-sysusers",
        "systemd-tmpfiles --create",
        f"{PROGRAM} models pull --config /{CONFIG}",
        "systemctl daemon-reload",
        "systemctl enable --now frescod",
    ):
        assert step in result.output


def test_whatever_the_umask_the_service_can_read_them(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        run("--root", tmp_path)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / CONFIG).stat().st_mode) == 0o644
    assert stat.S_IMODE((tmp_path / CONFIG).parent.stat().st_mode) == 0o755


def test_a_second_time_changes_nothing(tmp_path: Path) -> None:
    run("--root", tmp_path)
    assert done(run("--root", tmp_path)) == dict.fromkeys(PLACES, "unchanged")


def test_settings_are_kept_and_the_unit_is_brought_up_to_date(tmp_path: Path) -> None:
    run("--root", tmp_path)
    (tmp_path / CONFIG).write_text('devices = "cpu"\n')
    (tmp_path / UNIT).write_text("[Service]\n")
    words = done(run("--root", tmp_path))
    assert words["config.toml"] == "kept"
    assert words["frescod.service"] == "replaced"
    assert (tmp_path / CONFIG).read_text() == 'devices = "cpu"\n'
    assert f"ExecStart={PROGRAM} serve" in (tmp_path / UNIT).read_text()


def test_a_masked_unit_stays_masked(tmp_path: Path) -> None:
    (tmp_path / UNIT).parent.mkdir(parents=True)
    (tmp_path / UNIT).symlink_to("/dev/null")
    assert done(run("--root", tmp_path))["frescod.service"] == "kept"
    assert (tmp_path / UNIT).is_symlink()


def test_print_writes_nothing(tmp_path: Path) -> None:
    result = run("--root", tmp_path, "--print")
    assert result.exit_code == 0
    assert list(tmp_path.iterdir()) == []
    for file in service_files(PROGRAM, "frescod"):
        assert f"# --- /{file.place}\n{file.text}" in result.output


def test_another_user(tmp_path: Path) -> None:
    result = run("--root", tmp_path, "--user", "clips")
    assert "runuser -u clips" in result.output
    assert "\nUser=clips\nGroup=clips\n" in (tmp_path / UNIT).read_text()
    assert "\nu clips " in (tmp_path / PLACES["frescod.sysusers"]).read_text()
    assert " clips clips" in (tmp_path / PLACES["frescod.tmpfiles"]).read_text()


@pytest.mark.parametrize("name", ["root", "", "a b", "-x", "a\nExecStartPre=/bin/sh", "%n"])
def test_a_name_that_is_no_ordinary_users(tmp_path: Path, name: str) -> None:
    assert run("--root", tmp_path, "--user", name).exit_code == 2
    assert list(tmp_path.iterdir()) == []


def test_without_rights_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(install_service, "write", refuse)
    error = run("--root", tmp_path).exception
    assert isinstance(error, FrescodError)
    assert f"sudo {PROGRAM} install-service" in str(error)
    assert "\n" not in str(error)


def test_a_write_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("--root", tmp_path)
    (tmp_path / UNIT).write_text("old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert "No space left" in str(run("--root", tmp_path).exception)
    assert (tmp_path / UNIT).read_text() == "old"
    assert [path.name for path in (tmp_path / UNIT).parent.glob(".*")] == []


def test_what_the_sandbox_hides_is_told(tmp_path: Path) -> None:
    assert hidden(Path("/home/me/.venv/bin/frescod")) == Path("/home/me/.venv/bin/frescod")
    assert hidden(Path("/homes/frescod")) != Path("/homes/frescod")


def test_the_program_is_the_one_beside_this_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("python", "frescod"):
        (tmp_path / name).touch(mode=0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert find_program() == tmp_path / "frescod"
    (tmp_path / "frescod").unlink()
    monkeypatch.setattr(sys, "argv", ["/usr/lib/pytest"])
    with pytest.raises(ConfigError, match="pip install"):
        find_program()


@pytest.mark.parametrize(
    ("path", "word"),
    [
        ("/opt/frescod/bin/frescod", "/opt/frescod/bin/frescod"),
        ("/opt/my tools/frescod", '"/opt/my tools/frescod"'),
        ("/opt/100%/frescod", "/opt/100%%/frescod"),
    ],
)
def test_the_path_is_written_as_systemd_reads_it(path: str, word: str) -> None:
    assert exec_word(Path(path)) == word


def test_a_path_that_no_unit_can_hold() -> None:
    for path in ("/a\nUser=root/frescod", "/\udcff/frescod", "/a'b/frescod", '/"/f', "/a\\b"):
        with pytest.raises(ConfigError, match="plain name"):
            exec_word(Path(path))


def test_the_settings_it_writes_are_valid(tmp_path: Path) -> None:
    run("--root", tmp_path)
    values = read_toml(tmp_path / CONFIG).values
    assert values["models.offline"] is True
    assert values["service.state"] == "/var/lib/frescod"
    assert values["service.socket"] == "/run/frescod/control.sock"


def test_a_wheel_has_the_files_too(tmp_path: Path) -> None:
    pytest.importorskip("setuptools", minversion="77")
    source = tmp_path / "source"
    for name in ("daemon", "systemd"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = "from setuptools import build_meta; build_meta.build_wheel('.')"
    subprocess.run([sys.executable, "-c", build], cwd=source, capture_output=True, check=True)
    (wheel,) = source.glob("*.whl")
    assert {f"daemon/systemd/{name}" for name in PLACES} <= set(zipfile.ZipFile(wheel).namelist())
