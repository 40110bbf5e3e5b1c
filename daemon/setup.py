"""A workshop as the settings want it."""

import resource
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from daemon.actions import Action
from daemon.budget import Budget, usable_cores
from daemon.devices import Devices, is_gpu
from daemon.memory import Memory, budget_bytes, size_bytes
from daemon.readers import Readers
from daemon.settings import Settings
from daemon.timeline import Timeline
from daemon.workers import OnRecord, Worker, WorkerPool
from daemon.workshop import OnWarning, Workshop
from daemon.workshop_options import WorkshopOptions

if TYPE_CHECKING:
    from daemon.stages import Stages


def open_workshop(
    settings: Settings,
    stages: "Stages",
    timeline: Timeline,
    on_warning: OnWarning,
    on_start: Callable[[], None],
    on_details: Callable[[str], None] = lambda text: None,
    on_record: OnRecord | None = None,
) -> Workshop:
    """Everything that clips are made with; no process is started yet.

    ``on_start`` is called when the devices are; ``on_details`` as `Workshop` has it; ``on_record``
    hears what workers log. From now on this process may have as many open files as the system lets
    it: every worker takes three, every window one.

    Raises:
        ConfigError: the machine has not the memory that ``prefetch.memory`` asks for.
    """
    _allow_open_files()
    names = stages.devices
    gpus = sum(map(is_gpu, names))
    # A GPU keeps one core busy that feeds it; a CPU device takes its cores as any task does.
    cores = max(1, (settings.cpu.cores or usable_cores()) - gpus)
    threads = 1 if gpus else max(1, cores // (2 * len(names)))
    limits = settings.timeouts
    deadlines = {
        "start": limits.load,
        "load": limits.load,
        "task": max(limits.step, limits.propagate, limits.publish),
        "decode": limits.decode,
        "map": limits.step,
        "maps": limits.step,
        "match": limits.step,
        "step": limits.step,
        "flow": limits.step,
        "propagate": limits.propagate,
        "publish": limits.publish,
        "save": limits.publish,
    }

    def on_pool(event: str, worker: Worker, detail: str) -> None:
        if event == "died":
            on_warning(f"{worker.name}: {detail}", Action.WORKER_DIED)
            if worker.late:
                on_details(worker.output)

    memory = Memory(
        budget_bytes(settings.prefetch.memory, len(names)),
        lambda used: timeline.counter("shared memory", used),
    )
    return Workshop(
        Readers(stages.reader, settings.clips.decoder, deadlines=deadlines, on_record=on_record),
        WorkerPool(
            "pool", stages.cpu, cores, deadlines=deadlines, on_event=on_pool, on_record=on_record
        ),
        Devices(
            names,
            stages.device,
            deadlines=deadlines,
            threads=threads,
            on_event=on_warning,
            on_record=on_record,
        ),
        Budget(cores),
        memory,
        timeline,
        WorkshopOptions(
            control_device=settings.control.device,
            device_threads=threads,
            space_timeout=limits.space,
            attempts=settings.service.attempts,
            segments=settings.propagation.processes,
            propagation_device=settings.propagation.device,
            propagation_memory=size_bytes(settings.propagation.device_memory),
        ),
        on_warning,
        on_start,
        on_details,
    )


def _allow_open_files() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # the system's own bound has been lowered since
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
