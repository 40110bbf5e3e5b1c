"""What disturbs a daemon of the tests, from outside, while it runs.

Whatever it does that matters has a name, an event, in the supervisor and in its workers. All are
written down in ``events.txt``, a line each. At an event that is armed something happens, from the
moment that it is armed on: nothing has to be started anew for it.

Workers import this module: it imports nothing of the supervisor's.
"""

import fcntl
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any
from urllib.parse import quote

_ACTIONS = "actions"


@dataclass(frozen=True)
class Hooks:
    """Called with an event; ``supervisor`` is the daemon's process."""

    folder: Path
    supervisor: int

    def __call__(self, event: str, *, quiet: bool = False) -> None:
        if not quiet:
            with (self.folder / "events.txt").open("a", errors="surrogateescape") as file:
                file.write(event.replace("\n", "?") + "\n")
        armed = self._armed(event)
        if not armed.exists():
            return
        with armed.open("a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            first, last, action, *calls = file.read().split("\n")
            file.write("call\n")
        if int(first) <= len(calls) <= int(last):
            self._do(action, armed)

    def _do(self, action: str, armed: Path) -> None:
        match action.split():
            case ["crash"]:  # nothing that comes after it happens, neither here nor there
                os.kill(self.supervisor, signal.SIGKILL)
                os.kill(os.getpid(), signal.SIGKILL)
            case ["crash", "group"]:
                os.killpg(os.getpgid(0), signal.SIGKILL)
            case ["die"]:
                os.kill(os.getpid(), signal.SIGKILL)
            case ["hold"]:
                while armed.exists():
                    time.sleep(0.01)
            case ["sleep", seconds]:
                time.sleep(float(seconds))
            case ["fail"]:
                raise RuntimeError(f"armed: {armed.name}")
            case _:
                raise ValueError(action)

    def arm(self, event: str, action: str, number: int = 1, times: int = 1) -> None:
        """Have something done at an event: at the number-th time from now, and some times more.

        Actions: ``crash`` (daemon and worker die at once), ``crash group`` (all its processes do),
        ``die`` (the process that comes to it does), ``hold`` (until disarmed), ``sleep SECONDS``,
        ``fail``.
        """
        folder = self.folder / _ACTIONS
        folder.mkdir(exist_ok=True)
        temporary = folder / ".new"
        temporary.write_text(f"{number}\n{number + times - 1}\n{action}\n")
        temporary.rename(self._armed(event))

    def disarm(self, event: str) -> None:
        """Nothing happens any more; whoever is held goes on."""
        self._armed(event).unlink()

    def _armed(self, event: str) -> Path:
        return self.folder / _ACTIONS / quote(os.fsencode(event), safe=" ")[:200]

    def around(self, owner: Any, name: str, event: str | Callable[..., str | None]) -> None:
        """Make every call of a method two events: ``before`` and ``after`` it.

        ``event``, where it is a function, gets the arguments; None for a call that is none.
        """
        original = getattr(owner, name)

        @wraps(original)
        def hooked(*arguments: Any, **named: Any) -> Any:
            what = event if isinstance(event, str) else event(*arguments, **named)
            if what is None:
                return original(*arguments, **named)
            self(f"before {what}")
            result = original(*arguments, **named)
            self(f"after {what}")
            return result

        setattr(owner, name, hooked)


def renaming(source: Path, target: Path) -> str | None:
    """What a rename is called: by what appears."""
    kinds = {"checkpoints": "checkpoint", "windows": "window", "keys": "key"}
    if target.parent.name in kinds:
        return kinds[target.parent.name]
    if target.suffix in (".mp4", ".png", ".json"):
        return target.stem
    return "rename" if source.name == "result" else None


def install_in_worker(hooks: Hooks) -> None:
    """Name what a worker changes on the disk."""
    hooks.around(Path, "rename", renaming)
