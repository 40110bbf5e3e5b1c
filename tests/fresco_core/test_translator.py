from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from fresco_core.batch import KeyFrameBatch
from fresco_core.errors import NoPictureError
from fresco_core.flow import load_flow
from fresco_core.models import load_diffusion_models
from fresco_core.options import (
    AttentionOptions,
    FreeUOptions,
    OcclusionOptions,
    OptimizationOptions,
    TranslationOptions,
)
from fresco_core.tiny_model import make_tiny_model
from fresco_core.translator import FrescoTranslator
from tests.fresco_core.scenes import panning

QUICK = TranslationOptions(
    steps=6,
    warmup_steps=2,
    optimization_end=4,
    smoothing_begin=0.5,
    optimization=OptimizationOptions(iterations=2),
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def translator(folders) -> FrescoTranslator:
    return new_translator(folders)


def new_translator(folders, dtype: torch.dtype = torch.float32) -> FrescoTranslator:
    base, controlnet = folders
    models = load_diffusion_models(
        str(base), vae=None, controlnets=[str(controlnet)], device="cpu", dtype=dtype
    )
    return FrescoTranslator(models, load_flow("dis"), QUICK)


def batch(count: int, height: int = 128, width: int = 64, seed: int = 0) -> KeyFrameBatch:
    frames = panning(count, height, width, step=6, seed=seed)
    controls = np.stack([cv2.Canny(frame, 50, 100) for frame in frames])[:, None]
    return KeyFrameBatch(frames, controls, ("a car",) * count)


def run(translator: FrescoTranslator, **changes) -> np.ndarray:
    translator.options = replace(QUICK, **changes)
    frames = translator.translate(batch(3)).frames
    translator.options = QUICK
    return frames


@pytest.fixture(scope="module")
def usual(translator) -> np.ndarray:
    return run(translator)


def test_batches_are_tied_by_the_carry(translator):
    whole = batch(5)
    first = translator.translate(
        KeyFrameBatch(whole.frames[:3], whole.controls[:3], whole.prompts[:3])
    )
    assert first.frames.shape == (3, 128, 64, 3)
    assert first.carry.latents.shape == (4, 2, 4, 16, 8)
    assert np.array_equal(first.carry.frames, whole.frames[[0, 2]])
    rest = KeyFrameBatch(whole.frames[3:], whole.controls[3:], whole.prompts[3:])
    second = translator.translate(rest, first.carry)
    assert second.frames.shape == (2, 128, 64, 3)
    # The clip's first key frame keeps its path; the last one is handed on.
    assert torch.equal(second.carry.latents[:, 0], first.carry.latents[:, 0])
    assert not torch.equal(second.carry.latents[:, 1], first.carry.latents[:, 1])
    assert np.array_equal(second.carry.frames, whole.frames[[0, 4]])
    assert not np.array_equal(translator.translate(rest).frames, second.frames)


def test_one_seed_one_result(translator, folders):
    found = run(translator)
    translator.translate(batch(4, seed=3))  # whatever ran before
    assert np.array_equal(run(translator), found)
    assert np.array_equal(run(new_translator(folders)), found)
    assert not np.array_equal(run(translator, seed=1), found)


@pytest.mark.parametrize(
    "change",
    [
        {"cross_frame_attention": False},
        {"spatial_attention": False},
        {"temporal_attention": False},
        {"feature_optimization": False},
        {"background_smoothing": False},
        {"guidance_scale": 3.0},
        {"control_scales": (0.0,)},
        {"repeat_noise": False},
        {"warmup_steps": 3},
        {"warmup_steps": -1},
        {"optimized_levels": (1,)},
        {"added_prompt": ""},
        {"negative_prompt": "snow"},
        {"keep_colours": 0.5},
        {"freeu": FreeUOptions()},
        {"occlusion": OcclusionOptions(colour=1.0)},
        {"occlusion": OcclusionOptions(slope=0.0, margin=0.0)},
        {"attention": AttentionOptions(spatial_bias=-4.0)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_option_takes_effect(translator, usual, change):
    assert not np.array_equal(run(translator, **change), usual)


def test_brackets_weigh_words_unless_they_are_text(translator):
    scene = replace(batch(2), prompts=("a (red:1.4) car",) * 2)
    found = []
    for weights in (True, False):
        translator.options = replace(QUICK, prompt_weights=weights)
        found.append(translator.translate(scene).frames)
    translator.options = QUICK
    assert not np.array_equal(*found)


def test_several_controlnets_add_up_each_with_its_weight(folders):
    base, controlnet = folders
    models = load_diffusion_models(str(base), controlnets=[str(controlnet)] * 2)
    both = FrescoTranslator(models, load_flow("dis"), QUICK)
    one = new_translator(folders)
    scene = batch(2)
    edges = scene.controls
    black = np.zeros_like(edges)

    def frames(translator, controls, *scales):
        translator.options = replace(QUICK, control_scales=scales)
        return translator.translate(replace(scene, controls=controls)).frames

    twice = frames(both, np.concatenate((edges, black), 1), 0.5, 0.0)
    assert np.array_equal(twice, frames(one, edges, 0.5))
    assert np.array_equal(frames(both, np.concatenate((black, edges), 1), 0.0, 0.5), twice)
    assert not np.array_equal(frames(both, np.concatenate((edges, black), 1), 0.5, 0.5), twice)
    same = frames(both, np.concatenate((edges, edges), 1), 0.5)
    assert np.array_equal(same, frames(both, np.concatenate((edges, edges), 1), 0.5, 0.5))
    with pytest.raises(ValueError, match="2 ControlNets"):
        frames(both, edges, 0.5)


def test_the_saliency_model_decides_what_is_background(folders, usual):
    class Everything:
        name = "everything"

        def __call__(self, frames_N3HW, flows_N2HW):
            assert frames_N3HW.dtype == torch.uint8
            assert flows_N2HW.shape == (3, 2, 128, 64)
            return torch.ones(3, 1, 64, 32)

    models = new_translator(folders).models
    everything = FrescoTranslator(models, load_flow("dis"), QUICK, Everything())
    assert not np.array_equal(everything.translate(batch(3)).frames, usual)


def test_all_constraints_off_is_plain_diffusion(translator):
    switches = ("cross_frame_attention", "spatial_attention", "temporal_attention")
    switches += ("feature_optimization", "background_smoothing")
    translator.options = replace(QUICK, **dict.fromkeys(switches, False))
    scene, other = batch(3), batch(3)
    other.frames[2], other.controls[2] = 255 - other.frames[2], 0
    found, changed = translator.translate(scene).frames, translator.translate(other).frames
    translator.options = QUICK
    # Each frame is translated as if it were alone.
    assert np.array_equal(found[:2], changed[:2])
    assert not np.array_equal(found[2], changed[2])


@pytest.mark.parametrize(("count", "height", "width"), [(1, 128, 64), (2, 64, 64), (3, 64, 192)])
def test_small_batches_and_sizes(translator, count, height, width):
    frames = translator.translate(batch(count, height, width)).frames
    assert frames.shape == (count, height, width, 3)
    assert frames.std() > 0


def test_without_control_maps(translator):
    scene = batch(2)
    found = translator.translate(KeyFrameBatch(scene.frames, None, scene.prompts))
    assert found.carry.controls is None
    assert not np.array_equal(found.frames, translator.translate(scene).frames)


def test_the_prompt_and_its_negative_count(translator):
    scene = batch(2)
    found = translator.translate(scene).frames
    other = replace(scene, prompts=("snow", "snow"))
    assert not np.array_equal(translator.translate(other).frames, found)
    other = replace(scene, negative="day light")
    assert not np.array_equal(translator.translate(other).frames, found)


def test_steps_are_reported(translator):
    steps = []
    translator.translate(batch(2), on_step=steps.append)
    assert [(s.index, s.count) for s in steps] == [(0, 4), (1, 4), (2, 4), (3, 4)]
    assert [s.timestep for s in steps] == list(translator.schedule.timesteps[2:])


def test_bfloat16(folders):
    translator = new_translator(folders, torch.bfloat16)
    assert run(translator).std() > 0


def test_shapes_that_do_not_fit_are_refused(translator):
    scene = batch(2)
    with pytest.raises(ValueError, match="multiples of 64"):
        translator.translate(KeyFrameBatch(scene.frames[:, :60], None, scene.prompts))
    with pytest.raises(ValueError, match="control maps"):
        translator.translate(replace(scene, controls=scene.controls[:1]))
    with pytest.raises(ValueError, match="prompts"):
        translator.translate(replace(scene, prompts=("a",)))
    carry = translator.translate(scene).carry
    with pytest.raises(ValueError, match="carry"):
        translator.translate(batch(2, 64, 64), carry)
    with pytest.raises(ValueError, match="control maps or neither"):
        translator.translate(replace(scene, controls=None), carry)


def test_other_options_share_the_models(folders, translator, usual):
    options = replace(
        QUICK, steps=7, guidance_scale=3.0, seed=4, attention=AttentionOptions(0.5, 0.9)
    )
    other = translator.with_options(options)
    assert other.models is translator.models
    assert other.schedule.timesteps != translator.schedule.timesteps
    base = FrescoTranslator(new_translator(folders).models, load_flow("dis"), options)
    expected = base.translate(batch(3)).frames
    assert np.array_equal(other.translate(batch(3)).frames, expected)
    assert not np.array_equal(expected, usual)
    assert np.array_equal(run(translator), usual)


def test_of_the_attention_too(translator, usual):
    options = replace(QUICK, attention=AttentionOptions(2.0, 2.0))
    assert not np.array_equal(translator.with_options(options).translate(batch(3)).frames, usual)
    assert np.array_equal(run(translator), usual)


@pytest.mark.parametrize("layer", ["unet.conv_out", "vae.decoder.conv_out"])
def test_broken_weights_are_noticed(folders, layer):
    translator = new_translator(folders)
    network, _, name = layer.partition(".")
    getattr(translator.models, network).get_submodule(name).bias.data.fill_(float("nan"))
    with pytest.raises(NoPictureError, match="float32"):
        translator.translate(batch(2))
    assert not translator.attention.reference


def test_black_pictures_are_noticed(folders):
    translator = new_translator(folders)
    last = translator.models.vae.decoder.conv_out
    last.weight.data.zero_()
    last.bias.data.fill_(-2)
    with pytest.raises(NoPictureError, match="black"):
        translator.translate(batch(2))
    night = np.zeros((2, 64, 64, 3), np.uint8)
    assert not translator.translate(KeyFrameBatch(night, None, ("night",) * 2)).frames.any()


def test_the_vae_in_float32_and_back(folders):
    translator = new_translator(folders, torch.bfloat16)
    before = translator.models.vae.decoder.conv_out.weight.clone()
    with translator.codec.in_float32():
        assert translator.codec.dtype == torch.float32
        assert translator.translate(batch(2)).frames.std() > 0
    assert translator.codec.dtype == torch.bfloat16
    assert torch.equal(translator.models.vae.decoder.conv_out.weight, before)


@torch.no_grad()
def test_what_the_vae_found_in_half_precision_does_not_count_in_float32(folders):
    codec, frames = new_translator(folders, torch.bfloat16).codec, torch.rand(1, 3, 64, 64)
    before = codec.encode(frames, torch.zeros)
    with codec.in_float32():
        precise = codec.encode(frames, torch.zeros)
    assert not torch.equal(precise, before)
    assert torch.equal(codec.encode(frames, torch.zeros), before)


def test_what_is_kept_for_other_sizes_can_be_given_back(folders):
    translator = new_translator(folders)
    translator.translate(batch(2))
    assert not translator.release()
    for height in (64, 128):
        expected = translator.translate(batch(2, height)).frames
    assert translator.release()
    assert np.array_equal(translator.translate(batch(2, height)).frames, expected)
    assert not translator.release()
