from pathlib import PurePath
from typing import Any

import pytest

from daemon.control_client import ControlError, NotRunningError
from daemon.job_lookup import LookupFailed, find_job, spellings
from daemon.printable import printable

CLIPS = {1: "/in/a.mp4", 2: "/in/b.mp4", 3: "/in/a.mov", 4: "/in/2.mp4", 12: "/in/99.mp4"}


class Jobs:
    def job(self, number: int) -> dict[str, Any]:
        if number not in CLIPS:
            raise ControlError(f"there is no job {number}", 404)
        return {"id": number, "clip": CLIPS[number]}

    def called(self, name: str) -> list[dict[str, Any]]:
        clips = {number: PurePath(clip) for number, clip in CLIPS.items()}
        return [
            self.job(number)
            for number, clip in reversed(clips.items())
            if name in (str(clip), clip.name, clip.stem)
        ]


@pytest.mark.parametrize(
    ("name", "number"),
    [("1", 1), ("2", 2), ("b.mp4", 2), ("b", 2), ("a.mov", 3), ("/in/a.mp4", 1), ("99", 12)],
)
def test_found(name: str, number: int) -> None:
    assert find_job(Jobs(), name)["id"] == number


@pytest.mark.parametrize("name", ["c", "mp4", "A", "", "77", "9" * 30, "٣", "-1"])
def test_not_found(name: str) -> None:
    with pytest.raises(LookupFailed, match="no such job"):
        find_job(Jobs(), name)


def test_several_clips_are_named_by_their_newest_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CLIPS, 13, "/in/a.mp4")  # done again
    with pytest.raises(LookupFailed, match="jobs 13, 3: give the number"):
        find_job(Jobs(), "a")


def test_of_one_clip_the_newest(monkeypatch: pytest.MonkeyPatch) -> None:
    for number in (13, 14):
        monkeypatch.setitem(CLIPS, number, "/in/b.mp4")
    told: list[str] = []
    assert find_job(Jobs(), "b", told.append)["id"] == 14
    assert told == ["the newest job of this clip; before it: 13, 2"]
    assert find_job(Jobs(), "a.mov", told.append)["id"] == 3
    assert len(told) == 1


@pytest.mark.parametrize("name", ["a", "é 😀.mp4", "a\udcff\n\x1b.mp4", "a\U000e0001", r"\\\a", ""])
def test_a_name_as_it_is_printed(name: str) -> None:
    assert name in spellings(printable(name))
    assert spellings(name)[0] == name


def test_what_only_looks_escaped() -> None:
    assert spellings(r"\x41\u00e9\U00110000\U99999999\q") == (r"\x41\u00e9\U00110000\U99999999\q",)
    assert spellings(r"a\n") == (r"a\n", "a\n")


def test_a_daemon_that_is_gone_is_no_job_that_is_not_there() -> None:
    class Gone(Jobs):
        def job(self, number: int) -> dict[str, Any]:
            raise NotRunningError("gone")

    with pytest.raises(NotRunningError):
        find_job(Gone(), "1")
