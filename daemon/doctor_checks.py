"""What ``frescod doctor`` looks at: the program, its devices, weights and codecs."""

import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib import metadata
from pathlib import Path

from daemon.control_client import ControlClient, NotRunningError
from daemon.control_socket import MAX_PATH
from daemon.devices import DeviceError, is_gpu
from daemon.doctor import Check, Finding, Verdict
from daemon.doctor_folders import disk, folders, state
from daemon.doctor_kernels import kernels
from daemon.doctor_limits import cores, gpu_files, limits, memory
from daemon.places import Places
from daemon.settings import Settings
from daemon.stages import check_propagation, choose_devices, library_versions, visible_gpus
from daemon.weights import choose_models, missing_weights
from fresco_core.errors import ConfigError, FrescodError
from fresco_core.hub import PULL
from fresco_core.propagation.program import check_program

DECODERS = ("h264", "hevc", "mpeg4", "vp9", "av1")
ENCODER = "libx264"
_NVIDIA = "0x10de"


def libraries(settings: Settings) -> Iterator[Finding]:
    """Everything that `pip install` was to bring is there, and new enough."""
    lacking = []
    for requirement in metadata.requires("frescod") or []:
        match = re.match(r"([\w.-]+)>=([\d.]+)(?:\s*;\s*(.*))?$", requirement)
        if match is None or "extra" in (match[3] or ""):
            continue
        if match[3] and platform.machine() not in match[3]:
            continue
        found = ""
        with suppress(metadata.PackageNotFoundError):
            found = metadata.version(match[1])
        if _numbers(found) < _numbers(match[2]):
            lacking.append(f"{match[1]}>={match[2]}")
    if lacking:
        command = " ".join(f"'{each}'" for each in lacking)
        yield Finding(
            "libraries",
            Verdict.PROBLEM,
            f"missing or too old: {', '.join(lacking)}",
            f"run {sys.executable} -m pip install {command}",
        )
    versions = [f"{name} {version}" for name, version in library_versions().items() if version]
    yield Finding(
        "libraries", Verdict.OK, ", ".join([f"Python {platform.python_version()}", *versions])
    )


def devices(settings: Settings, visible: Callable[[], int] = visible_gpus) -> Iterator[Finding]:
    """The devices that the settings name can be used; torch is asked in another process."""
    try:
        names = choose_devices(settings.devices, visible)
    except DeviceError as error:
        what, _, remedy = str(error).partition(": ")
        yield Finding("devices", Verdict.PROBLEM, what, remedy)
        return
    if settings.devices != "auto" or names != ("cpu",):
        yield Finding("devices", Verdict.OK, ", ".join(names))
    elif Path("/dev/nvidiactl").exists():
        yield Finding(
            "devices",
            Verdict.PROBLEM,
            "there is an NVIDIA driver, but torch can use no GPU; the CPU would do all the work",
            "see whether nvidia-smi works, whether CUDA_VISIBLE_DEVICES hides the GPUs, and "
            "whether torch was installed with CUDA; or set devices to cpu",
        )
    elif _has_nvidia_gpu():
        yield Finding(
            "devices",
            Verdict.PROBLEM,
            "there is an NVIDIA GPU, but no driver is loaded; the CPU would do all the work",
            "install NVIDIA's driver (nvidia-smi shows that it works); or set devices to cpu",
        )
    else:
        yield Finding(
            "devices",
            Verdict.WARNING,
            "no GPU: the CPU does all the work, which is good for trials only",
            "set devices to cpu if that is meant",
        )


def weights(settings: Settings) -> Iterator[Finding]:
    """All weights that the settings name are on this machine."""
    try:
        settings, chosen = choose_models(settings)
    except FrescodError as error:
        yield Finding("weights", Verdict.PROBLEM, str(error))
        return
    problems = missing_weights(settings)
    for problem in problems:
        fetched = problem.endswith(PULL) and not settings.models.offline
        verdict = Verdict.WARNING if fetched else Verdict.PROBLEM
        yield Finding("weights", verdict, problem)
    if not problems:
        yield Finding("weights", Verdict.OK, "all that the settings name are on this machine")
        for choice in chosen:
            yield Finding("weights", Verdict.OK, choice)


