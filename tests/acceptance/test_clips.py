"""One run over clips of every kind: what comes out has the frames, times, size and sound of
what went in."""

import json
import os
import subprocess
import sys
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import pytest

from fresco_core.tiny_model import make_tiny_model
from io_pipeline.video import scan_clip
from tests.conftest import ROOT
from tests.io_pipeline.media import cut, make_clip, probe

QUICK = (
    "models.vae=",
    "models.offline=true",
    "key_frames.min_interval=4",
    "key_frames.max_interval=4",
    "key_frames.batch_size=4",
    "key_frames.resolution=64",
    "translation.steps=2",
    "translation.warmup_steps=1",
    "constraints.optimization_iterations=1",
    "propagation.votes=1",
    "propagation.sweeps=1",
)


def frescod_run(folder: Path, base: Path, controlnet: Path, *options: str):
    """Run the real command over `folder`; results go to `folder.parent/output`."""
    settings = (*QUICK, f"models.base={base}", f"models.controlnet={controlnet}", *options)
    command = [sys.executable, "-m", "daemon", "run", f"--video_folder={folder}"]
    command += [f"--output_folder={folder.parent / 'output'}", "--control_type=canny"]
    command += [f"--set={assignment}" for assignment in settings]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(
        command, cwd=folder.parent, env=environment, capture_output=True, text=True, timeout=900
    )


def assert_same_clip(clip: Path, result: Path) -> dict:
    """The result folder is complete, and its video is frame-exact."""
    info, found = scan_clip(clip), probe(result / "blend.mp4")
    manifest = json.loads((result / "manifest.json").read_text())
    assert (found.width, found.height) == (info.width, info.height)
    assert len(found.times) == info.frame_count
    begin = info.times[0] * info.time_base
    wanted = [time * info.time_base - begin for time in info.times]
    shown = [time - found.times[0] for time in found.times]
    step = 1 / info.frame_rate
    assert max(abs(a - b) for a, b in zip(shown, wanted, strict=True)) < step / 100
    if info.steady and info.frame_count > 1:
        assert abs(found.rate - info.frame_rate) < Fraction(1, 1000)
    assert found.codec == "h264"
    even = info.width % 2 == 0 and info.height % 2 == 0
    assert found.pixel_format == ("yuv420p" if even else "yuv444p")
    given = probe(clip).sound
    assert [[data for _, data in track] for track in found.sound] == [
        [data for _, data in track] for track in given
    ]
    assert {p.name for p in result.iterdir()} == {
        "blend.mp4",
        "keys",
        "comparison.mp4",
        "contact_sheet.png",
        "manifest.json",
    }
    assert sorted(p.name for p in (result / "keys").iterdir()) == [
        f"{number:04d}.png" for number in manifest["key_frames"]
    ]
    assert manifest["key_frames"][-1] == info.frame_count - 1
    assert len(probe(result / "comparison.mp4").times) == info.frame_count
    return manifest


KINDS = {
    "one frame.mp4": {"frames": 1},
    "two frames.mp4": {"frames": 2},
    "three frames.mp4": {"frames": 3},
    "seven 'frames'.mp4": {"frames": 7},
    "exactly one batch.mp4": {"frames": 13},
    "odd.mp4": {"frames": 5, "width": 853, "height": 479},
    "square.mp4": {"frames": 5, "width": 64, "height": 64},
    "tall ☂.mp4": {"frames": 5, "width": 512, "height": 896},
    "portrait.mp4": {"frames": 5, "width": 90, "height": 160},
    "ntsc.mp4": {"frames": 6, "rate": Fraction(30000, 1001)},
    'variable "rate".mp4': {
        "frames": 6,
        "times": [0, 1000, 1500, 4000, 4100, 9000],
        "time_base": Fraction(1, 12800),
    },
    "turned.mp4": {"frames": 5, "width": 128, "height": 64, "rotation": 90},
    "silent.avi": {"frames": 5},
    "sound.mp4": {"frames": 12, "sound": 1},
    "two tracks.mkv": {"frames": 12, "sound": 2},
    "ten bit.mkv": {"frames": 5, "pixel_format": "yuv420p10le"},
}


def test_every_kind_of_clip(tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    clips.mkdir()
    for name, kind in KINDS.items():
        make_clip(clips / name, **kind)
        (clips / name).with_suffix(".txt").write_text("a car")
    make_clip(clips / "odd.mkv", frames=4)  # the stem of another clip
    (clips / "text.mp4").write_text("not a video")
    (clips / "text.txt").write_text("a car")
    (clips / "empty.mov").touch()
    (clips / "empty.txt").write_text("a car")
    make_clip(clips / "no prompt.mp4", frames=2)
    cut(make_clip(clips / "cut.mkv", frames=60), 0.6)
    (clips / "cut.txt").write_text("a car")

    done = frescod_run(clips, *make_tiny_model(tmp_path / "model"))

    assert done.returncode == 1, done.stderr  # text.mp4 and empty.mov
    output = tmp_path / "output"
    for name in (n for n in KINDS if Path(n).stem != "odd"):
        assert_same_clip(clips / name, output / Path(name).stem)
    folders = [p for p in output.iterdir() if p.name.startswith("odd")]
    names = {json.loads((f / "manifest.json").read_text())["clip"]["file"]: f for f in folders}
    assert set(names) == {"odd.mp4", "odd.mkv"}
    for name, folder in names.items():
        assert_same_clip(clips / name, folder)
    manifest = assert_same_clip(clips / "cut.mkv", output / "cut")
    assert manifest["warnings"]
    report = done.stdout + done.stderr
    assert "Traceback" not in report
    for name in ("text.mp4", "empty.mov", "no prompt.mp4"):
        assert name in report
        assert not (output / Path(name).stem).exists()
    assert not list((output / ".staging").glob("*"))


@pytest.mark.parametrize("size", [3, 5, 16])
def test_batch_sizes_and_adaptive_intervals(tmp_path: Path, size: int) -> None:
    clips = tmp_path / "clips"
    clips.mkdir()
    make_clip(clips / "clip.mp4", frames=26)
    (clips / "clip.txt").write_text("a car")
    done = frescod_run(
        clips,
        *make_tiny_model(tmp_path / "model"),
        f"key_frames.batch_size={size}",
        "key_frames.min_interval=2",
        "key_frames.max_interval=6",
    )
    assert done.returncode == 0, done.stderr
    manifest = assert_same_clip(clips / "clip.mp4", tmp_path / "output" / "clip")
    keys = manifest["key_frames"]
    assert max(b - a for a, b in pairwise(keys)) <= 6
    assert [key for batch in manifest["batches"] for key in batch["new"]] == keys


def test_real_clips(tmp_path: Path, clips_dir: Path, reference_dir: Path) -> None:
    clips = tmp_path / "clips"
    clips.mkdir()
    found = sorted(p for p in clips_dir.iterdir() if p.suffix == ".mp4")
    assert found
    for clip in found:
        (clips / clip.name).symlink_to(clip.resolve())
        (clips / clip.name).with_suffix(".txt").write_text("a photo of a car")
    done = frescod_run(
        clips,
        reference_dir / "tiny_sd",
        reference_dir / "tiny_controlnet",
        "key_frames.min_interval=10",
        "key_frames.max_interval=30",
        "key_frames.batch_size=8",
    )
    assert done.returncode == 0, done.stderr
    for clip in found:
        assert_same_clip(clip, tmp_path / "output" / clip.stem)
