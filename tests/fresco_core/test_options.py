import subprocess
import sys

import pytest

from fresco_core.options import TranslationOptions


def test_options_need_neither_torch_nor_numba() -> None:
    """They are what a process without networks knows of the method."""
    program = """
import sys
from fresco_core import keyframes, options, propagation
assert not {"torch", "numba", "scipy"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize(("warmup", "steps"), [(5, 15), (0, 20), (-1, 20)])
def test_executed_steps(warmup: int, steps: int) -> None:
    assert TranslationOptions(warmup_steps=warmup).executed_steps == steps


def test_smoothing_steps_move_with_the_length_of_the_schedule():
    def smoothed(steps: int) -> list[int]:
        options = TranslationOptions(steps=steps)
        return [index for index in range(steps) if options.smooths(index)]

    assert smoothed(20) == [16, 17]
    assert smoothed(50) == [40, 41, 42, 43, 44]
    assert smoothed(10) == [8]
