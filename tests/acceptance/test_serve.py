"""The real ``frescod serve`` with the tiny model."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from daemon.config import Layer, merge, to_toml
from fresco_core.tiny_model import make_tiny_model
from tests.acceptance.test_run import QUICK, drop, environment, frescod

PATIENCE = 120.0


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


def configure(folder: Path, model: tuple[Path | str, Path | str], **values: Any) -> None:
    """A config.toml for a daemon in a folder, with a clip in its inbox."""
    quick = dict(assignment.split("=") for assignment in QUICK)
    typed = {key: json.loads(value) if value else "" for key, value in quick.items()}
    base, controlnet = map(str, model)
    changed = {key.replace("__", "."): value for key, value in values.items()}
    settings = merge(
        Layer("quick", typed),
        Layer("model", {"models.base": base, "models.controlnet": controlnet}),
        Layer("test", {"control.type": "canny", "devices": "cpu", "inbox.quiet_seconds": 0.1}),
        Layer("changed", changed),
    )
    (folder / "config.toml").write_text(to_toml(settings))
    (folder / "inbox").mkdir()
    drop(folder / "inbox", "a.mp4", 8)


@contextmanager
def serving(folder: Path) -> Iterator["subprocess.Popen[str]"]:
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "daemon", "serve"],
            cwd=folder,
            env=environment(),
            stderr=log,
            text=True,
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def wait(folder: Path, process: "subprocess.Popen[str]", text: str) -> None:
    """Wait until something is in the log."""
    until = time.monotonic() + PATIENCE
    while text not in (log := (folder / "log").read_text()):
        assert process.poll() is None, log
        assert time.monotonic() < until, log
        time.sleep(0.1)


def refused(folder: Path) -> str:
    """A start that is refused with one line, before any clip is taken."""
    answer = subprocess.run(
        [sys.executable, "-m", "daemon", "serve"],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert answer.returncode == 78, answer.stderr
    assert "Traceback" not in answer.stderr
    with closing(sqlite3.connect(folder / "output/.frescod/jobs.sqlite")) as store:
        assert store.execute("SELECT count(*) FROM jobs WHERE claimed IS NOT NULL").fetchone() == (
            0,
        )
    assert os.listdir(folder / "output") == [".frescod"]
    return answer.stderr.splitlines()[-1]


def test_a_clip_from_inbox_to_result(tmp_path: Path, model: tuple[Path, Path]) -> None:
    """With the commands; of the devices named, one is not there."""
    configure(tmp_path, model, devices="cuda:0,cpu")
    with serving(tmp_path) as process:
        wait(tmp_path, process, "job.done")
        status = json.loads(frescod("status", "--json", cwd=tmp_path).stdout)
        assert status["problems"] == ["cuda:0 is not there"]
        assert [device["name"] for device in status["devices"]] == ["cpu"]
        assert status["jobs"]["done"] == 1
        drop(tmp_path, "b.mp4", 5, None)
        answer = frescod("submit", "b.mp4", "--prompt", "a bus", cwd=tmp_path)
        assert answer.returncode == 0, answer.stderr
        assert "queued" in answer.stdout
        assert frescod("drain", "--wait", cwd=tmp_path).returncode == 0
        assert process.wait(10) == 0
    assert (tmp_path / "output/a/manifest.json").exists()
    listed = json.loads(frescod("jobs", "--json", cwd=tmp_path).stdout)["jobs"]
    assert {Path(job["clip"]).name: job["state"] for job in listed}["a.mp4"] == "done"


def test_all_devices_are_required(tmp_path: Path, model: tuple[Path, Path]) -> None:
    configure(tmp_path, model, devices="cuda:0,cpu", devices_required=True)
    answer = frescod("serve", cwd=tmp_path)
    assert answer.returncode == 69
    assert "cuda:0 is not there" in answer.stderr.splitlines()[-1]


def test_missing_weights(tmp_path: Path) -> None:
    configure(tmp_path, ("nobody/nothing", "nobody/nothing-else"))
    last = refused(tmp_path)
    assert "nobody/nothing" in last
    assert "frescod models pull" in last


@pytest.mark.parametrize(
    ("how", "told"), [("truncated", "is truncated"), ("of another kind", "do not make a pair")]
)
def test_weights_that_are(tmp_path: Path, model: tuple[Path, Path], how: str, told: str) -> None:
    base = tmp_path / "base"
    shutil.copytree(model[0], base)
    (weights,) = (base / "unet").glob("*.safetensors")
    if how == "truncated":
        os.truncate(weights, weights.stat().st_size // 2)
    else:
        config = base / "unet/config.json"
        values = json.loads(config.read_text())
        config.write_text(json.dumps(values | {"cross_attention_dim": 2048}))
    configure(tmp_path, (base, model[1]))
    last = refused(tmp_path)
    assert str(base) in last
    assert told in last


def test_ctrl_c(tmp_path: Path, model: tuple[Path, Path]) -> None:
    """As SIGTERM: nothing is left half done."""
    configure(tmp_path, model, service__drain_seconds=0)
    with serving(tmp_path) as process:
        wait(tmp_path, process, "job.begun")
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    assert "Traceback" not in (tmp_path / "log").read_text()
