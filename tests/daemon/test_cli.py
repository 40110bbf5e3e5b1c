import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from daemon.cli import cli, gather_settings, pull_command, run_command
from fresco_core.errors import ConfigError, ModelsError


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


class TestPrecedence:
    def test_command_line_beats_yaml_beats_toml(self, tmp_path: Path) -> None:
        toml, yaml = tmp_path / "my.toml", tmp_path / "job.yaml"
        toml.write_text(
            "[translation]\nseed = 1\nsteps = 30\nwarmup_steps = 9\n[control]\ntype = 'canny'\n"
        )
        yaml.write_text("seed: 2\nnum_inference_steps: 40\ncontrolnet_type: hed\n")
        settings, _ = gather_settings(toml, yaml, ("translation.seed=3",), "depth")
        assert settings.translation.warmup_steps == 9  # TOML
        assert settings.translation.steps == 40  # YAML
        assert settings.translation.seed == 3  # --set
        assert settings.control.type == "depth"  # --control-type

    def test_an_option_beats_set(self) -> None:
        settings, _ = gather_settings(None, None, ("translation.seed=3",), seed=4)
        assert settings.translation.seed == 4

    def test_config_toml_of_the_working_folder_is_used(self, tmp_path: Path) -> None:
        (tmp_path / "config.toml").write_text("[translation]\nseed = 8\n")
        assert gather_settings(None, None)[0].translation.seed == 8

    def test_warnings_of_the_yaml_come_through(self, tmp_path: Path) -> None:
        (tmp_path / "job.yaml").write_text("use_freeu: true\n")
        _, warnings = gather_settings(None, tmp_path / "job.yaml")
        assert "use_freeu" in warnings[0]


class TestSet:
    @pytest.mark.parametrize(
        ("text", "section", "name", "value"),
        [
            ("key_frames.batch_size=6", "key_frames", "batch_size", 6),
            (" key_frames.batch_size = 6 ", "key_frames", "batch_size", 6),
            ("control.scale=.5", "control", "scale", 0.5),
            ("output.comparison=false", "output", "comparison", False),
            ("constraints.optimized_levels=[0, 1]", "constraints", "optimized_levels", (0, 1)),
            ("prompts.added=", "prompts", "added", ""),
            ("prompts.added=a = b", "prompts", "added", "a = b"),
            ('prompts.added="5"', "prompts", "added", "5"),
            ("prompts.negative=5", "prompts", "negative", "5"),
        ],
    )
    def test_value(self, text: str, section: str, name: str, value: object) -> None:
        settings, _ = gather_settings(None, None, (text,))
        assert getattr(getattr(settings, section), name) == value

    def test_unknown_key(self) -> None:
        with pytest.raises(
            ConfigError, match=r"command line: .*did you mean key_frames\.batch_size"
        ):
            gather_settings(None, None, ("batch_size=6",))

    @pytest.mark.parametrize("text", ["novalue", "=5", "constraints.optimized_levels=[0"])
    def test_no_assignment_is_wrong_usage(self, text: str) -> None:
        assert invoke("check-config", "--set", text).exit_code == 2


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


class TestPullCommand:
    def test_without_options(self) -> None:
        assert pull_command() == "frescod models pull"

    def test_fetches_for_the_same_settings(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        toml, yaml = tmp_path / "it's.toml", tmp_path / "my job.yaml"
        toml.write_text("[flow]\nmodel = 'raft'\n")
        yaml.write_text("sd_path: some/model\n")
        given = (toml, yaml, ("models.vae=", "models.controlnet=my weights/c"), "depth")
        command = shlex.split(pull_command(*given, device="cpu", seed=3))
        pulled = []
        monkeypatch.setattr("daemon.weights.pull_weights", lambda chosen: pulled.append(chosen))
        assert command[0] == "frescod"
        assert run_command(command[1:]) == 0
        assert pulled == [gather_settings(*given)[0]]

    def test_ends_the_message_of_run(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def miss(*arguments: object, **options: object) -> int:
            raise ModelsError("VAE a/b is not on this machine: run `frescod models pull` with …")

        monkeypatch.setattr("daemon.one_shot.run_folder", miss)
        options = ("--video-folder", ".", "--set", "models.vae=a/b", "--control-type", "canny")
        assert run_command(["run", *options]) == 78
        assert (
            "run `frescod models pull --control-type canny --set models.vae=a/b` with"
            in capsys.readouterr().err
        )


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
