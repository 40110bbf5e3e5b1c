"""The cosine transform against SciPy's."""

import numpy as np
import pytest
import torch
from scipy.fft import dct, idct

from fresco_core.propagation.gpu.cosine import CosineTransform


@pytest.mark.parametrize("length", [1, 2, 3, 8, 37, 64])
def test_there_and_back(length: int):
    values = np.random.default_rng(length).normal(size=(2, 5, length)).astype(np.float32)
    transform = CosineTransform(length, torch.device("cpu"))
    waves = transform.forward(torch.from_numpy(values))
    np.testing.assert_allclose(waves.numpy(), dct(values, norm="ortho"), atol=3e-6)
    np.testing.assert_allclose(transform.inverse(waves).numpy(), values, atol=3e-6)
    back = transform.inverse(torch.from_numpy(values)).numpy()
    np.testing.assert_allclose(back, idct(values, norm="ortho"), atol=3e-6)
