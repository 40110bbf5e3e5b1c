"""Prompts by time through the loop: told in the manifest, and checked before anything is made."""

from pathlib import Path

from daemon.jobs import Outcome
from tests.daemon.rig import Rig


def test_every_key_frame_needs_a_text(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    job = rig.job(prompt="[0-7] day\n[9-] night")  # key frames: 0 4 8 12 16 17
    (result,) = rig.run(job)
    assert result.outcome is Outcome.FAILED
    assert result.reason.startswith(f"{job.prompt_file}: prompt has no text for frame 8: ")
    assert not rig.events("step")

    job.prompt_file.write_text("[0-7] day\n[8-] night")
    (result,) = rig.run(job)
    assert result.outcome is Outcome.DONE, result.reason
    assert rig.manifest()["prompt"] == {
        "positive": "",
        "negative": None,
        "timed": [
            {"first": 0, "last": 7, "text": "day"},
            {"first": 8, "last": None, "text": "night"},
        ],
    }
