import re
import tomllib
from pathlib import Path

import pytest

from daemon.config import Layer, allowed, checked, keys, merge, read_toml, to_toml, toml_value
from daemon.settings import Settings
from fresco_core.errors import ConfigError
from tests.conftest import ROOT


def refusal(values: dict[str, object]) -> str:
    with pytest.raises(ConfigError) as error:
        checked(Layer("my.toml", values))
    return str(error.value)


class TestDocumentedDefaults:
    def test_config_toml_gives_the_defaults(self) -> None:
        assert merge(read_toml(ROOT / "config.toml")) == Settings()

    def test_config_toml_documents_every_key(self) -> None:
        text = (ROOT / "config.toml").read_text()
        assert text.endswith(to_toml(Settings()))
        tables = tomllib.loads(text)
        for key, _ in keys():
            section, _, name = key.rpartition(".")
            assert name in (tables[section] if section else tables)

    def test_every_key_has_a_description_and_a_range(self) -> None:
        for key, field in keys():
            assert field.description, key
            assert allowed(field), key
            assert not field.is_required(), key

    def test_settings_survive_a_round_trip_through_toml(self, tmp_path: Path) -> None:
        settings = merge(
            checked(
                Layer(
                    "x",
                    {"prompts.added": 'a "quoted" ü\n', "constraints.optimized_levels": [0, 2]},
                )
            )
        )
        file = tmp_path / "config.toml"
        file.write_text(to_toml(settings), encoding="utf-8")
        assert merge(read_toml(file)) == settings


class TestUnknownKeys:
    @pytest.mark.parametrize(
        ("key", "nearest"),
        [
            ("key_frames.batch_siz", "key_frames.batch_size"),
            ("batch_size", "key_frames.batch_size"),
            ("key_frame.batch_size", "key_frames.batch_size"),
            ("translation.guidence_scale", "translation.guidance_scale"),
            ("devises", "devices"),
        ],
    )
    def test_are_refused_with_the_nearest_name(self, key: str, nearest: str) -> None:
        assert refusal({key: 6}) == f"my.toml: {key}: no such key; did you mean {nearest}?"

    def test_far_from_any_name(self) -> None:
        assert refusal({"zzzzqq": 1}).startswith("my.toml: zzzzqq: no such key;")

    def test_section_used_as_key(self) -> None:
        assert "write [control]" in refusal({"control": "hed"})


class TestBadValues:
    @pytest.mark.parametrize(
        ("key", "value", "range_"),
        [
            ("key_frames.batch_size", 2, "a whole number, 3 to 16"),
            ("key_frames.batch_size", 17, "3 to 16"),
            ("key_frames.batch_size", "many", "3 to 16"),
            ("key_frames.batch_size", 5.5, "3 to 16"),
            ("key_frames.resolution", 500, "a multiple of 64"),
            ("control.type", "lineart", "hed or canny or depth"),
            ("control.scale", float("nan"), "0 to 2"),
            ("constraints.optimized_levels", [4], "each 0 to 3"),
            ("output.comparison", "perhaps", "true or false"),
            ("devices", "gpu", "auto, cuda, or a list of cuda:N, cpu and cpu*N"),
            ("models.base", "", "not empty"),
            ("translation.steps", 1000, "1 to 999"),
            ("translation.seed", True, "a whole number"),
            ("key_frames.batch_size", "8", "3 to 16"),
            ("key_frames.batch_size", 8.0, "3 to 16"),
            ("control.scale", "0.5", "0 to 2"),
            ("output.comparison", "false", "true or false"),
            ("output.comparison", 0, "true or false"),
            ("constraints.optimized_levels", ["1"], "each 0 to 3"),
            ("constraints.optimized_levels", "01", "each 0 to 3"),
        ],
    )
    def test_are_refused_with_the_range(self, key: str, value: object, range_: str) -> None:
        message = refusal({key: value})
        assert message.startswith(f"my.toml: {key} = ")
        assert range_ in message
        assert "\n" not in message

    def test_a_whole_number_may_stand_for_a_number(self) -> None:
        layer = checked(Layer("x", {"control.scale": 1}))
        assert merge(layer).control.scale == (1.0,)

    def test_ends_of_the_range_are_allowed(self) -> None:
        for size in (3, 16):
            layer = checked(Layer("x", {"key_frames.batch_size": size}))
            assert merge(layer).key_frames.batch_size == size

    @pytest.mark.parametrize(
        "values",
        [
            {"key_frames.min_interval": 10},
            {"translation.steps": 5},
            {"control.canny_low": 101},
        ],
    )
    def test_values_that_exclude_each_other(self, values: dict[str, object]) -> None:
        with pytest.raises(ConfigError, match=r"\(my\.toml\) .*\(default\)|\(default\) .*my\.toml"):
            merge(checked(Layer("my.toml", values)))


