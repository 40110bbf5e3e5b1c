import json
import pickle
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import fields
from importlib import metadata
from pathlib import Path

import pytest
import torch

from daemon import stages
from daemon.config import Layer, merge
from daemon.settings import Propagation, Settings
from daemon.stages import (
    DeviceError,
    choose_devices,
    key_frame_options,
    make_stages,
    map_options,
    propagation_options,
    translation_options,
    visible_gpus,
)
from daemon.weights import detector_sources, model_sources
from fresco_core.errors import ConfigError
from fresco_core.options import (
    AttentionOptions,
    FreeUOptions,
    OcclusionOptions,
    TranslationOptions,
)
from fresco_core.propagation import PropagationOptions
from io_pipeline.options import KeyFrameOptions, MapOptions
from io_pipeline.publish import COMPARISON_PRESET


def settings(**values: object) -> Settings:
    return merge(Layer("test", {key.replace("__", "."): value for key, value in values.items()}))


def test_default_settings_are_the_published_options() -> None:
    assert translation_options(Settings()) == TranslationOptions()
    assert propagation_options(Settings()) == PropagationOptions()


def test_every_setting_of_propagation_is_an_option() -> None:
    options = {field.name for field in fields(PropagationOptions)}
    assert set(Propagation.model_fields) - {"processes", "device", "device_memory"} <= options
    assert propagation_options(settings(propagation__poisson_clip=9.0)).poisson_clip == 9


@pytest.mark.parametrize(
    ("key", "value", "option"),
    [
        ("translation__steps", 30, "steps"),
        ("translation__warmup_steps", -1, "warmup_steps"),
        ("translation__guidance_scale", 3.0, "guidance_scale"),
        ("translation__seed", 9, "seed"),
        ("translation__repeat_noise", False, "repeat_noise"),
        ("translation__keep_colours", 0.25, "keep_colours"),
        ("control__scale", (0.4,), "control_scales"),
        ("constraints__cross_frame_attention", False, "cross_frame_attention"),
        ("constraints__spatial_attention", False, "spatial_attention"),
        ("constraints__temporal_attention", False, "temporal_attention"),
        ("constraints__feature_optimization", False, "feature_optimization"),
        ("constraints__background_smoothing", False, "background_smoothing"),
        ("constraints__spatial_attention_steps", 4, "spatial_attention_steps"),
        ("constraints__temporal_attention_end", 100, "temporal_attention_end"),
        ("constraints__optimization_end", 4, "optimization_end"),
        ("constraints__optimized_levels", (0,), "optimized_levels"),
        ("constraints__smoothing_begin", 0.1, "smoothing_begin"),
        ("constraints__smoothing_end", 1.0, "smoothing_end"),
        ("prompts__negative", "rain", "negative_prompt"),
        ("prompts__negative", "", "negative_prompt"),
        ("prompts__added", "", "added_prompt"),
    ],
)
def test_setting_reaches_the_translator(key: str, value: object, option: str) -> None:
    assert getattr(translation_options(settings(**{key: value})), option) == value


@pytest.mark.parametrize(
    ("strength", "steps", "warmup"),
    [(0.75, 20, 5), (0.8, 20, 4), (1.0, 20, 0), (0.04, 20, 19), (0.5, 30, 15), (0.0, 20, 3)],
)
def test_strength_goes_before_warmup_steps(strength: float, steps: int, warmup: int) -> None:
    options = translation_options(
        settings(
            translation__strength=strength, translation__steps=steps, translation__warmup_steps=3
        )
    )
    assert options.warmup_steps == warmup
    assert options.executed_steps == steps - warmup


def test_brackets_are_text_where_the_syntax_is_literal() -> None:
    assert translation_options(Settings()).prompt_weights
    assert not translation_options(settings(prompts__syntax="literal")).prompt_weights


def test_freeu_is_off_unless_it_is_enabled() -> None:
    assert translation_options(settings(freeu__b1=1.5)).freeu is None
    enabled = settings(freeu__enabled=True, freeu__b1=1.5, freeu__s2=0.7)
    assert translation_options(enabled).freeu == FreeUOptions(1.5, 1.5, 1.0, 0.7)


def test_nested_options() -> None:
    options = translation_options(
        settings(
            constraints__spatial_attention_scale=0.5,
            constraints__temporal_attention_scale=0.6,
            constraints__spatial_attention_bias=-1.0,
            constraints__occlusion_slope=0.1,
            constraints__occlusion_margin=2.0,
            constraints__occlusion_colour=10.0,
            constraints__optimization_iterations=3,
            constraints__optimization_learning_rate=0.1,
            constraints__optimization_spatial_weight=7,
        )
    )
    assert options.attention == AttentionOptions(0.5, 0.6, -1.0)
    assert options.occlusion == OcclusionOptions(0.1, 2.0, 10.0)
    optimization = options.optimization
    assert (optimization.iterations, optimization.learning_rate) == (3, 0.1)
    assert optimization.spatial_weight == 7


