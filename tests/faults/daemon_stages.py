"""The stages of `tests.daemon.simulated` for a whole daemon, in which hooks name what happens."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from daemon.settings import Settings
from io_pipeline.cpu_stage import CpuStage
from io_pipeline.reading import ReaderStage
from io_pipeline.worker import Report
from tests.daemon.simulated import DeviceStage, Watched
from tests.faults.hooks import Hooks, install_in_worker


@dataclass(frozen=True)
class Hooked:
    """A stage whose worker's doings on the disk are events."""

    stage: Any
    hooks: Hooks

    def load(self, report: Report) -> Any:
        install_in_worker(self.hooks)
        return self.stage.load(report)


def make_stages(settings: Settings, hooks: Any) -> Any:
    """The stages, for as many devices as the settings name."""
    names = tuple("cpu" for name in settings.devices.split(",") for _ in range(_times(name)))
    return SimpleNamespace(
        devices=names,
        absent=(),
        reader=Hooked(Watched(ReaderStage(settings.limits.max_pixels), hooks), hooks),
        cpu=Hooked(Watched(CpuStage({"kinds": ("canny",)}), hooks), hooks),
        device=lambda name: DeviceStage(name, hooks),
        identity=lambda: {"version": "1"},
    )


def _times(name: str) -> int:
    return int(name.partition("*")[2] or 1)
