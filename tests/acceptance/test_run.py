"""The real command line as a subprocess, on small clips with a tiny random-weight model."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest

from daemon.demo_clip import render_clip
from fresco_core.tiny_model import make_tiny_model
from tests.conftest import ROOT

QUICK = (
    "key_frames.min_interval=3",
    "key_frames.max_interval=3",
    "key_frames.batch_size=3",
    "key_frames.resolution=64",
    "translation.steps=5",
    "translation.warmup_steps=3",
    "constraints.optimization_iterations=1",
    "propagation.votes=1",
    "propagation.sweeps=1",
    "models.vae=",
    "models.offline=true",
)


def frescod(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "daemon", *map(str, arguments)],
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        errors="surrogateescape",
        timeout=300,
    )


def environment() -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "CUDA_VISIBLE_DEVICES": "",
        "HF_HUB_OFFLINE": "1",
    }


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def run(model: tuple[Path, Path], tmp_path: Path):  # type: ignore[no-untyped-def]
    """Run frescod on tmp_path/clips with the tiny model."""
    (tmp_path / "clips").mkdir()

    def run_(*arguments: str) -> subprocess.CompletedProcess[str]:
        return frescod(*command(model), *arguments, cwd=tmp_path)

    return run_


def command(model: tuple[Path, Path]) -> list[str]:
    base, controlnet = model
    assignments = (*QUICK, f"models.base={base}", f"models.controlnet={controlnet}")
    options = [f"--set={assignment}" for assignment in assignments]
    return ["run", "--video-folder", "clips", "--control-type", "canny", *options]


def drop(folder: Path, name: str, frames: int, prompt: str | None = "a car") -> None:
    clip = folder / name
    plain = folder / "plain.mp4"  # FFmpeg gets a plain name, whatever bytes the clip's has
    render_clip(plain, width=96, height=64, frames=frames)
    plain.rename(clip)
    if prompt is not None:
        clip.with_suffix(".txt").write_text(prompt)


def assert_one_line(result: subprocess.CompletedProcess[str]) -> None:
    assert result.stderr.count("\n") == 1, result.stderr
    assert "Traceback" not in result.stderr


class TestRefused:
    """Before any clip is touched."""

    def test_unknown_key(self, tmp_path: Path) -> None:
        (tmp_path / "config.toml").write_text("[key_frames]\nbatchsize = 8\n")
        result = frescod("run", "--video-folder", ".", cwd=tmp_path)
        assert result.returncode == 78
        assert_one_line(result)
        assert "config.toml: key_frames.batchsize" in result.stderr
        assert "did you mean key_frames.batch_size?" in result.stderr

    def test_bad_value_in_the_old_yaml(self, tmp_path: Path) -> None:
        (tmp_path / "job.yaml").write_text("batch_size: 99\n")
        result = frescod("run", "--video-folder", ".", "--base_config", "job.yaml", cwd=tmp_path)
        assert result.returncode == 78
        assert_one_line(result)
        assert "job.yaml: batch_size = 99" in result.stderr
        assert "3 to 16" in result.stderr

    def test_absent_folder(self, tmp_path: Path) -> None:
        result = frescod("run", "--video-folder", "absent", cwd=tmp_path)
        assert result.returncode == 2
        assert "absent" in result.stderr

    def test_missing_weights(self, tmp_path: Path) -> None:
        drop(tmp_path, "a.mp4", 2)
        result = frescod(
            *("run", "--video-folder", ".", "--set", "models.offline=true"),
            *("--set", "models.base=nobody/nothing", "--set", "models.vae="),
            cwd=tmp_path,
        )
        assert result.returncode == 78
        last = result.stderr.splitlines()[-1]
        assert "nobody/nothing" in last
        assert "lllyasviel/sd-controlnet-hed" in last
        assert "frescod models pull" in last
        assert "Traceback" not in result.stderr
        assert [path.name for path in (tmp_path / "output").iterdir()] == [".frescod"]

    def test_weights_that_the_hub_does_not_give(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
        (tmp_path / "clips").mkdir()
        drop(tmp_path / "clips", "a.mp4", 2)
        (tmp_path / "my job.yaml").write_text("sd_path: nobody/nothing\n")
        result = frescod(
            *("run", "--video-folder", "clips", "--base-config", "my job.yaml"), cwd=tmp_path
        )
        assert result.returncode == 78
        last = result.stderr.splitlines()[-1]
        for name in ("nobody/nothing", "sd-vae-ft-mse", "sd-controlnet-hed", "ControlNetHED.pth"):
            assert last.count(name) == 1
        assert "HF_HUB_OFFLINE is set" in last
        assert last.endswith("run `frescod models pull --base-config 'my job.yaml'` with a network")
        assert "Traceback" not in result.stderr

    def test_absent_device(self, tmp_path: Path) -> None:
        drop(tmp_path, "a.mp4", 2)
        result = frescod("run", "--video-folder", ".", "--device", "cuda:7", cwd=tmp_path)
        assert result.returncode == 69
        assert "cuda:7" in result.stderr.splitlines()[-1]


def test_a_night(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """Several clips, good and bad; then the same again, with changes."""
    clips, output = tmp_path / "clips", tmp_path / "output"
    drop(clips, "drive 1.mp4", 8)
    drop(clips, "it's «two»\n\udcff.mp4", 1)
    drop(clips, "silent.mp4", 2, prompt=None)
    (clips / "broken.mp4").write_bytes(b"not a clip")
    (clips / "broken.txt").write_text("a car")

    first = run()
    assert first.returncode == 1, first.stderr
    assert "Traceback" not in first.stderr
    assert first.stdout.startswith("2 done; 1 skipped, no prompt; 1 failed in ")
    assert "no prompt: silent.mp4: no silent.txt in clips" in first.stdout
    assert "failed: broken.mp4: " in first.stdout
    records = [json.loads(line) for line in first.stderr.splitlines()]
    for stage in ("prepare", "translate", "propagate", "publish"):
        assert [record.get("stage") for record in records].count(stage) == 2, first.stderr
    assert {path.name for path in output.iterdir()} == {
        ".frescod",
        "broken.failed.txt",
        "drive 1",
        "it's «two»\n\udcff",
    }

    with av.open(str(output / "drive 1" / "blend.mp4")) as container:
        assert len(container.streams.audio) == 1
        video = container.streams.video[0]
        assert (video.width, video.height, video.average_rate) == (96, 64, Fraction(12))
        assert sum(1 for _ in container.decode(video=0)) == 8
    manifest = json.loads((output / "drive 1" / "manifest.json").read_bytes())
    assert manifest["key_frames"] == [0, 3, 6, 7]
    assert manifest["device"] == "cpu"

    (clips / "broken.mp4").unlink()
    second = run()
    assert second.returncode == 0
    assert "2 skipped, already done" in second.stdout
    assert "loading models" not in second.stderr

    (clips / "drive 1.txt").write_text("a dog")
    third = run()
    assert third.returncode == 0
    assert third.stdout.startswith("1 done; 1 skipped, already done; ")
    manifest = json.loads((output / "drive 1" / "manifest.json").read_bytes())
    assert manifest["prompt"]["positive"] == "a dog"

    (clips / "drive 1.mp4").unlink()
    assert run("--force").stdout.startswith("1 done; 1 skipped, no prompt in ")


def children(pid: int) -> set[int]:
    """Processes whose parent it is."""
    found = set()
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = status.read_text().rpartition(")")[2].split()
            if int(fields[1]) == pid:
                found.add(int(status.parent.name))
    return found


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)],
    ids=["ctrl-c", "term", "kill-9"],
)
def test_interrupted(
    model: tuple[Path, Path], run: Any, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    """Nothing is left but what the same command goes on from; its result is the undisturbed one."""
    drop(tmp_path / "clips", "a.mp4", 32)
    assert run("--output-folder", "undisturbed").returncode == 0
    process = subprocess.Popen(
        [sys.executable, "-m", "daemon", *command(model)],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    checkpoints = tmp_path / "output/.staging/a/checkpoints"
    deadline = time.monotonic() + 120
    while not list(checkpoints.glob("0002.safetensors")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    workers = children(process.pid)
    assert workers
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    assert process.returncode == code, error
    assert "Traceback" not in error
    assert {path.name for path in (tmp_path / "output").iterdir()} == {".frescod", ".staging"}
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{worker}").exists() for worker in workers):
        assert time.monotonic() < deadline
        time.sleep(0.05)

    again = run("--timeline", "t.json")
    assert again.returncode == 0, again.stderr
    events = json.loads((tmp_path / "t.json").read_text())["traceEvents"]
    windows = {e["args"]["window"] for e in events if e.get("name") == "translate"}
    manifest = json.loads((tmp_path / "output/a/manifest.json").read_bytes())
    assert len(windows) < len(manifest["batches"])
    assert 0 not in windows
    for name in ("blend.mp4", "comparison.mp4", "contact_sheet.png"):
        made, wanted = (tmp_path / folder / "a" / name for folder in ("output", "undisturbed"))
        assert made.read_bytes() == wanted.read_bytes(), name
    assert {path.name for path in (tmp_path / "output").iterdir()} == {".frescod", "a"}


def test_empty_folder(run) -> None:  # type: ignore[no-untyped-def]
    result = run()
    assert result.returncode == 0
    assert "no clips" in result.stderr