def test_added_prompt_is_set_off_by_commas() -> None:
    assert translation_options(settings(prompts__added="sharp")).added_prompt == ", sharp, "


def test_options_of_key_frames_and_maps() -> None:
    changed = settings(
        key_frames__min_interval=3,
        key_frames__max_interval=9,
        key_frames__batch_size=4,
        key_frames__resolution=128,
        clips__on_truncated="fail",
        control__canny_low=7,
        control__canny_high=8,
    )
    assert key_frame_options(changed) == KeyFrameOptions(3, 9, 4, 128, "fail")
    assert map_options(changed) == MapOptions(7, 8)


class TestModelSources:
    def test_controlnet_follows_the_control_type(self) -> None:
        sources = model_sources(settings(control__type="depth"))
        assert sources["controlnets"] == ("lllyasviel/sd-controlnet-depth",)

    def test_own_controlnet(self) -> None:
        assert model_sources(settings(models__controlnet="a/b"))["controlnets"] == ("a/b",)

    def test_one_for_each_control_type(self) -> None:
        several = {"control__type": ("hed", "canny"), "control__source": ("/hed", "")}
        usual = settings(**several)
        assert model_sources(usual)["controlnets"] == (
            "lllyasviel/sd-controlnet-hed",
            "lllyasviel/sd-controlnet-canny",
        )
        own = settings(**several, models__controlnet=("", "a/b"))
        assert model_sources(own)["controlnets"] == ("lllyasviel/sd-controlnet-hed", "a/b")
        assert detector_sources(own) == {"kinds": ("hed", "canny"), "sources": ("/hed", None)}

    def test_none_without_control(self) -> None:
        assert model_sources(settings(control__enabled=False))["controlnets"] == ()

    def test_empty_means_none(self) -> None:
        assert model_sources(settings(models__vae=""))["vae"] is None


def asked(count: int) -> Callable[[], int]:
    return lambda: count


def never() -> int:
    raise AssertionError("counted GPUs")


