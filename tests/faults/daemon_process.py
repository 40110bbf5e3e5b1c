"""``frescod serve`` on simulated stages: ``python -m tests.faults.daemon_process CONFIG FOLDER``.

Reading, encoding, publishing, blocks, store, inbox, control are real; translating and propagating
invert the picture (`tests.daemon.simulated`). `tests.faults.hooks` disturb it: armed in FOLDER. The
file ``clock`` there sets the wall clock that the supervisor sees back or forth, by so many seconds.
"""

import os
import resource
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.faults.hooks import Hooks, renaming

if TYPE_CHECKING:
    from daemon.settings import Settings


def install_clock(file: Path) -> None:
    """Let a file say by how much the wall clock is wrong; before anybody asks for the time."""
    right = time.time

    def wrong() -> float:
        offset = 0.0
        with suppress(OSError, ValueError):
            offset = float(file.read_text())
        return right() + offset

    time.time = wrong


def install(hooks: Hooks) -> None:
    """Name what the supervisor does to the disk, and what is to be disturbed."""
    from daemon import failure_note, service
    from daemon.job_store import JobStore
    from io_pipeline.blocks import Block
    from io_pipeline.staging import Staging

    def ended(store: Any, number: int, state: str, *_: Any) -> str:
        return str(state)

    def state(store: Any, number: int, state: str) -> str:
        return f"state {state}"

    hooks.around(JobStore, "end", ended)
    hooks.around(JobStore, "set_state", state)
    for method in ("set_prints", "window_done", "release", "recover", "charge"):
        hooks.around(JobStore, method, method)
    hooks.around(Staging, "open", "open")
    hooks.around(failure_note, "settle", "note")
    hooks.around(Path, "rename", renaming)
    hooks.around(JobStore, "arrive", lambda store, arrivals: "arrive" if arrivals else None)

    claim, create, status = JobStore.claim, Block.create, service.Service.status

    def claimed(store: Any, *but: Any) -> Any:
        record = claim(store, *but)
        if record is not None:
            hooks("after claim")
        return record

    def created(*arguments: Any) -> Any:
        block = create(*arguments)
        hooks("block acquired")
        return block

    def asked(service: Any) -> Any:
        hooks("status", quiet=True)
        return status(service)

    service.Service.status = asked  # type: ignore[method-assign]
    JobStore.claim = claimed  # type: ignore[method-assign]
    Block.create = created  # type: ignore[method-assign]
    service.require_weights = lambda settings: None


def main(config: Path, folder: Path) -> int:
    """Serve until it ends."""
    install_clock(folder / "clock")
    from daemon import serving
    from daemon.cli import run_command
    from tests.faults.daemon_stages import make_stages

    hooks = Hooks(folder, os.getpid())
    install(hooks)
    serve = serving.serve

    def simulated(settings: "Settings", **options: Any) -> int:
        return serve(settings, **options, make=lambda settings: make_stages(settings, hooks))

    serving.serve = simulated
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    return run_command(["serve", "--config", str(config)])


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