def codecs(settings: Settings) -> Iterator[Finding]:
    """Clips of the usual kinds can be decoded, results encoded."""
    try:
        import av.codec
    except ImportError as error:
        yield Finding("codecs", Verdict.PROBLEM, f"PyAV: {error}", "install av again")
        return

    def has(name: str, mode: str) -> bool:
        with suppress(ValueError):  # PyAV's UnknownCodecError is one
            return bool(av.codec.Codec(name, mode).name)
        return False

    remedy = f"install PyAV from its wheel: {sys.executable} -m pip install --force-reinstall av"
    missing = [name for name in DECODERS if not has(name, "r")]
    if not has(ENCODER, "w"):
        text = f"PyAV has no {ENCODER}: no result can be written"
        yield Finding("codecs", Verdict.PROBLEM, text, remedy)
    if missing:
        yield Finding("codecs", Verdict.WARNING, f"no decoder for {', '.join(missing)}", remedy)
    if has(ENCODER, "w") and not missing:
        yield Finding("codecs", Verdict.OK, f"{ENCODER}; decoders {', '.join(DECODERS)}")
    yield from _decord(settings)


def _decord(settings: Settings) -> Iterator[Finding]:
    if platform.machine() != "x86_64" and settings.clips.decoder != "decord":
        return
    wanted = settings.clips.decoder == "decord"
    # In a process of its own: what is broken in it may end the process.
    command = [sys.executable, "-P", "-c", "import decord"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
        reason = (done.stderr.strip().splitlines() or ["it crashed"])[-1] if done.returncode else ""
    except subprocess.TimeoutExpired:
        reason = "its import hangs"
    if reason:
        verdict = Verdict.PROBLEM if wanted else Verdict.WARNING
        remedy = f"{sys.executable} -m pip install --force-reinstall decord"
        yield Finding("codecs", verdict, f"decord, the second decoder: {reason}", remedy)
    else:
        yield Finding("codecs", Verdict.OK, "decord, the second decoder, can be imported")


def propagation(
    settings: Settings, visible: Callable[[], int] = lambda: len(gpu_files())
) -> Iterator[Finding]:
    """What carries key frames to the frames between them can run."""
    with suppress(DeviceError):  # of which another check tells
        try:
            names = choose_devices(settings.devices, visible)
            check_propagation(settings, names)
        except ConfigError as error:
            yield Finding("propagate", Verdict.PROBLEM, str(error))
            return
        if settings.propagation.device != "cpu" and any(map(is_gpu, names)):
            text = f"GPUs may take {settings.propagation.device_memory} of their memory for it"
            yield Finding("propagate", Verdict.OK, text)
    if settings.propagation.engine == "builtin":
        yield Finding("propagate", Verdict.OK, "built in, compiled by Numba: no ebsynth is needed")
        return
    try:
        program = check_program(settings.propagation.program)
    except FrescodError as error:
        yield Finding("propagate", Verdict.PROBLEM, str(error))
    else:
        yield Finding("propagate", Verdict.OK, f"by {program}")


def running(settings: Settings) -> Iterator[Finding]:
    """Whether the daemon runs, and what it says of itself."""
    place = Places.of(settings).socket
    length = len(os.fsencode(place))
    if length > MAX_PATH:
        yield Finding(
            "daemon",
            Verdict.PROBLEM,
            f"the path of its control socket has {length} bytes, {MAX_PATH} are possible",
            "set service.socket to a shorter one",
        )
        return
    try:
        status = ControlClient(place).status()
    except NotRunningError:
        yield Finding("daemon", Verdict.OK, "not running")
    except FrescodError as error:
        yield Finding("daemon", Verdict.WARNING, str(error))
    else:
        text = f"running as process {status.get('pid')}, {status.get('state')}"
        yield Finding("daemon", Verdict.OK, text)
        for problem in status.get("problems", ()):
            yield Finding("daemon", Verdict.PROBLEM, str(problem))


def _has_nvidia_gpu() -> bool:
    for vendor in Path("/sys/bus/pci/devices").glob("*/vendor"):
        with suppress(OSError):
            kind = vendor.with_name("class").read_text()
            if vendor.read_text().strip() == _NVIDIA and kind.startswith("0x03"):
                return True
    return False


def _numbers(version: str) -> tuple[int, ...]:
    """The numbers at a version's beginning: enough to compare with a lower bound."""
    match = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, match[0].split("."))) if match else ()


CHECKS = (
    Check("libraries", libraries),
    Check("devices", devices, seconds=90),
    Check("kernels", kernels),
    Check("weights", weights, seconds=60),
    Check("codecs", codecs, seconds=40),
    Check("propagate", propagation),
    Check("folders", folders),
    Check("state", state),
    Check("disk", disk),
    Check("memory", memory),
    Check("cores", cores),
    Check("limits", limits),
    Check("daemon", running, seconds=15),
)