class TestDevices:
    @pytest.mark.parametrize(
        ("text", "count", "names"),
        [
            ("auto", 0, ("cpu",)),
            ("auto", 2, ("cuda:0", "cuda:1")),
            ("cuda", 3, ("cuda:0", "cuda:1", "cuda:2")),
            ("cuda:1", 2, ("cuda:1",)),
            ("cuda:2, cuda:0", 4, ("cuda:2", "cuda:0")),
            ("cuda:0,cpu", 1, ("cuda:0", "cpu")),
        ],
    )
    def test_by_what_is_there(self, text: str, count: int, names: tuple[str, ...]) -> None:
        assert choose_devices(text, asked(count)) == names

    @pytest.mark.parametrize(
        ("text", "count"), [("cpu", 1), ("cpu*3", 3), ("cpu,cpu", 2), ("cpu*2,cpu", 3)]
    )
    def test_cpu_needs_no_counting(self, text: str, count: int) -> None:
        assert choose_devices(text, never) == ("cpu",) * count

    @pytest.mark.parametrize(
        ("text", "count", "message"),
        [
            ("cuda", 0, "no usable GPU is there"),
            ("cuda:0", 0, r"cuda:0 is not there \(no usable GPU\): choose another, or cpu"),
            ("cuda:0,cuda:2,cuda:5", 2, r"cuda:2, cuda:5 is not there \(cuda:0, cuda:1\)"),
        ],
    )
    def test_absent_gpu(self, text: str, count: int, message: str) -> None:
        with pytest.raises(DeviceError, match=message) as error:
            choose_devices(text, asked(count))
        assert error.value.exit_code == 69

    @pytest.mark.parametrize("text", ["", "gpu", "cuda:x", "cpu*0", "cpu,", "auto,cpu", "cuda,cpu"])
    def test_no_device(self, text: str) -> None:
        with pytest.raises(ConfigError, match="give auto, cuda, or a list"):
            choose_devices(text, never)

    def test_one_gpu_twice(self) -> None:
        with pytest.raises(ConfigError, match="names cuda:1 twice"):
            choose_devices("cuda:1,cuda:0,cuda:1", asked(2))

    def test_without_a_driver_nothing_is_started(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("os.path.exists", lambda path: False)
        monkeypatch.setattr("subprocess.run", never)
        assert visible_gpus() == 0

    @pytest.mark.parametrize("text", ["cuda:0,cuda:00", "cuda:1,cuda:0,cuda:01"])
    def test_one_gpu_twice_in_other_words(self, text: str) -> None:
        with pytest.raises(ConfigError, match=r"names cuda:\d twice"):
            choose_devices(text, asked(2))

    def test_a_driver_that_hangs(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("os.path.exists", lambda path: True)
        monkeypatch.setattr(stages, "_COUNT", "import time; time.sleep(60)")
        monkeypatch.setattr(stages, "_COUNT_SECONDS", 0.2)
        with pytest.raises(DeviceError, match=r"could not be counted in 0.2 s: check the driver"):
            visible_gpus()

    def test_a_folder_with_a_torch_of_its_own(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "torch.py").write_text("print(7); raise SystemExit")
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("os.path.exists", lambda path: True)
        assert visible_gpus() == torch.cuda.device_count()

    def test_with_a_driver_torch_is_asked(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("os.path.exists", lambda path: path == "/dev/nvidiactl")
        assert visible_gpus() == torch.cuda.device_count()


class TestStages:
    def test_travel_to_workers(self) -> None:
        made = make_stages(Settings(), asked(2))
        for stage in (made.reader, made.cpu, *map(made.device, made.devices)):
            assert pickle.loads(pickle.dumps(stage)) == stage
        assert made.devices == ("cuda:0", "cuda:1")
        assert made.device("cuda:1").device == "cuda:1"

    @pytest.mark.parametrize(
        ("chosen", "by_cpu", "by_device"),
        [("auto", True, True), ("cpu", True, False), ("gpu", False, True)],
    )
    def test_who_draws_control_maps(self, chosen: str, by_cpu: bool, by_device: bool) -> None:
        made = make_stages(settings(control__device=chosen, control__type="depth"), asked(0))
        assert (made.cpu.detectors is not None) == by_cpu
        detectors = made.device("cpu").detectors
        assert (detectors is not None) == by_device
        assert (made.cpu.detectors or detectors) == {"kinds": ("depth",), "sources": (None,)}

    def test_nobody_draws_without_control(self) -> None:
        made = make_stages(settings(control__enabled=False), asked(0))
        assert made.cpu.detectors is made.device("cpu").detectors is None
        assert made.device("cpu").facts["models"]["control_types"] == []

    def test_the_program_that_is_to_propagate_has_to_be_there(self, tmp_path: Path) -> None:
        program = tmp_path / "ebsynth"
        named = {"propagation__program": str(program)}
        make_stages(settings(**named), asked(0))  # it is not wanted
        with pytest.raises(ConfigError, match="ebsynth not found: correct the path"):
            make_stages(settings(propagation__engine="ebsynth", **named), asked(0))
        program.touch(0o755)
        make_stages(settings(propagation__engine="ebsynth", **named), asked(0))

    def test_gpus_that_are_to_propagate_are_there(self) -> None:
        wanted = settings(propagation__device="gpu")
        make_stages(wanted, asked(1))
        with pytest.raises(ConfigError, match="devices are cpu: set it to auto or cpu"):
            make_stages(wanted, asked(0))
        with pytest.raises(ConfigError, match="is no memory: write 4GiB"):
            make_stages(settings(propagation__device_memory="0GiB"), asked(1))

    def test_facts_are_json(self) -> None:
        facts = make_stages(Settings(), asked(0)).device("cpu").facts
        assert json.loads(json.dumps(facts)) == facts
        assert facts["models"]["base"] == Settings().models.base
        assert facts["versions"]["torch"] == metadata.version("torch")

    def test_identity_tells_devices_and_versions(self) -> None:
        on_cpu = make_stages(settings(devices="cpu*2"), asked(0)).identity()
        assert on_cpu == make_stages(settings(devices="cpu"), asked(0)).identity()
        on_gpu = make_stages(Settings(), asked(4)).identity()
        assert on_cpu["devices"] == "cpu"
        assert on_gpu["devices"] == "cuda"
        assert on_cpu["comparison"] == COMPARISON_PRESET
        assert {**on_gpu, "devices": "cpu"} == on_cpu


def test_versions_are_told_of_all_that_shapes_a_picture() -> None:
    project = tomllib.loads((Path(stages.__file__).parents[1] / "pyproject.toml").read_text())
    named = {re.match(r"[\w-]+", text)[0] for text in project["project"]["dependencies"]}  # type: ignore[index]
    others = {"accelerate", "huggingface-hub", "safetensors"}  # how weights come here
    others |= {"aiohttp", "click", "prometheus-client", "pydantic", "pyyaml", "rich", "structlog"}
    others |= {"matplotlib", "watchdog"}
    others |= {"pillow"}  # looks at headers alone
    assert {*stages.LIBRARIES} == {"frescod"} | named - others


def test_no_torch_in_the_supervisor() -> None:
    program = """
import sys
import daemon.cli, daemon.one_shot, daemon.stages, daemon.weights
assert not {"torch", "numba", "scipy", "diffusers", "transformers"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True)
