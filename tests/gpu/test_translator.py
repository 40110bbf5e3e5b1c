"""FrescoTranslator on a GPU. Skipped where there is none."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fresco_core.batch import KeyFrameBatch
from fresco_core.flow import load_flow
from fresco_core.models import load_diffusion_models
from fresco_core.options import TranslationOptions
from fresco_core.tiny_model import make_tiny_model
from fresco_core.translator import FrescoTranslator
from tests.fresco_core.scenes import panning

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

# Without the optimisation, whose rounding no two devices share.
STEADY = TranslationOptions(steps=6, warmup_steps=2, feature_optimization=False)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("model"))


def translator(folders, device: str, dtype: torch.dtype, options: TranslationOptions):
    base, controlnet = folders
    models = load_diffusion_models(
        str(base), vae=None, controlnets=(str(controlnet),), device=device, dtype=dtype
    )
    return FrescoTranslator(models, load_flow("dis", device=device), options)


def batch(count: int = 4) -> KeyFrameBatch:
    frames = panning(count, 128, 192, step=6)
    return KeyFrameBatch(frames, frames[..., 0][:, None], ("a car",) * count)


def test_float32_agrees_with_the_cpu(folders):
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    there = translator(folders, "cuda", torch.float32, STEADY).translate(batch()).frames
    here = translator(folders, "cpu", torch.float32, STEADY).translate(batch()).frames
    assert np.abs(there.astype(int) - here).mean() < 0.1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_under_all_constraints(folders, dtype):
    options = replace(STEADY, feature_optimization=True, smoothing_begin=0.5)
    subject = translator(folders, "cuda", dtype, options)
    first = subject.translate(batch())
    second = subject.translate(batch(2), first.carry)
    assert first.frames.shape == (4, 128, 192, 3)
    assert second.frames.shape == (2, 128, 192, 3)
    assert first.frames.std() > 0


def test_one_seed_one_result(folders):
    subject = translator(folders, "cuda", torch.float16, STEADY)
    assert np.array_equal(subject.translate(batch()).frames, subject.translate(batch()).frames)
