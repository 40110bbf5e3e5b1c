"""A folder from clips to results, in this process, with a tiny random-weight model."""

import json
import shutil
from contextlib import closing
from pathlib import Path

import pytest

from daemon.config import Layer, checked, merge
from daemon.demo_clip import render_clip
from daemon.fingerprints import fingerprints
from daemon.job_store import JobStore
from daemon.jobs import Job
from daemon.one_shot import run_folder
from daemon.output_folder import BusyError, held
from daemon.settings import Settings
from fresco_core.errors import ConfigError, ModelsError
from fresco_core.tiny_model import make_tiny_model
from io_pipeline.staging import Staging


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    base, controlnet = make_tiny_model(tmp_path_factory.mktemp("model"))
    return {
        "devices": "cpu",
        "models.base": str(base),
        "models.vae": "",
        "models.controlnet": str(controlnet),
        "models.offline": True,
        "control.type": "canny",
        "key_frames.min_interval": 3,
        "key_frames.max_interval": 3,
        "key_frames.batch_size": 3,
        "key_frames.resolution": 64,
        "translation.steps": 5,
        "translation.warmup_steps": 3,
        "constraints.optimization_iterations": 1,
        "propagation.votes": 1,
        "propagation.sweeps": 1,
    }


def settings(values: dict[str, object], **more: object) -> Settings:
    more = {key.replace("__", "."): value for key, value in more.items()}
    return merge(checked(Layer("test", values)), checked(Layer("more", more)))


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    folder = tmp_path / "clips"
    folder.mkdir()
    render_clip(folder / "a.mp4", width=96, height=64, frames=8)
    (folder / "a.txt").write_text("a car")
    return folder


def key(folder: Path) -> bytes:
    return (folder / "a/keys/0007.png").read_bytes()


def test_one_seed_one_result(tiny: dict[str, object], clips: Path, tmp_path: Path) -> None:
    for folder, seed in (("one", 0), ("same", 0), ("other", 1)):
        chosen = settings(tiny, translation__seed=seed)
        assert run_folder(clips, clips, tmp_path / folder, chosen) == 0
    assert key(tmp_path / "one") == key(tmp_path / "same") != key(tmp_path / "other")


def test_two_runs_do_not_share_a_folder(
    tiny: dict[str, object], clips: Path, tmp_path: Path
) -> None:
    with held(tmp_path / "output"), pytest.raises(BusyError, match="another frescod"):
        run_folder(clips, clips, tmp_path / "output", settings(tiny))
    assert list((tmp_path / "output").iterdir()) == []


def test_without_controlnet(tiny: dict[str, object], clips: Path, tmp_path: Path) -> None:
    chosen = settings(tiny, control__enabled=False, models__controlnet="")
    assert run_folder(clips, clips, tmp_path / "out", chosen) == 0
    assert (tmp_path / "out/a/comparison.mp4").is_file()
    assert run_folder(clips, clips, tmp_path / "with", settings(tiny)) == 0
    assert key(tmp_path / "out") != key(tmp_path / "with")


