import os
import subprocess
import sys

import pytest

pytest.importorskip("triton")
# Rounding; of signs, any that is wrong; of the optimisation, the share of numbers whose gradient is
# about 0.
BOUNDS = {
    "temporal_attention": 1e-5,
    "smoothing": 1e-5,
    "layers": 1e-5,
    "correlation_signs": 1e-9,
    "optimization": 0.05,
}


def test_kernels_are_their_twins():
    interpreting = {**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "tests.fresco_core.interpreted"]
    done = subprocess.run(command, env=interpreting, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = dict(line.split() for line in done.stdout.splitlines())
    assert found.keys() == BOUNDS.keys()
    for check, difference in found.items():
        assert float(difference) < BOUNDS[check], check
