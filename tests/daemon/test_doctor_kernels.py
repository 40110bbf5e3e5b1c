"""Whether the machine can build GPU kernels."""

import shutil
from pathlib import Path

import pytest

from daemon.doctor import Verdict
from daemon.doctor_kernels import kernels
from daemon.settings import Settings


@pytest.mark.parametrize(
    ("compiler", "headers", "verdict", "remedy"),
    [
        ("/usr/bin/gcc", True, Verdict.OK, ""),
        ("/usr/bin/gcc", False, Verdict.WARNING, "python3-dev"),
        (None, True, Verdict.WARNING, "install gcc"),
    ],
)
def test_what_they_are_built_with(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    compiler: str | None,
    headers: bool,
    verdict: Verdict,
    remedy: str,
) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: compiler)
    if headers:
        (tmp_path / "Python.h").touch()
    (finding,) = kernels(Settings(), lambda: 1, [str(tmp_path)])
    assert finding.verdict == verdict
    assert remedy in finding.remedy


def test_without_a_gpu_nothing_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert not [*kernels(Settings(), lambda: 0)]


def test_devices_that_are_not_there_are_told_elsewhere() -> None:
    assert not [*kernels(Settings(devices="cuda:3"), lambda: 0)]
