from pathlib import Path
from typing import Any

import pytest
import structlog

from daemon.actions import Action
from daemon.jobs import Outcome
from tests.daemon.rig import Rig, Watcher
from tests.daemon.simulated import Fault, kill


def test_warnings_tell_device_and_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, Any]] = []

    def warn(watcher: Watcher, text: str, action: Action = Action.WARNING) -> None:
        told.append((text, structlog.contextvars.get_contextvars()))

    monkeypatch.setattr(Watcher, "warn", warn)
    rig = Rig(tmp_path)
    faults = [Fault("step 1 of translate a 1", kill)]
    (result,) = rig.run(rig.job(), faults=faults, devices=("cpu", "cpu"))
    assert result.outcome is Outcome.DONE
    (found,) = [found for text, found in told if "window 1 is done again" in text]
    assert found["clip"] == "a.mp4"
    assert found["device"] in ("cpu 1", "cpu 2")
    assert found["window"] == 1
