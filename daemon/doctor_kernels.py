"""What ``frescod doctor`` looks at: whether this machine can build the project's GPU kernels."""

import os
import shutil
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from daemon.devices import DeviceError, is_gpu
from daemon.doctor import Finding, Verdict
from daemon.doctor_limits import gpu_files
from daemon.settings import Settings
from daemon.stages import choose_devices

_SLOWER = "without them a GPU takes several times as long for a key frame"


def kernels(
    settings: Settings,
    visible: Callable[[], int] = lambda: len(gpu_files()),
    include: Sequence[str] = (),
) -> Iterator[Finding]:
    """Triton builds its launchers with a C compiler and Python's headers (in ``include``)."""
    try:
        names = choose_devices(settings.devices, visible)
    except DeviceError:
        return  # `devices` says so
    if not any(map(is_gpu, names)):
        return
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")
    folders = include or (sysconfig.get_path("include"), sysconfig.get_path("platinclude"))
    if not compiler:
        text, remedy = "no C compiler, which GPU kernels are built with", "install gcc"
    elif not any(Path(folder, "Python.h").exists() for folder in folders):
        text = "Python.h is missing, which GPU kernels are built with"
        remedy = "install the headers of this Python (python3-dev)"
    else:
        yield Finding("kernels", Verdict.OK, f"GPU kernels are built with {compiler}")
        return
    yield Finding("kernels", Verdict.WARNING, text, f"{remedy}; {_SLOWER}")
