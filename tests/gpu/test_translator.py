"""FrescoTranslator on a GPU. Skipped where there is none."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fresco_core.batch import KeyFrameBatch, with_carried
from fresco_core.flow import load_flow
from fresco_core.models import load_diffusion_models
from fresco_core.options import FreeUOptions, TranslationOptions
from fresco_core.sampling import SeededNoise
from fresco_core.tiny_model import make_tiny_model
from fresco_core.translator import FrescoTranslator
from tests.fresco_core.scenes import panning

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

# Without the optimisation, whose rounding no two devices share.
STEADY = TranslationOptions(steps=6, warmup_steps=2, feature_optimization=False)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("model"))


def translator(
    folders,
    device: str,
    dtype: torch.dtype,
    options: TranslationOptions,
    controlnets: int = 1,
    *,
    kernels: bool = True,
):
    base, controlnet = folders
    models = load_diffusion_models(
        str(base),
        vae=None,
        controlnets=(str(controlnet),) * controlnets,
        device=device,
        dtype=dtype,
    )
    return FrescoTranslator(models, load_flow("dis", device=device), options, kernels=kernels)


def batch(count: int = 4) -> KeyFrameBatch:
    frames = panning(count, 128, 192, step=6)
    return KeyFrameBatch(frames, frames[..., 0][:, None], ("a car",) * count)


def test_float32_agrees_with_the_cpu(folders):
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    there = translator(folders, "cuda", torch.float32, STEADY).translate(batch()).frames
    here = translator(folders, "cpu", torch.float32, STEADY).translate(batch()).frames
    assert np.abs(there.astype(int) - here).mean() < 0.1


def test_kernels_lose_no_more_than_half_precision_does(folders):
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    options = replace(STEADY, smoothing_begin=0.5)

    def frames(dtype: torch.dtype, kernels: bool) -> np.ndarray:
        subject = translator(folders, "cuda", dtype, options, kernels=kernels)
        first = subject.translate(batch())
        second = subject.translate(batch(3), first.carry)
        return np.concatenate((first.frames, second.frames)).astype(int)

    exact = frames(torch.float32, kernels=False)
    lost, also_lost = (
        np.abs(frames(torch.float16, kernels) - exact).mean() for kernels in (False, True)
    )
    assert also_lost <= 1.5 * lost + 0.1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_under_all_constraints(folders, dtype):
    options = replace(STEADY, feature_optimization=True, smoothing_begin=0.5)
    subject = translator(folders, "cuda", dtype, options)
    first = subject.translate(batch())
    second = subject.translate(batch(2), first.carry)
    assert first.frames.shape == (4, 128, 192, 3)
    assert second.frames.shape == (2, 128, 192, 3)
    assert first.frames.std() > 0


def test_no_step_waits_for_the_one_before(folders):
    options = replace(STEADY, feature_optimization=True, smoothing_begin=0.5)
    subject = translator(folders, "cuda", torch.float16, options)
    carry = subject.translate(batch()).carry
    for _ in range(2):  # what is made once is made
        subject.translate(batch(2), carry)
    whole = with_carried(batch(2), carry)
    conditioning = subject.conditioner.condition(whole, options)
    noise = SeededNoise(0)
    references = subject.reference_pass(conditioning, noise)
    torch.cuda.set_sync_debug_mode("error")
    try:
        with torch.no_grad():
            latents, _ = subject.sample(conditioning, references, noise, carry.latents)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert latents.isfinite().all()


def test_one_seed_one_result(folders):
    subject = translator(folders, "cuda", torch.float16, STEADY)
    assert np.array_equal(subject.translate(batch()).frames, subject.translate(batch()).frames)


@pytest.mark.parametrize(("controlnets", "freeu"), [(0, None), (1, FreeUOptions()), (2, None)])
def test_what_was_translated_before_changes_nothing(folders, controlnets: int, freeu):
    """Graphs, optimisers and what a batch's tensors gave, over more sizes than are kept."""
    options = replace(STEADY, feature_optimization=True, smoothing_begin=0.5, freeu=freeu)

    def new():
        return translator(folders, "cuda", torch.float16, options, controlnets)

    def a_batch(count: int, height: int, shade: int) -> KeyFrameBatch:
        frames = panning(count, height, 192, step=6) // shade
        controls = (
            np.stack([frames[..., i] for i in range(controlnets)], 1) if controlnets else None
        )
        prompts = (", ".join(["a car on a road"] * 10 * shade),) * count  # of more than 77 tokens
        return KeyFrameBatch(frames, controls, prompts)

    used = new()
    batches = [a_batch(3, 128, 1), a_batch(3, 128, 2), a_batch(2, 128, 1), a_batch(3, 192, 1)]
    expected = [new().translate(each).frames for each in batches]
    for i in (0, 0, 1, 2, 0, 3, 1, 3, 2):
        assert np.array_equal(used.translate(batches[i]).frames, expected[i]), i
    with used.codec.in_float32():
        precise = used.translate(batches[0]).frames
    other = new()
    with other.codec.in_float32():
        assert np.array_equal(other.translate(batches[0]).frames, precise)
    assert np.array_equal(used.translate(batches[0]).frames, expected[0])
    assert used.release()
    assert np.array_equal(used.translate(batches[0]).frames, expected[0])