class TestOneOrAList:
    """Keys that hold one value for all ControlNets, or a list of one for each."""

    def test_one_value_is_written_as_such(self) -> None:
        settings = merge(checked(Layer("x", {"control.type": "depth", "control.scale": 1})))
        assert settings.control.type == ("depth",)
        assert settings.control.scale == (1.0,)
        assert '\ntype = "depth"\nscale = 1.0\n'.replace("\n", "") in re.sub(
            r"(?m)^#.*\n|\n", "", to_toml(settings)
        )

    def test_lists(self, tmp_path: Path) -> None:
        values = {
            "control.type": ["hed", "depth"],
            "control.scale": [0.7, 0.3],
            "models.controlnet": ["a/b", ""],
            "control.source": "local",
        }
        settings = merge(checked(Layer("x", values)))
        assert settings.control.type == ("hed", "depth")
        assert settings.control.scale == (0.7, 0.3)
        assert settings.models.controlnet == ("a/b", "")
        file = tmp_path / "config.toml"
        file.write_text(to_toml(settings))
        assert merge(read_toml(file)) == settings

    @pytest.mark.parametrize(
        ("key", "value", "range_"),
        [
            ("control.type", ["hed", "lineart"], "hed or canny or depth, or a list of them"),
            ("control.type", [], "hed or canny or depth"),
            ("control.scale", [0.5, 3], "a number, 0 to 2, or a list of them"),
            ("control.scale", "0.5,x", "a number, 0 to 2"),
            ("models.controlnet", [1], "a text, or a list of texts"),
            ("models.loras", "a.safetensors", "a list of texts"),
            ("propagation.poisson_weights", [1, 2], "a list of three numbers"),
        ],
    )
    def test_are_refused_with_the_range(self, key: str, value: object, range_: str) -> None:
        assert range_ in refusal({key: value})

    @pytest.mark.parametrize(
        ("values", "expected"),
        [
            (
                {"control.type": ["hed", "depth"], "control.scale": [0.5, 0.5, 0.5]},
                'control.scale = [0.5, 0.5, 0.5] (my.toml) does not go with control.type = ["hed", '
                '"depth"] (my.toml): give one value or 2',
            ),
            (
                {"control.scale": [0.5, 0.5]},
                'with control.type = ["hed"] (default): give one value',
            ),
            ({"control.source": ["a", "b"]}, 'control.source = ["a", "b"] (my.toml)'),
            ({"models.controlnet": ["a", "b"]}, 'models.controlnet = ["a", "b"] (my.toml)'),
            (
                {"control.type": ["hed", "depth"], "models.controlnet": "a"},
                'models.controlnet = "a" (my.toml) does not go with control.type = ["hed", "depth"]'
                " (my.toml): name a ControlNet for each, in a list",
            ),
        ],
    )
    def test_lists_that_do_not_go_together(self, values: dict[str, object], expected: str) -> None:
        with pytest.raises(ConfigError) as error:
            merge(checked(Layer("my.toml", values)))
        assert str(error.value).endswith(expected) or str(error.value).startswith(expected)

    def test_text_of_the_command_line(self) -> None:
        assert toml_value("control.type", "hed, depth") == ["hed", "depth"]
        assert toml_value("control.scale", "0.5") == 0.5
        assert toml_value("control.scale", "0.5,1") == [0.5, 1.0]
        assert toml_value("models.controlnet", "a,b") == "a,b"  # a path may have a comma
        assert toml_value("models.loras", ["a:0.5"]) == ["a:0.5"]
        assert toml_value("devices", "cpu") == "cpu"


