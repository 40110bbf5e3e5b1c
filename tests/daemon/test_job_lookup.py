from typing import Any

import pytest

from daemon.control_client import ControlError, NotRunningError
from daemon.job_lookup import LookupFailed, find_job, is_called

CLIPS = {1: "/in/a.mp4", 2: "/in/b.mp4", 3: "/in/a.mov", 4: "/in/2.mp4", 12: "/in/99.mp4"}


class Jobs:
    def job(self, number: int) -> dict[str, Any]:
        if number not in CLIPS:
            raise ControlError(f"there is no job {number}", 404)
        return {"id": number, "clip": CLIPS[number]}

    def called(self, name: str) -> list[dict[str, Any]]:
        found = [self.job(number) for number, clip in CLIPS.items() if is_called(clip, name)]
        return found[::-1]


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


def test_several_are_named() -> None:
    with pytest.raises(LookupFailed, match="jobs 3, 1: give the number"):
        find_job(Jobs(), "a")


def test_a_name_that_cannot_be_printed() -> None:
    assert is_called("/in/a\udcff\n.mp4", r"a\udcff\n")
    assert is_called(r"/in/a\udcff\n.mp4", "a\udcff\n.mp4")


def test_a_daemon_that_is_gone_is_no_job_that_is_not_there() -> None:
    class Gone(Jobs):
        def job(self, number: int) -> dict[str, Any]:
            raise NotRunningError("gone")

    with pytest.raises(NotRunningError):
        find_job(Gone(), "1")
