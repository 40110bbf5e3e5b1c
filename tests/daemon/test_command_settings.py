import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from daemon.cli import cli, run_command
from daemon.command_settings import gather_settings, pull_command, service_config
from fresco_core.errors import ConfigError, ModelsError


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


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
        assert settings.control.type == ("depth",)  # --control-type

    def test_another_kind_of_control_maps_than_the_controlnet_was_named_for(
        self, tmp_path: Path
    ) -> None:
        (toml := tmp_path / "my.toml").write_text(
            "control.type = 'hed'\n[models]\ncontrolnet = 'my/net'\n"
        )
        (yaml := tmp_path / "job.yaml").write_text("controlnet_type: canny\n")
        for options in ({"control_type": "depth"}, {"base_config": yaml}):
            with pytest.raises(
                ConfigError,
                match=r'\) does not go with models\.controlnet = "my/net" \(.*my\.toml\), '
                r'which was named for "hed": name another one where the kind is',
            ):
                gather_settings(toml, **options)
        for value in ("", "my/depth"):
            named = (f"models.controlnet={value}",)
            settings, _ = gather_settings(toml, yaml, named, "depth")
            assert settings.models.controlnet == (value,)
        assert gather_settings(toml, control_type="hed")[0].models.controlnet == ("my/net",)
        toml.write_text("[models]\ncontrolnet = 'my/net'\n")  # for nobody knows what
        assert gather_settings(toml, yaml)[0].models.controlnet == ("my/net",)

    def test_an_option_beats_set(self) -> None:
        settings, _ = gather_settings(None, None, ("translation.seed=3",), seed=4)
        assert settings.translation.seed == 4

    def test_config_toml_of_the_working_folder_is_used(self, tmp_path: Path) -> None:
        (tmp_path / "config.toml").write_text("[translation]\nseed = 8\n")
        assert gather_settings(None, None)[0].translation.seed == 8


class TestSet:
    @pytest.mark.parametrize(
        ("text", "section", "name", "value"),
        [
            ("key_frames.batch_size=6", "key_frames", "batch_size", 6),
            (" key_frames.batch_size = 6 ", "key_frames", "batch_size", 6),
            ("control.scale=.5", "control", "scale", (0.5,)),
            ("control.type=hed,depth", "control", "type", ("hed", "depth")),
            ('control.type=["depth"]', "control", "type", ("depth",)),
            ('models.loras=["a.safetensors:0.8"]', "models", "loras", ("a.safetensors:0.8",)),
            ("models.loras=a.safetensors:0.8", "models", "loras", ("a.safetensors:0.8",)),
            ("models.loras=a:0.8, b", "models", "loras", ("a:0.8", "b")),
            ("models.loras=", "models", "loras", ()),
            ("constraints.optimized_levels=0,1", "constraints", "optimized_levels", (0, 1)),
            ("constraints.optimized_levels=2", "constraints", "optimized_levels", (2,)),
            ("propagation.poisson_weights=1,2,.5", "propagation", "poisson_weights", (1, 2, 0.5)),
            ("control.source=a", "control", "source", ("a",)),
            ('control.source="a,b"', "control", "source", ("a,b",)),
            ("models.controlnet=a", "models", "controlnet", ("a",)),
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

    def test_one_of_several_is_the_usual_one(self) -> None:
        settings, _ = gather_settings(None, None, ("models.controlnet=,a",), "hed,depth")
        assert settings.models.controlnet == ("", "a")

    def test_unknown_key(self) -> None:
        with pytest.raises(
            ConfigError, match=r"command line: .*did you mean key_frames\.batch_size"
        ):
            gather_settings(None, None, ("batch_size=6",))

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("novalue", "is not of the form"),
            ("=5", "is not of the form"),
            ("constraints.optimized_levels=[0", "is not TOML"),
            ("preset=sim2real", "--preset NAME"),
        ],
    )
    def test_no_assignment_is_wrong_usage(self, text: str, told: str) -> None:
        result = CliRunner().invoke(cli, ["check-config", "--set", text])
        assert result.exit_code == 2
        assert told in result.output

    def test_a_list_that_is_set_twice_is_wrong_usage(self) -> None:
        """One of two LoRAs would be lost without a word."""
        twice = ["--set", "models.loras=a", "--set", "models.loras=b"]
        result = CliRunner().invoke(cli, ["check-config", *twice])
        assert result.exit_code == 2
        assert "models.loras is set twice: several values are models.loras=A,B" in result.output

    def test_of_other_keys_the_last_one_counts(self) -> None:
        twice = ("key_frames.batch_size=6", "key_frames.batch_size=7")
        assert gather_settings(None, None, twice)[0].key_frames.batch_size == 7


class TestOptions:
    def test_several_kinds_of_control_maps(self) -> None:
        settings, _ = gather_settings(control_type="hed,depth")
        assert settings.control.type == ("hed", "depth")

    @pytest.mark.parametrize(
        ("options", "told"),
        [
            (("--control-type", "hed,lineart"), "'lineart' is not one of 'hed', 'canny', 'depth'"),
            (("--control-type", ""), "'' is not one of"),
            (("--preset", "sim3real"), "'sim3real' is not one of 'sim2real', 'stylize'"),
        ],
    )
    def test_wrong_usage(self, options: tuple[str, ...], told: str) -> None:
        result = CliRunner().invoke(cli, ["check-config", *options])
        assert result.exit_code == 2
        assert told in " ".join(result.output.replace("│", "").split())

    def test_preview_and_presets(self) -> None:
        options = ("--preview", "--preset", "stylize", "--preset", "sim2real")
        result = CliRunner().invoke(cli, ["check-config", *options])
        assert 'frames = "preview"' in result.output
        assert "strength = 0.75" in result.output


class TestServiceConfig:
    """Where the daemon and its commands look for the settings."""

    @pytest.fixture(autouse=True)
    def system(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        system = tmp_path / "etc.toml"
        monkeypatch.setattr("daemon.command_settings.SYSTEM_CONFIG", system)
        return system

    def test_as_given_then_this_folder_then_the_system(self, tmp_path: Path, system: Path) -> None:
        given, local = tmp_path / "given.toml", tmp_path / "config.toml"
        assert service_config(None) is None
        system.touch()
        assert service_config(None) == system
        local.write_text("[translation]\nseed = 8\n")
        assert gather_settings(service_config(None))[0].translation.seed == 8
        assert service_config(given) == given

    def test_a_batch_run_leaves_the_system_alone(self, system: Path) -> None:
        system.write_text("[translation]\nseed = 8\n")
        assert gather_settings()[0].translation.seed == 0


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