class TestStrength:
    """Two ways to say how far a result may go from its input; the last one said counts."""

    def test_decides_where_one_source_has_both(self) -> None:
        settings = merge(
            Layer("a", {"translation.strength": 0.5, "translation.warmup_steps": 90}),
            Layer("b", {"translation.seed": 1}),
        )
        assert settings.translation.strength == 0.5  # and warmup_steps = 90 of 20 is no mistake

    def test_gives_way_to_warmup_steps_of_a_later_source(self) -> None:
        early = Layer("a", {"translation.strength": 0.5})
        assert merge(early, Layer("b", {"translation.warmup_steps": 5})).translation.strength == 0
        both = Layer("b", {"translation.warmup_steps": 5, "translation.strength": 0.6})
        assert merge(early, both).translation.strength == 0.6

    def test_of_no_step(self) -> None:
        with pytest.raises(ConfigError, match=r"= 0\.02 \(a\) of translation\.steps = 20 \(def"):
            merge(Layer("a", {"translation.strength": 0.02}))


def test_a_patch_has_a_middle() -> None:
    with pytest.raises(ConfigError, match=r"propagation\.patch = 4 \(a\) .*odd number"):
        merge(Layer("a", {"propagation.patch": 4}))


class TestReadToml:
    def test_not_toml(self, tmp_path: Path) -> None:
        file = tmp_path / "config.toml"
        file.write_text("devices = cpu\n")
        with pytest.raises(ConfigError, match=r"config\.toml: not a TOML file: .*line 1"):
            read_toml(file)

    def test_byte_order_mark(self, tmp_path: Path) -> None:
        file = tmp_path / "config.toml"
        file.write_bytes(b"\xef\xbb\xbf[translation]\r\nseed = 3\r\n")
        assert merge(read_toml(file)).translation.seed == 3

    def test_types_are_those_of_toml(self, tmp_path: Path) -> None:
        file = tmp_path / "config.toml"
        file.write_text("[translation]\nseed = '3'\n")
        with pytest.raises(
            ConfigError, match=r'config\.toml: translation\.seed = "3" is not allow'
        ):
            read_toml(file)

    def test_not_text(self, tmp_path: Path) -> None:
        file = tmp_path / "config.toml"
        file.write_bytes(b"\xff\xfe")
        with pytest.raises(ConfigError, match="not a TOML file"):
            read_toml(file)

    def test_absent(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="cannot be read: No such file"):
            read_toml(tmp_path / "absent.toml")


def test_weights_belong_to_the_model_they_were_named_with() -> None:
    old = Layer("old.yaml", {"flow.model": "gmflow", "flow.weights": "/gmflow.pth"})
    for model in ("auto", "dis", "raft"):
        assert merge(old, Layer("x", {"flow.model": model})).flow.weights == ""
    kept = merge(old, Layer("x", {"flow.model": "gmflow"}), Layer("y", {"devices": "cpu"}))
    assert kept.flow.weights == "/gmflow.pth"
    named = {"saliency.weights": "/egnet.pth"}
    later = merge(Layer("x", named), Layer("y", {"saliency.model": "egnet"}))
    assert later.saliency.weights == "/egnet.pth"
    both = merge(old, Layer("x", {"flow.model": "raft", "flow.weights": "/raft.pth"}))
    assert both.flow.weights == "/raft.pth"


def test_a_later_layer_goes_first() -> None:
    settings = merge(
        Layer("a", {"translation.seed": 1, "control.type": "depth"}),
        Layer("b", {"translation.seed": 2}),
    )
    assert settings.translation.seed == 2
    assert settings.control.type == ("depth",)