def test_one_clip_with_a_prompt_of_the_command_line(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It counts by its content, as a file would; what is done needs no models."""
    shutil.copy(clips / "a.mp4", clips / "b.mp4")
    (clips / "c.depth.mp4").touch()
    values = {
        "devices": "cpu",
        "models.base": str(tmp_path / "absent"),
        "models.offline": True,
        "flow.model": "dis",
        "saliency.model": "motion",
    }
    chosen = merge(Layer("test", values))
    (clips / "snow").write_text("snow")
    prints = fingerprints(Job(clips / "b.mp4", clips / "snow", "b"), chosen)
    result = tmp_path / "out/b"
    result.mkdir(parents=True)
    (result / "manifest.json").write_text(json.dumps({"fingerprints": prints.to_json()}))

    def run(prompt: str | None, only: str | None = "b.mp4") -> int:
        return run_folder(clips, clips, result.parent, chosen, prompt=prompt, only=only)

    assert run("snow") == 0
    assert "already done" in capsys.readouterr().out
    with pytest.raises(ModelsError, match="absent"):
        run("rain")
    with pytest.raises(ModelsError, match="absent"):  # a.mp4 has not been done
        run("snow", only=None)
    with pytest.raises(ConfigError, match=r"^b\.mp4: has no prompt: .*--prompt.* b\.txt in "):
        run(None)
    capsys.readouterr()
    (clips / "a.mp4").unlink()
    (clips / "b.txt").write_text("snow")
    assert run("rain", only=None) == 0
    error = capsys.readouterr().err
    assert "c.depth.mp4: control maps of no clip, left out" in error
    assert f"{clips / 'b.txt'}: it goes before the prompt" in error


def test_a_prompt_of_the_command_line_outlasts_the_run(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever looks a job up later, or does it again, finds the prompt; again, it is the same."""
    (clips / "a.txt").unlink()
    chosen = merge(Layer("test", {"devices": "cpu", "models.base": str(tmp_path / "absent")}))
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        with pytest.raises(ModelsError, match="absent"):
            run_folder(clips, clips, Path("out"), chosen, prompt="caf\u00e9")
        with closing(JobStore(tmp_path / "out/.frescod/jobs.sqlite")) as store:
            (job,) = store.jobs()
        assert job.prompt_file is not None
        assert job.prompt_file.is_absolute()
        assert job.prompt_file.read_text("utf-8") == "caf\u00e9"


def test_prompt_too_long_for_the_text_encoder(
    tiny: dict[str, object], clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (clips / "a.txt").write_text("a car " * 45 + "zebra")
    chosen = settings(tiny, prompts__syntax="literal")
    assert run_folder(clips, clips, tmp_path / "out", chosen) == 0
    error = capsys.readouterr().err
    assert "positive prompt is too long" in error
    assert "zebra" in error


def test_what_is_added_counts_for_the_length(
    tiny: dict[str, object], clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (clips / "a.txt").write_text("a car")
    texts = {"prompts__added": "rain " * 80 + "zebra", "prompts__negative": "x " * 90}
    chosen = settings(tiny, prompts__syntax="literal", **texts)
    assert run_folder(clips, clips, tmp_path / "out", chosen) == 0
    error = capsys.readouterr().err
    assert "positive prompt is too long" in error
    assert "zebra" in error
    assert "negative prompt is too long" in error


def test_no_torch_for_a_folder_without_clips(tmp_path: Path) -> None:
    import subprocess
    import sys

    code = (
        "import sys; from daemon.cli import run_command;"
        f"assert run_command(['run', '--video-folder', {str(tmp_path)!r}]) == 0;"
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


class TestDoneAlready:
    """A clip that is done is not touched, whatever lies in the staging folder under its name."""

    def test_the_work_of_another_run_stays(
        self, tiny: dict[str, object], clips: Path, tmp_path: Path
    ) -> None:
        output = tmp_path / "out"
        assert run_folder(clips, clips, output, settings(tiny)) == 0
        at_work = Staging(output, "a")
        with held(output):
            at_work.open({"settings": "other"})
            with pytest.raises(BusyError):
                run_folder(clips, clips, output, settings(tiny))
        assert at_work.folder.is_dir()

    def test_what_a_killed_run_has_left_is_removed(
        self, tiny: dict[str, object], clips: Path, tmp_path: Path
    ) -> None:
        output = tmp_path / "out"
        assert run_folder(clips, clips, output, settings(tiny)) == 0
        left = Staging(output, "a")
        left.open({"settings": "these"})
        shutil.rmtree(left.folder / "result")
        assert run_folder(clips, clips, output, settings(tiny)) == 0
        assert sorted(path.name for path in output.iterdir()) == [".frescod", "a"]


@pytest.mark.parametrize(
    ("place", "why"),
    [("nowhere/t.json", "is no folder that can be written"), ("t.png", "give a .json")],
)
def test_a_timeline_that_cannot_be_written_is_refused_first(
    clips: Path, tmp_path: Path, place: str, why: str
) -> None:
    with pytest.raises(ConfigError, match=why):
        run_folder(clips, clips, tmp_path / "out", Settings(), timeline=tmp_path / place)
    assert not (tmp_path / "out").exists()
