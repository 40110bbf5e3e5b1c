from pathlib import Path

import pytest

from daemon.jobs import Job, JobResult, JobState, Outcome
from daemon.live import LAST, Live
from tests.daemon.logbook import Log


def job(number: int) -> Job:
    return Job(Path(f"in/{number}.mp4"), Path(f"in/{number}.txt"), f"clip {number}", id=number)


class Watched:
    """A live view, its clock, and how states of jobs have changed."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.states: list[tuple[int, JobState]] = []
        self.live = Live(clock=lambda: self.time)

    def stage(self, number: int, name: str, done: float, total: int | None) -> None:
        before = {each.job.id: each.state for each in self.live.running}
        self.live.stage(job(number), name, done, total, 0.0)
        for each in self.live.running:
            if each.state is not before[each.job.id]:
                self.states.append((each.job.id, each.state))

    def end(self, number: int, seconds: float, outcome: Outcome = Outcome.DONE) -> None:
        self.live.end(job(number), JobResult(Path("a"), outcome, seconds))


@pytest.fixture
def watched(log: Log) -> Watched:
    return Watched()


class TestStates:
    def test_a_job_goes_from_stage_to_stage(self, watched: Watched) -> None:
        watched.live.begin(job(1), 1, 0)
        (running,) = watched.live.running
        assert running.state is JobState.PREPARING
        watched.stage(1, "prepare", 50, 100)
        assert watched.states == []
        watched.stage(1, "translate", 0.0, 4)
        watched.stage(1, "translate", 0.5, 4)
        assert watched.states == [(1, JobState.TRANSLATING)]
        watched.stage(1, "prepare", 100, 100)
        watched.stage(1, "propagate", 25, 100)
        watched.stage(1, "translate", 4, 4)
        watched.stage(1, "translate", 4, 4)
        assert watched.states[1:] == [(1, JobState.PROPAGATING)]
        watched.stage(1, "propagate", 100, 100)
        watched.stage(1, "publish", 100, 100)
        assert watched.states[2:] == [(1, JobState.PUBLISHING)]
        assert running.state is JobState.PUBLISHING
        watched.end(1, 5.0)
        assert watched.live.running == ()

    def test_what_was_all_done_before_is_published(self, watched: Watched) -> None:
        watched.live.begin(job(1), 1, 0)
        watched.stage(1, "propagate", 100, 100)
        watched.stage(1, "translate", 4, 4)
        assert watched.states == [(1, JobState.PUBLISHING)]

    def test_none_goes_back_when_it_is_begun_anew(self, watched: Watched) -> None:
        watched.live.begin(job(1), 1, 0)
        watched.stage(1, "translate", 4, 4)
        watched.stage(1, "translate", 0.5, 4)
        assert watched.states == [(1, JobState.PROPAGATING)]

    def test_of_several_jobs_each_has_its_own(self, watched: Watched) -> None:
        for number in (1, 2):
            watched.live.begin(job(number), number, 0)
        watched.stage(2, "translate", 0.5, 4)
        assert [running.state for running in watched.live.running] == [
            JobState.PREPARING,
            JobState.TRANSLATING,
        ]

    def test_what_comes_after_the_end_is_ignored(self, watched: Watched) -> None:
        watched.live.begin(job(1), 1, 0)
        watched.end(1, 5.0)
        watched.stage(1, "translate", 1, 4)
        assert watched.states == []
        assert watched.live.running == ()


class TestTimeLeft:
    def test_of_a_job_as_fast_as_it_went(self, watched: Watched) -> None:
        watched.live.begin(job(1), 1, 0)
        (running,) = watched.live.running
        assert running.left(watched.time) is None
        watched.stage(1, "translate", 0.0, 4)
        watched.time += 30
        watched.stage(1, "translate", 1, 4)
        watched.stage(1, "propagate", 25, 100)
        assert running.left(watched.time) == pytest.approx(90)
        assert watched.live.seconds_left(0) == pytest.approx(90)

    def test_of_a_queue_by_those_that_ended_lately(self, watched: Watched) -> None:
        """One job takes 60 s, two are in work at a time: one ends every 30 s."""
        assert watched.live.seconds_left(10) is None
        for number in range(LAST + 5):
            watched.live.begin(job(number), number, 0)
            watched.end(number, 60.0 if number >= 5 else 9e9)
        for number in (101, 102):
            watched.live.begin(job(number), number, 0)
        assert watched.live.seconds_left(10) == pytest.approx(30 * 11)

    def test_only_done_jobs_count(self, watched: Watched) -> None:
        for outcome in set(Outcome) - {Outcome.DONE}:
            watched.live.begin(job(1), 1, 0)
            watched.end(1, 0.1, outcome)
        assert watched.live.seconds_left(3) is None

    def test_of_nothing(self, watched: Watched) -> None:
        assert watched.live.seconds_left(0) == 0
        watched.live.begin(job(1), 1, 0)
        assert watched.live.seconds_left(0) is None


def test_it_is_logged_and_forgotten(log: Log) -> None:
    watched = Watched()
    for number in range(300):
        watched.live.begin(job(number), number, 0)
        watched.stage(number, "translate", 4, 4)
        watched.end(number, 5.0)
    records = log.records()
    assert [record["action"] for record in records[:3]] == ["job.begun", "stage.done", "job.done"]
    assert records[-1]["job"] == 299
    assert not watched.live._running
    assert not watched.live._finished
