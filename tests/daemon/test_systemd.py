"""The unit files, asked of systemd itself and read line by line."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from daemon.install_service import PLACES, service_files, write
from tests.conftest import ROOT

UNIT = ROOT / "systemd" / "frescod.service"
needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)

# What says itself what it does.
OBVIOUS = frozenset(
    {"Description", "Type", "User", "Group", "WantedBy", "WorkingDirectory", "StateDirectory"}
)


def installed(root: Path, folder: str = "bin") -> Path:
    """The unit below ``root``, for a program that is there."""
    program = root / folder / "frescod"
    program.parent.mkdir(parents=True)
    program.touch(mode=0o755)
    for file in service_files(program, "frescod"):
        write(file, root)
    return root / PLACES["frescod.service"]


def analyze(*words: str | Path) -> "subprocess.CompletedProcess[str]":
    command = ["systemd-analyze", "--no-pager", *map(str, words)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, env=os.environ | {"LC_ALL": "C.UTF-8"}
    )


def directives(path: Path = UNIT) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in path.read_text().splitlines():
        if line and not line.startswith(("#", "[")):
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


@needs_systemd
@pytest.mark.parametrize("folder", ["bin", "b in", "é %n $HOME ; @-"])
def test_systemd_has_nothing_to_say_against_the_unit(tmp_path: Path, folder: str) -> None:
    answer = analyze("verify", installed(tmp_path, folder))
    # It exits 0 where it does not know a directive, too: only silence is a yes.
    assert answer.stderr + answer.stdout == ""
    assert answer.returncode == 0


@needs_systemd
def test_verify_would_tell(tmp_path: Path) -> None:
    unit = installed(tmp_path)
    unit.write_text(unit.read_text().replace("KillMode=", "KilMode="))
    assert "KilMode" in analyze("verify", unit).stderr


@needs_systemd
@pytest.mark.parametrize("metrics", [False, True])
def test_exposure(tmp_path: Path, metrics: bool) -> None:
    unit = installed(tmp_path)
    threshold = 15
    if metrics:
        example = tmp_path / PLACES["metrics.conf.example"]
        example.rename(example.with_suffix(""))
        assert analyze("verify", unit).stderr == ""
        threshold = 25
        # security reads no drop-ins of a file: they are what comes last in it
        unit.write_text(unit.read_text() + example.with_suffix("").read_text())
    answer = analyze("security", "--offline=true", f"--threshold={threshold}", unit)
    assert answer.returncode == 0, answer.stdout


@needs_systemd
def test_users_and_folders_can_be_made(tmp_path: Path) -> None:
    installed(tmp_path)
    if os.geteuid() != 0 or shutil.which("systemd-sysusers") is None:
        pytest.skip("needs root and systemd-sysusers")
    for command in (["systemd-sysusers"], ["systemd-tmpfiles", "--create"]):
        subprocess.run([*command, f"--root={tmp_path}"], check=True, capture_output=True)
    user = (tmp_path / "etc/passwd").read_text().split(":")
    assert user[0] == "frescod"
    assert user[6].strip().endswith("nologin")
    for name, mode in (("inbox", 0o2770), ("output", 0o2750)):
        status = (tmp_path / "srv/frescod" / name).stat()
        assert status.st_mode & 0o7777 == mode
        assert (status.st_uid, status.st_gid) == (int(user[2]), int(user[3]))


def test_what_the_daemon_needs_is_not_forbidden() -> None:
    found = directives()
    # Numba, Triton and CUDA write the code they run; GPUs are devices; memory is read from /proc.
    for name in ("MemoryDenyWriteExecute", "PrivateDevices", "ProcSubset"):
        assert name not in found
    allowed = {value.split()[0] for value in found["DeviceAllow"]}
    assert {"char-nvidia", "char-nvidiactl", "char-nvidia-uvm", "char-nvidia-caps"} <= allowed
    assert not any("@resources" in value for value in found["SystemCallFilter"])


def test_the_services_promises() -> None:
    found = directives()
    for name, value in {
        "Type": "notify",
        "KillMode": "mixed",
        "OOMPolicy": "continue",
        "Restart": "on-failure",
        "RestartPreventExitStatus": "78 2",
        "WatchdogSec": "60",
        "DevicePolicy": "closed",
        "ProtectSystem": "strict",
        "NoNewPrivileges": "yes",
        "CapabilityBoundingSet": "",
        "RestrictAddressFamilies": "AF_UNIX",
    }.items():
        assert found[name] == [value], name


def test_every_directive_that_is_not_obvious_says_why() -> None:
    """A comment stands over each group of lines, a group ending at an empty line or a comment."""
    explained = False
    for line in UNIT.read_text().splitlines():
        if line.startswith("#"):
            explained = True
        elif not line or line.startswith("["):
            explained = False
        else:
            name = line.partition("=")[0]
            assert explained or name in OBVIOUS, f"{name} has no comment"


def test_the_template_settings_fit_the_sandbox() -> None:
    found = directives()
    settings = (ROOT / "systemd" / "config.toml").read_text()
    output = re.search(r'\[output\]\nfolder = "(.*)"', settings)
    assert output is not None
    assert found["ReadWritePaths"] == [f"-{output[1]}"]
    assert 'state = "/var/lib/frescod"' in settings
    assert found["StateDirectory"] == found["RuntimeDirectory"] == ["frescod"]
    assert "offline = true" in settings
