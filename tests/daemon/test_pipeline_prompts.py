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

    job.prompt_file.write_text("[0-7] day\n[8-] night\n[9-11] rain\n[17-18] snow")
    (result,) = rig.run(job)
    assert result.outcome is Outcome.DONE, result.reason
    assert rig.manifest()["prompt"] == {
        "positive": "",
        "negative": None,
        "timed": [
            {"first": 0, "last": 7, "text": "day"},
            {"first": 8, "last": None, "text": "night"},
            {"first": 9, "last": 11, "text": "rain"},
            {"first": 17, "last": 18, "text": "snow"},
        ],
    }
    assert [text for text in rig.watcher.warnings if "seen" not in text] == [
        "a.mp4: prompt: [9-11] has no key frame and changes nothing: the nearest are 8 and 12",
        "a.mp4: prompt: [17-18] goes beyond the clip's last frame, 17",
    ]
