"""What presets set is allowed, does something, and can be overridden from the command line."""

from dataclasses import fields
from pathlib import Path

import pytest

from daemon.command_settings import gather_settings
from daemon.config import Layer, checked, merge, toml_value
from daemon.job_settings import ALLOWED, job_settings
from daemon.presets import PRESETS, preset_layers, preset_names
from daemon.settings import Settings
from daemon.stages import propagation_options
from fresco_core.errors import ClipError, ConfigError
from fresco_core.propagation import PropagationOptions


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", PRESETS)
class TestEach:
    def test_sets_what_one_clip_may_have(self, name: str) -> None:
        (layer,) = preset_layers([name])
        checked(layer)
        assert set(layer.values) <= ALLOWED  # so the weights needed are the same

    def test_changes_settings_and_says_what_for(self, name: str) -> None:
        assert merge(*preset_layers([name])).fingerprint() != Settings().fingerprint()
        assert PRESETS[name].about.endswith(".")

    def test_gives_the_same_beside_a_clip(self, tmp_path: Path, name: str) -> None:
        (sidecar := tmp_path / "a.toml").write_text(f"preset = '{name}'\n")
        assert job_settings(Settings(), sidecar) == merge(*preset_layers([name]))

    def test_gives_way_to_the_command_line(self, name: str) -> None:
        settings, _ = gather_settings(presets=(name,))
        for key, value in PRESETS[name].values.items():
            section, _, field = key.partition(".")
            assert settings.model_dump(mode="json")[section][field] == value
            default = toml_value(key, getattr(getattr(Settings(), section), field))
            given = str(default).replace("'", '"')
            again, _ = gather_settings(presets=(name,), assignments=(f"{key}={given}",))
            assert again.model_dump(mode="json")[section][field] == default, key


def test_order_yaml_then_presets_in_the_order_given_then_preview(tmp_path: Path) -> None:
    yaml, toml = tmp_path / "job.yaml", tmp_path / "my.toml"
    toml.write_text("[translation]\nstrength = 0.3\n")
    yaml.write_text("num_warmup_steps: 8\nbatch_size: 6\ncond_scale: 0.5\n")
    settings, _ = gather_settings(toml, yaml)
    assert (settings.translation.strength, settings.translation.warmup_steps) == (0, 8)
    settings, _ = gather_settings(toml, yaml, presets=("sim2real", "stylize"), preview=True)
    assert settings.translation.strength == 0.85
    assert settings.control.scale == (1.0,)
    assert settings.key_frames.batch_size == 4
    assert settings.output.frames == "preview"
    settings, _ = gather_settings(
        toml, yaml, ("translation.warmup_steps=3",), presets=("sim2real",)
    )
    assert (settings.translation.strength, settings.translation.warmup_steps) == (0, 3)


def test_prompts_are_read_as_published_whatever_config_toml_says(tmp_path: Path) -> None:
    """It may list every key, and with YAML and preset comes how their authors wrote prompts."""
    yaml, toml = tmp_path / "job.yaml", tmp_path / "my.toml"
    toml.write_text("[prompts]\nsyntax = 'weights'\n[propagation]\nstill = 3\n")
    yaml.write_text("seed: 1\n")
    for sources in ({"base_config": yaml}, {"presets": ("published",)}):
        settings, _ = gather_settings(toml, **sources)
        assert settings.prompts.syntax == "literal"
        settings, _ = gather_settings(toml, assignments=("prompts.syntax=weights",), **sources)
        assert settings.prompts.syntax == "weights"


def test_published_propagates_as_published_whatever_config_toml_says() -> None:
    published = PropagationOptions.published()
    other: dict[str, object] = {
        "quality": "fast", "patch": 7, "votes": 3, "sweeps": 1, "uniformity": 0.0, "still": 4,
        "colour": 1.0, "edge": 1.0, "temporal": 1.0, "positional": 1.0,
        "inpaint_radius": 8, "inpaint_scale": 2, "timing": "symmetric", "blend": "selection",
        "poisson": False, "poisson_weights": (1.0, 1.0, 1.0), "poisson_clip": 9.0,
        "poisson_rounding": "nearest",
    }  # fmt: skip
    who_paints = {"engine", "program", "seed"}
    assert set(other) == {field.name for field in fields(PropagationOptions)} - who_paints
    assert not [name for name in other if other[name] == getattr(published, name)]
    config = Layer("config.toml", {f"propagation.{name}": other[name] for name in other})
    assert propagation_options(merge(config)) != published
    assert propagation_options(merge(config, *preset_layers(["published"]))) == published


def test_several_beside_a_clip_and_its_own_settings_over_them(tmp_path: Path) -> None:
    sidecar = tmp_path / "a.toml"
    sidecar.write_text("preset = ['stylize', 'preview']\n[control]\nscale = 0.5\n")
    settings = job_settings(Settings(), sidecar)
    assert settings.translation.strength == 0.85
    assert settings.output.frames == "preview"
    assert settings.control.scale == (0.5,)


@pytest.mark.parametrize("value", ["sim3real", 3, ["sim2real", None], True, {"a": 1}])
def test_one_that_does_not_exist(value: object) -> None:
    with pytest.raises(
        ConfigError, match=r"a\.toml: preset = .* is not allowed: give sim2real, st"
    ):
        preset_names("a.toml", value)


def test_the_nearest_name_is_told(tmp_path: Path) -> None:
    (sidecar := tmp_path / "a.toml").write_text("preset = 'sim3real'\n")
    with pytest.raises(ClipError, match=r"did you mean sim2real\?$"):
        job_settings(Settings(), sidecar)
