"""Windows on a GPU, as a device's process translates them. Skipped where there is none."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fresco_core.options import TranslationOptions
from fresco_core.tiny_model import make_tiny_model
from io_pipeline import checkpoint
from io_pipeline.device_stage import DeviceStage
from io_pipeline.match import Match
from io_pipeline.options import MapOptions
from io_pipeline.prompt import Prompt
from io_pipeline.tasks import TranslateWindow
from io_pipeline.translate import Translate
from io_pipeline.window import BY_DEVICE, Window
from io_pipeline.worker import OutOfDeviceMemory
from tests.io_pipeline.windows import Reports, clip, cut_clip, read

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

# Without the optimisation, which has tests of its own.
STEADY = TranslationOptions(
    steps=6, warmup_steps=4, smoothing_begin=0.5, feature_optimization=False
)
FRAMES = clip(14)
KEYS = (0, 2, 4, 5, 7, 9, 10, 12, 13)
ARRAYS = ("keys", "carry_latents", "carry_frames", "carry_controls", "previous_control")


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> DeviceStage:
    base, controlnet = make_tiny_model(tmp_path_factory.mktemp("model"))
    models = {
        "base": str(base),
        "vae": None,
        "controlnets": (str(controlnet),),
        "base_config": None,
    }
    return DeviceStage(
        device="cuda:0",
        dtype="auto",
        models=models,
        flow=("dis", None),
        saliency=("motion", None),
        detectors={"kinds": ("canny",)},
        facts={},
    )


def task_of(window: Window, file: Path | None = None) -> TranslateWindow:
    maps = (BY_DEVICE,) * len(window.key_numbers)
    return TranslateWindow("a", "", window, Prompt("a car"), maps, 5, file, STEADY, MapOptions())


def test_another_process_goes_on_from_the_checkpoint(stage: DeviceStage, tmp_path: Path) -> None:
    one: Translate = stage.load(Reports())
    assert one.facts["dtype"] == "float16"
    assert "NVIDIA" in one.facts["device"]
    assert one.memory is not None
    assert one.memory > 0
    file = None
    for window in cut_clip(KEYS, 5):
        first, second = (read(window, FRAMES) for _ in range(2))
        translated = one(task_of(window, file), (first,), Reports())
        stage.load(Reports())(task_of(window, file), (second,), Reports())
        for name in ARRAYS:
            assert np.array_equal(first[name], second[name]), name
        assert translated is not None
        file = checkpoint.path(tmp_path, window.index)
        file.parent.mkdir(parents=True, exist_ok=True)
        maps = (BY_DEVICE,) * len(window.key_numbers)
        checkpoint.save(tmp_path, window, first, translated, maps)


def test_what_was_matched_ahead_changes_nothing(stage: DeviceStage) -> None:
    """Flows of the CPU and their place in memory, saliency on the device: all bits are the same."""
    options = replace(STEADY, feature_optimization=True)
    with_it, without = stage.load(Reports()), stage.load(Reports())
    for window in cut_clip(KEYS, 5, matched=True)[:2]:
        plain = replace(window, matched=False)
        blocks = read(window, FRAMES), read(plain, FRAMES)
        for pair in range(window.ring_pairs):
            Match()(window, pair, blocks[0])
        with_it(replace(task_of(window), options=options), blocks[:1], Reports())
        without(replace(task_of(plain), options=options), blocks[1:], Reports())
        for name in ARRAYS:
            assert np.array_equal(blocks[0][name], blocks[1][name]), name


def test_flows_come_from_pinned_memory(stage: DeviceStage) -> None:
    (window,) = cut_clip((0, 12), 5, flows=True)
    found = []
    for name in ("cpu", "cuda:0"):
        with read(window, FRAMES) as block:
            replace(stage, device=name).load(Reports())(task_of(window), (block,), Reports())
            assert block.pin()
            found.append(block["flows"].copy())
    assert found[0].any()
    assert np.array_equal(*found)


def test_out_of_memory(stage: DeviceStage) -> None:
    window, *_ = cut_clip(KEYS, 5)
    translate = stage.load(Reports())
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1e-6)
    try:
        with pytest.raises(OutOfDeviceMemory, match="out of memory"):
            translate(task_of(window), (read(window, FRAMES),), Reports())
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    translate(task_of(window), (read(window, FRAMES),), Reports())
