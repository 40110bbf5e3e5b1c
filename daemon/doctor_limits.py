"""What ``frescod doctor`` says of memory, of cores and of the kernel's limits."""

import ctypes
import os
import resource
from collections.abc import Iterator, Sequence
from pathlib import Path

from daemon.budget import usable_cores
from daemon.doctor import Finding, Verdict
from daemon.memory import budget_bytes
from daemon.settings import Settings
from fresco_core.errors import ConfigError
from io_pipeline.blocks import Block, BlockError, Layout, available_memory

GIB = 1 << 30
# What processes take beside shared memory, roughly: one of a device, one of the CPU pool.
_DEVICE = 3 * GIB
_WORKER = GIB // 2
_FILES = 4096
_WATCHES = 8192
_INOTIFY = Path("/proc/sys/fs/inotify")


def memory(settings: Settings) -> Iterator[Finding]:
    """``prefetch.memory`` can be had, with something left for the processes."""
    devices = device_count(settings)
    available = available_memory()
    try:
        budget = budget_bytes(settings.prefetch.memory, devices)
    except ConfigError as error:
        yield Finding("memory", Verdict.PROBLEM, str(error))
        return
    workers = settings.cpu.cores or usable_cores()
    needed = budget + devices * _DEVICE + workers * _WORKER
    text = f"{available / GIB:.1f} GiB available, {budget / GIB:.1f} of them for windows"
    if needed > available:
        yield Finding(
            "memory",
            Verdict.WARNING,
            f"{text}; {devices} devices and {workers} CPU processes may take {needed / GIB:.0f}",
            "lower prefetch.memory or cpu.cores if processes are ended for want of memory",
        )
    else:
        yield Finding("memory", Verdict.OK, text)


def cores(settings: Settings) -> Iterator[Finding]:
    """There are enough cores to feed the GPUs."""
    usable, gpus = usable_cores(), len(gpu_files())
    text = f"{usable} can be used" + (
        f", cpu.cores = {settings.cpu.cores}" * bool(settings.cpu.cores)
    )
    if settings.cpu.cores > usable:
        yield Finding("cores", Verdict.WARNING, text, "cpu.cores is more: processes will wait")
    elif (settings.cpu.cores or usable) < 4 * gpus:
        remedy = "with fewer than four for each, GPUs may have to wait for frames"
        yield Finding("cores", Verdict.WARNING, f"{text}, for {gpus} GPUs", remedy)
    else:
        yield Finding("cores", Verdict.OK, text)


def limits(settings: Settings) -> Iterator[Finding]:
    """Open files, shared memory, and watching of folders."""
    problems = [*_files(), *_shared_memory()]
    if settings.inbox.watch == "inotify":
        problems += _inotify(settings.inbox.recursive)
    yield from problems
    if not problems:
        yield Finding("limits", Verdict.OK, "open files, shared memory and inotify are as needed")


def gpu_files() -> Sequence[Path]:
    """The driver's device files, one for each GPU."""
    return sorted(path for path in Path("/dev").glob("nvidia[0-9]*"))


def device_count(settings: Settings) -> int:
    """How many devices there will be, roughly: without asking torch."""
    if settings.devices in ("auto", "cuda"):
        return max(1, len(gpu_files()))
    named = [item.strip().partition("*") for item in settings.devices.split(",")]
    return sum(int(times or 1) for _, _, times in named)


def _files() -> Iterator[Finding]:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < _FILES:
        yield Finding(
            "limits",
            Verdict.WARNING,
            f"{hard} open files at most; each worker takes three, each window one",
            f"raise it to {_FILES} (ulimit -Hn, or LimitNOFILE= of the service)",
        )


def _shared_memory() -> Iterator[Finding]:
    try:
        with Block.create(Layout.of(trial=((1 << 16,), "u1"))) as block:
            block.allocate()
    except BlockError as error:
        yield Finding("limits", Verdict.PROBLEM, f"memfd: {error}")


def _inotify(recursive: bool) -> Iterator[Finding]:
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.inotify_init1(os.O_CLOEXEC)
    if descriptor < 0:
        reason = os.strerror(ctypes.get_errno())
        yield Finding(
            "limits",
            Verdict.PROBLEM,
            f"no folder can be watched ({reason})",
            'raise the sysctl fs.inotify.max_user_instances, or set inbox.watch = "polling"',
        )
        return
    os.close(descriptor)
    watches = int((_INOTIFY / "max_user_watches").read_text())
    if recursive and watches < _WATCHES:
        yield Finding(
            "limits",
            Verdict.WARNING,
            f"{watches} folders can be watched by all programs of this user",
            f"raise the sysctl fs.inotify.max_user_watches to {_WATCHES}",
        )
