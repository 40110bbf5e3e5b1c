from dataclasses import fields

import pytest
import torch

from daemon.config import Layer, merge
from daemon.settings import Propagation, Settings
from daemon.stages import (
    DeviceError,
    choose_device,
    choose_dtype,
    propagation_options,
    translation_options,
)
from daemon.weights import model_sources
from fresco_core.options import TranslationOptions
from fresco_core.propagation import PropagationOptions


def settings(**values: object) -> Settings:
    return merge(Layer("test", {key.replace("__", "."): value for key, value in values.items()}))


def test_default_settings_are_the_published_options() -> None:
    assert translation_options(Settings()) == TranslationOptions()
    assert propagation_options(Settings()) == PropagationOptions()


def test_every_setting_of_propagation_is_an_option() -> None:
    assert set(Propagation.model_fields) <= {field.name for field in fields(PropagationOptions)}


@pytest.mark.parametrize(
    ("key", "value", "option"),
    [
        ("translation__steps", 30, "steps"),
        ("translation__warmup_steps", -1, "warmup_steps"),
        ("translation__guidance_scale", 3.0, "guidance_scale"),
        ("translation__seed", 9, "seed"),
        ("translation__repeat_noise", False, "repeat_noise"),
        ("control__scale", 0.4, "control_scale"),
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


def test_nested_options() -> None:
    options = translation_options(
        settings(
            constraints__spatial_attention_scale=0.5,
            constraints__temporal_attention_scale=0.6,
            constraints__optimization_iterations=3,
            constraints__optimization_learning_rate=0.1,
            constraints__optimization_spatial_weight=7,
        )
    )
    assert (options.attention.spatial_scale, options.attention.temporal_scale) == (0.5, 0.6)
    optimization = options.optimization
    assert (optimization.iterations, optimization.learning_rate) == (3, 0.1)
    assert optimization.spatial_weight == 7


def test_added_prompt_is_set_off_by_commas() -> None:
    assert translation_options(settings(prompts__added="sharp")).added_prompt == ", sharp, "


class TestModelSources:
    def test_controlnet_follows_the_control_type(self) -> None:
        sources = model_sources(settings(control__type="depth"))
        assert sources["controlnet"] == "lllyasviel/sd-controlnet-depth"

    def test_own_controlnet(self) -> None:
        assert model_sources(settings(models__controlnet="a/b"))["controlnet"] == "a/b"

    def test_none_without_control(self) -> None:
        assert model_sources(settings(control__enabled=False))["controlnet"] is None

    def test_empty_means_none(self) -> None:
        assert model_sources(settings(models__vae=""))["vae"] is None


class TestDevice:
    def test_cpu(self) -> None:
        assert choose_device("cpu") == torch.device("cpu")

    def test_auto_without_gpu(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        assert choose_device("auto") == torch.device("cpu")

    def test_auto_with_gpu(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        assert choose_device("auto") == torch.device("cuda:0")

    @pytest.mark.parametrize(("count", "name"), [(0, "cuda"), (2, "cuda:2")])
    def test_absent_gpu(self, monkeypatch: pytest.MonkeyPatch, count: int, name: str) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        with pytest.raises(DeviceError, match=rf"{name} is not there \({count} usable") as error:
            choose_device(name)
        assert error.value.exit_code == 69

    def test_dtype(self) -> None:
        assert choose_dtype("auto", torch.device("cpu")) is torch.float32
        assert choose_dtype("auto", torch.device("cuda:0")) is torch.float16
        assert choose_dtype("bfloat16", torch.device("cpu")) is torch.bfloat16
