from contextlib import closing
from pathlib import Path

import pytest

from daemon.control_client import ControlError, NotRunningError
from daemon.job_store import JobStore
from daemon.jobs import Arrival, JobState
from daemon.left_behind import LeftBehind
from fresco_core.errors import ConfigError


@pytest.fixture
def left(tmp_path: Path) -> LeftBehind:
    with closing(JobStore(tmp_path / "jobs.sqlite")) as store:
        store.arrive(
            Arrival(Path("/in", name), Path("/in/a.txt"), None, seen="1")
            for name in ("a.mp4", "b.mp4", "c.mp4")
        )
        failed = store.claim()
        assert failed is not None
        store.end(failed.id, JobState.FAILED, "a.mp4: no video stream")
    return LeftBehind(tmp_path / "jobs.sqlite", "frescod is not running")


def test_status(left: LeftBehind, tmp_path: Path) -> None:
    status = left.status()
    assert status["state"] == "down"
    assert status["store"] == str(tmp_path / "jobs.sqlite")
    assert set(status["jobs"]) == set(JobState)
    assert (status["jobs"]["queued"], status["jobs"]["failed"]) == (2, 1)
    (failure,) = status["failures"]
    assert (failure["clip"], failure["reason"]) == ("/in/a.mp4", "a.mp4: no video stream")


def test_jobs(left: LeftBehind) -> None:
    assert [job["id"] for job in left.jobs()] == [3, 2, 1]
    assert [job["id"] for job in left.jobs(limit=1)] == [3]
    assert [job["id"] for job in left.jobs(JobState.QUEUED)] == [3, 2]
    assert [job["id"] for job in left.called("b")] == [2]
    assert left.job(2)["clip"] == "/in/b.mp4"
    with pytest.raises(ControlError, match="no job 9"):
        left.job(9)


def test_nothing_left(tmp_path: Path) -> None:
    with pytest.raises(NotRunningError, match=r"not running, and there is no job store at .*serve"):
        LeftBehind(tmp_path / "jobs.sqlite", "frescod is not running").status()
    assert not (tmp_path / "jobs.sqlite").exists()


def test_something_that_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "jobs.sqlite").write_text("hello, this is no data base, and long enough")
    with pytest.raises(ConfigError, match=r"jobs\.sqlite"):
        LeftBehind(tmp_path / "jobs.sqlite", "").jobs()
