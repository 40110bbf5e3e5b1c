import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from daemon.cli import cli, run_command
from daemon.command_settings import gather_settings
from fresco_core.errors import ConfigError


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


class TestSpelling:
    def test_underscores_in_options_and_commands(self, tmp_path: Path) -> None:
        plain = invoke("check-config", "--control-type", "depth", "--set", "translation.seed=5")
        old = invoke("check_config", "--control_type=depth", "--set", "translation.seed=5")
        assert plain.exit_code == old.exit_code == 0
        assert plain.output == old.output

    def test_every_option_of_run(self) -> None:
        (tmp := Path("clips")).mkdir()
        base = Path("job.yaml")
        base.write_text("seed: 1\n")
        config = Path("my.toml")
        config.write_text("")
        result = invoke(
            *("run", "--video_folder", str(tmp), "--prompt_folder", str(tmp)),
            *("--base_config", str(base), "--output_folder", "out", "--control_type", "hed"),
            *("--config", str(config), "--device", "cpu", "--seed", "3"),
            *("--set", "translation.steps=5", "--set", "translation.warmup_steps=9"),
        )
        # The options are understood; the settings do not go together.
        assert isinstance(result.exception, ConfigError)
        assert "translation.warmup_steps = 9" in str(result.exception)

    def test_an_option_that_does_not_exist(self) -> None:
        result = invoke("run", "--video_folders", ".")
        assert result.exit_code == 2
        assert "--video-folder" in result.output


class TestExitCodes:
    def test_wrong_settings(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert run_command(["check-config", "--set", "key_frames.batch_size=2"]) == 78
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert "3 to 16" in error

    def test_wrong_usage(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert run_command(["run"]) == 2
        assert run_command(["run", "--video-folder", "absent"]) == 2
        assert run_command(["nonsense"]) == 2
        assert "absent" in capsys.readouterr().err

    def test_help_and_version(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert run_command(["--help"]) == 0
        assert run_command(["--version"]) == 0
        assert "frescod" in capsys.readouterr().out

    def test_interrupt(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def interrupt(**options: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr("daemon.cli.gather_settings", interrupt)
        assert run_command(["check-config"]) == 130
        assert "interrupted" in capsys.readouterr().err


def test_what_counts_for_one_clip_is_told_where_others_are_translated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.mp4").touch()
    (tmp_path / "job.yaml").write_text("file_path: a.mp4\nprompt: a car\n")
    called: list[dict[str, Any]] = []
    monkeypatch.setattr(
        "daemon.one_shot.run_folder", lambda *_, **options: called.append(options) or 0
    )
    assert run_command(["run", "--base-config", "job.yaml"]) == 0
    assert run_command(["run", "--base-config", "job.yaml", "--video-folder", "."]) == 0
    alone, folder = called
    assert (alone["only"], alone["prompt"], alone["warnings"]) == ("a.mp4", "a car", ())
    assert folder["only"] is None
    (warning,) = folder["warnings"]
    assert "file_path, prompt: of the one clip" in warning


def test_check_config_prints_what_would_be_used(tmp_path: Path) -> None:
    result = invoke("check-config", "--seed", "5")
    (tmp_path / "config.toml").write_text(result.stdout)
    assert gather_settings(None, None)[0].translation.seed == 5


def test_help_does_not_wait_for_torch() -> None:
    code = (
        "import sys; from daemon.cli import run_command; run_command(['run', '--help']);"
        "sys.exit('torch' in sys.modules or 'cv2' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
