"""What a device is asked to do, and what not."""

import subprocess
import sys
from dataclasses import replace

import pytest

from fresco_core.propagation import PropagationOptions
from fresco_core.propagation.gpu import paint_segments, unsupported


def test_a_device_does_the_defaults():
    assert unsupported(PropagationOptions()) is None


@pytest.mark.parametrize("options", [{"engine": "ebsynth"}, {"inpaint_scale": 1}])
def test_what_only_the_cpu_does_is_refused(options: dict):
    refused = replace(PropagationOptions(), **options)
    assert str(next(iter(options.values()))) in str(unsupported(refused))
    with pytest.raises(ValueError, match="runs on the CPU"):
        paint_segments([], refused, "cpu")


def test_the_published_form_is_the_cpus():
    assert unsupported(PropagationOptions.published())


def test_a_process_of_a_device_does_without_numba():
    code = (
        "import sys; from fresco_core.propagation.gpu import segments\n"
        "sys.exit('numba' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_whoever_only_asks_needs_no_torch():
    code = (
        "import sys; from fresco_core.propagation.gpu import Segment, unsupported\n"
        "sys.exit(any(name in sys.modules for name in ('torch', 'triton', 'numba')))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
