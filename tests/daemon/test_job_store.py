import json
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from daemon.fingerprints import Fingerprints
from daemon.job_rows import GONE, counts, newest, read_store
from daemon.job_schema import MIGRATIONS
from daemon.job_store import JobStore, StoreError
from daemon.jobs import Arrival, JobState
from fresco_core.errors import ConfigError, FrescodError
from io_pipeline.control_source import ControlFile

PRINTS = Fingerprints("clip", "prompt", "settings")


def arrival(name: str = "a.mp4", seen: str = "1", **changes: Any) -> Arrival:
    clip = Path("/inbox") / name
    values: dict[str, Any] = {"prompt_file": clip.with_suffix(".txt"), "settings_file": None}
    return Arrival(clip, seen=seen, **values | changes)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[JobStore]:
    store = JobStore(tmp_path / "jobs.sqlite")
    yield store
    store.close()


def states(store: JobStore) -> list[tuple[str, str]]:
    return [(job.clip.name, str(job.state)) for job in reversed(store.jobs())]


CONTROLS = (
    ControlFile("control", Path("/inbox/a.control")),
    ControlFile("depth", Path("/inbox/a\udcff\n, x.depth.mp4")),
)


class TestControlFiles:
    def test_a_job_has_them_until_they_are_gone(self, store: JobStore) -> None:
        (record,) = store.arrive([arrival(control_files=CONTROLS)])
        assert record.control_files == CONTROLS
        claimed = store.claim()
        assert claimed is not None
        assert claimed.job().control_files == CONTROLS
        store.end(record.id, JobState.DONE)
        (again,) = store.arrive([arrival(seen="2")])
        assert (again.state, again.control_files) == (JobState.QUEUED, ())
        assert store.get(record.id).control_files == CONTROLS

    def test_as_json(self, store: JobStore) -> None:
        (record,) = store.arrive([arrival(control_files=CONTROLS)])
        told = json.loads(json.dumps(record.to_json()))
        assert told["control_files"] == [
            {"kind": "control", "path": "/inbox/a.control"},
            {"kind": "depth", "path": r"/inbox/a\udcff\n, x.depth.mp4"},
        ]


class TestArrive:
    def test_a_clip_with_its_prompt_is_queued(self, store: JobStore) -> None:
        (record,) = store.arrive([arrival()])
        assert (record.state, record.name, record.attempts) == (JobState.QUEUED, "a", 0)

    def test_the_prompt_may_come_later(self, store: JobStore) -> None:
        (waiting,) = store.arrive([arrival(prompt_file=None)])
        assert waiting.state is JobState.WAITING_PROMPT
        assert store.claim() is None
        (queued,) = store.arrive([arrival(seen="2")])
        assert (queued.id, queued.state) == (waiting.id, JobState.QUEUED)

    def test_told_twice_is_one_job(self, store: JobStore) -> None:
        store.arrive([arrival()])
        assert store.arrive([arrival()]) == []
        assert states(store) == [("a.mp4", "queued")]

    def test_changed_while_queued_is_one_job(self, store: JobStore) -> None:
        store.arrive([arrival()])
        store.arrive([arrival(seen="2")])
        assert states(store) == [("a.mp4", "queued")]

    def test_changed_when_done_is_a_new_job_of_the_same_name(self, store: JobStore) -> None:
        (first,) = store.arrive([arrival()])
        store.claim()
        store.end(first.id, JobState.DONE)
        assert store.arrive([arrival()]) == []
        (second,) = store.arrive([arrival(seen="2")])
        assert second.id != first.id
        assert second.name == first.name
        assert states(store) == [("a.mp4", "done"), ("a.mp4", "queued")]

    def test_the_same_again_turns_out_to_be_one_job(self, store: JobStore) -> None:
        (first,) = store.arrive([arrival()])
        store.end(first.id, JobState.DONE)
        (second,) = store.arrive([arrival(seen="2")])
        store.claim()
        assert store.end_as_before(second.id).id == first.id
        assert states(store) == [("a.mp4", "done")]
        assert store.arrive([arrival(seen="2")]) == []

    def test_a_result_of_before_the_store_is_a_job_that_is_done(self, store: JobStore) -> None:
        store.arrive([arrival()])
        claimed = store.claim()
        assert claimed is not None
        assert store.end_as_before(claimed.id).state is JobState.DONE

    def test_what_failed_is_not_tried_again_before_it_changes(self, store: JobStore) -> None:
        (first,) = store.arrive([arrival(priority=3)])
        store.end(first.id, JobState.FAILED, "why")
        assert store.arrive([arrival(priority=3)]) == []
        (second,) = store.arrive([arrival(seen="2", priority=3)])
        assert (second.state, second.priority) == (JobState.QUEUED, 3)

    def test_a_job_that_waits_gets_another_priority(self, store: JobStore) -> None:
        store.arrive([arrival()])
        (record,) = store.arrive([arrival(priority=7)])
        assert record.priority == 7
        assert store.arrive([arrival(priority=7)]) == []
        latest = store.latest(record.clip)
        assert latest == record
        assert store.latest(Path("/inbox/other.mp4")) is None

    def test_a_running_job_is_left_alone(self, store: JobStore) -> None:
        store.arrive([arrival()])
        store.claim()
        assert store.arrive([arrival()]) == []
        (running,) = store.arrive([arrival(seen="2")])
        assert running.state is JobState.PREPARING  # whoever tells has to do so again
        assert states(store) == [("a.mp4", "preparing")]

    def test_what_is_refused_is_skipped_until_it_changes(self, store: JobStore) -> None:
        (refused,) = store.arrive([arrival(refused="a.mp4: is a folder")])
        assert (refused.state, refused.reason) == (JobState.SKIPPED, "a.mp4: is a folder")
        (queued,) = store.arrive([arrival(seen="2")])
        assert (queued.id, queued.state, queued.reason) == (refused.id, JobState.QUEUED, "")

    def test_a_prompt_that_is_tidied_up_after_all_is_done_starts_nothing(
        self, store: JobStore
    ) -> None:
        (first,) = store.arrive([arrival()])
        store.end(first.id, JobState.DONE)
        assert store.arrive([arrival(seen="2", prompt_file=None)]) == []
        assert states(store) == [("a.mp4", "done")]

    def test_gone_and_back(self, store: JobStore) -> None:
        (first,) = store.arrive([arrival()])
        (gone,) = store.gone([first.clip])
        assert (gone.state, gone.reason) == (JobState.CANCELLED, GONE)
        assert first.clip not in store.known()
        (back,) = store.arrive([arrival()])
        assert back.state is JobState.QUEUED

    def test_gone_while_running_changes_nothing(self, store: JobStore) -> None:
        (first,) = store.arrive([arrival()])
        store.claim()
        assert store.gone([first.clip]) == []

    def test_what_was_cancelled_stays_so_until_it_changes(self, store: JobStore) -> None:
        (first,) = store.arrive([arrival()])
        store.cancel(first.id)
        assert store.arrive([arrival()]) == []
        (second,) = store.arrive([arrival(seen="2")])
        assert second.state is JobState.QUEUED

    def test_again_queues_whatever_has_ended(self, store: JobStore) -> None:
        store.arrive([arrival(), arrival("b.mp4")])
        for state in (JobState.DONE, JobState.FAILED):
            claimed = store.claim()
            assert claimed is not None
            store.end(claimed.id, state, "reason")
        again = store.arrive([arrival(), arrival("b.mp4")], again=True)
        assert [job.state for job in again] == [JobState.QUEUED] * 2
        assert [job.attempts for job in again] == [0, 0]
        assert len(store.jobs()) == 2

    @pytest.mark.parametrize(
        "name", ["Straße 雪.mp4", "a\nb.mp4", "-rf.mp4", "'; DROP TABLE jobs; --.mp4", "\udcff.mp4"]
    )
    def test_names_are_bytes(self, store: JobStore, name: str) -> None:
        (record,) = store.arrive([arrival(name)])
        assert store.get(record.id).clip == Path("/inbox") / name
        assert list(store.known()) == [Path("/inbox") / name]


class TestNames:
    def test_of_two_clips_with_one_stem_the_second_has_its_whole_name(
        self, store: JobStore
    ) -> None:
        records = store.arrive(
            [arrival("a.mp4"), arrival("a.avi"), arrival("sub/a.avi"), arrival("sub/a.mp4")]
        )
        assert [record.name for record in records] == ["a", "a.avi", "a.avi.2", "a.mp4"]

    def test_a_name_is_kept_for_life(self, store: JobStore) -> None:
        store.arrive([arrival("a.mp4"), arrival("a.avi")])
        for _ in range(2):
            claimed = store.claim()
            assert claimed is not None
            store.end(claimed.id, JobState.DONE)
        (again,) = store.arrive([arrival("a.avi", seen="2")])
        assert again.name == "a.avi"

    def test_what_is_cancelled_leaves_its_name_to_others(self, store: JobStore) -> None:
        (first,) = store.arrive([arrival("a.mp4")])
        store.cancel(first.id)
        (second,) = store.arrive([arrival("a.avi")])
        assert second.name == "a"
        assert store.retry(first.id).name == "a.mp4"

    def test_a_name_that_is_given_is_taken(self, store: JobStore) -> None:
        (record,) = store.arrive([arrival(name="b.mp4"), arrival("c.mp4")])[:1]
        assert record.name == "b"
        (given,) = store.arrive([Arrival(Path("/x/d.mp4"), Path("/x/d.txt"), None, "1", name="e")])
        assert given.name == "e"


class TestClaim:
    def test_priority_then_length_then_arrival(self, store: JobStore) -> None:
        store.arrive(
            [
                arrival("first.mp4"),
                arrival("second.mp4"),
                arrival("long.mp4", length=9),
                arrival("urgent.mp4", priority=5),
            ]
        )
        order = []
        while claimed := store.claim():
            order.append(claimed.name)
        assert order == ["urgent", "long", "first", "second"]

    def test_counts_the_attempt_and_prepares(self, store: JobStore) -> None:
        store.arrive([arrival()])
        claimed = store.claim()
        assert claimed is not None
        assert (claimed.state, claimed.attempts) == (JobState.PREPARING, 1)
        assert claimed.claimed is not None
        assert claimed.job().attempts == 1

    def test_some_are_left_out(self, store: JobStore) -> None:
        first, second = store.arrive([arrival("a.mp4"), arrival("b.mp4")])
        assert store.claim([first.id]) == store.get(second.id)
        assert store.claim([first.id, second.id]) is None

    def test_two_jobs_of_one_folder_are_not_made_at_once(self, store: JobStore) -> None:
        for clip in ("/x/a.mp4", "/y/a.mp4"):
            store.arrive([Arrival(Path(clip), Path("/x/a.txt"), None, "1", name="a")])
        first = store.claim()
        assert first is not None
        assert store.claim() is None
        store.end(first.id, JobState.DONE)
        assert store.claim() is not None

    def test_many_threads_claim_every_job_once(self, store: JobStore) -> None:
        store.arrive(arrival(f"{i}.mp4") for i in range(100))
        claimed: list[int] = []

        def claim() -> None:
            while record := store.claim():
                claimed.append(record.id)

        threads = [threading.Thread(target=claim) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(claimed) == sorted(set(claimed))
        assert len(claimed) == 100


class TestAttempts:
    def claim(self, store: JobStore) -> int:
        claimed = store.claim()
        assert claimed is not None
        return claimed.id

    def test_release_gives_it_back(self, store: JobStore) -> None:
        store.arrive([arrival()])
        for _ in range(10):
            number = self.claim(store)
            assert store.release(number, "no space").attempts == 0
        assert store.get(number).reason == "no space"

    def test_recover_charges_what_had_a_device(self, store: JobStore) -> None:
        store.arrive([arrival()])
        for attempts in (1, 2):
            number = self.claim(store)
            store.set_state(number, JobState.TRANSLATING)
            (record,) = store.recover(3)
            assert (record.state, record.attempts) == (JobState.QUEUED, attempts)
        number = self.claim(store)
        store.set_state(number, JobState.TRANSLATING)
        (record,) = store.recover(3)
        assert record.state is JobState.FAILED
        assert "frescod died 3 times" in record.reason
        assert store.retry(number).attempts == 0

    def test_recover_does_not_charge_what_had_none(self, store: JobStore) -> None:
        store.arrive([arrival()])
        for _ in range(5):
            self.claim(store)
            (record,) = store.recover(3)
            assert (record.state, record.attempts) == (JobState.QUEUED, 0)

    def test_a_finished_window_makes_them_worth_it(self, store: JobStore) -> None:
        store.arrive([arrival()])
        for done in range(1, 7):
            number = self.claim(store)
            store.set_state(number, JobState.TRANSLATING)
            store.window_done(number, done, 9)
            (record,) = store.recover(3)
            assert (record.state, record.windows_done) == (JobState.QUEUED, done)

    def test_windows_that_end_together_are_told_in_any_order(self, store: JobStore) -> None:
        store.arrive([arrival()])
        number = self.claim(store)
        store.window_done(number, 2, 2)
        store.window_done(number, 1, 2)
        assert store.get(number).windows_done == 2
        store.release(number)
        self.claim(store)  # counted anew
        assert store.get(number).windows_done == 0

    def test_a_worker_that_dies_is_charged(self, store: JobStore) -> None:
        store.arrive([arrival()])
        assert store.charge(self.claim(store)) == 2


class TestRecover:
    def test_a_result_that_is_there_is_done(self, store: JobStore) -> None:
        store.arrive([arrival()])
        claimed = store.claim()
        assert claimed is not None
        store.set_prints(claimed.id, PRINTS)
        store.set_state(claimed.id, JobState.PUBLISHING)
        asked = []

        def is_done(name: str, prints: Fingerprints) -> bool:
            asked.append((name, prints))
            return True

        (record,) = store.recover(1, is_done)
        assert record.state is JobState.DONE
        assert asked == [("a", PRINTS)]

    def test_what_waited_waits(self, store: JobStore) -> None:
        store.arrive([arrival(), arrival("b.mp4", prompt_file=None)])
        assert store.recover(3) == []
        assert states(store) == [("a.mp4", "queued"), ("b.mp4", "waiting_prompt")]

    def test_release_all(self, store: JobStore) -> None:
        store.arrive([arrival(), arrival("b.mp4")])
        store.claim()
        (record,) = store.release_all()
        assert (record.name, record.attempts) == ("a", 0)


class TestCommands:
    def test_only_what_failed_or_was_cancelled_is_tried_again(self, store: JobStore) -> None:
        (record,) = store.arrive([arrival()])
        with pytest.raises(FrescodError, match="job 1 is queued"):
            store.retry(record.id)
        store.claim()
        store.end(record.id, JobState.FAILED, "why")
        assert store.retry(record.id).state is JobState.QUEUED
        with pytest.raises(KeyError):
            store.retry(99)

    def test_not_where_the_clip_has_a_later_job(self, store: JobStore) -> None:
        (first,) = store.arrive([arrival()])
        store.end(first.id, JobState.FAILED, "why")
        store.arrive([arrival(seen="2")])
        with pytest.raises(FrescodError, match="its clip has job 2 now"):
            store.retry(first.id)

    def test_only_what_waits_is_cancelled(self, store: JobStore) -> None:
        (record,) = store.arrive([arrival()])
        assert store.cancel(record.id).state is JobState.CANCELLED
        with pytest.raises(FrescodError, match="job 1 is cancelled"):
            store.cancel(record.id)
        with pytest.raises(KeyError):
            store.cancel(99)


class TestTelling:
    def test_counts_jobs_and_failures(self, store: JobStore) -> None:
        store.arrive([arrival(f"{name}.mp4") for name in "abc"])
        store.claim()
        store.end(1, JobState.FAILED, "why", seconds=2.0)
        assert store.counts()[JobState.QUEUED] == 2
        assert store.counts()[JobState.DONE] == 0
        assert [job.name for job in store.jobs(limit=2)] == ["c", "b"]
        assert [job.name for job in store.jobs(JobState.FAILED)] == ["a"]
        (failure,) = store.failures()
        assert (failure.reason, failure.seconds) == ("why", 2.0)
        assert failure.to_json()["clip"] == "/inbox/a.mp4"

    def test_failed_are_clips_whose_last_job_did(self, store: JobStore) -> None:
        store.arrive([arrival(f"{name}.mp4") for name in "abc"])
        for number in (1, 2):
            store.claim()
            store.end(number, JobState.FAILED, "why")
        store.arrive([arrival("b.mp4", seen="2")])
        assert [(job.name, job.reason) for job in store.failed()] == [("a", "why")]

    @pytest.mark.parametrize(
        ("name", "clips"),
        [
            ("a.mp4", ["/x/a.mp4", "/inbox/a.mp4"]),
            ("a", ["/x/a.mp4", "/inbox/a.MOV", "/inbox/a.mp4"]),
            ("/inbox/a.mp4", ["/inbox/a.mp4"]),
            ("aa", ["/inbox/aa.mp4"]),
            ("a.b", ["/inbox/a.b.mkv"]),
            ("é", ["/inbox/é.mp4"]),
            ("c", ["c.mp4"]),
            (r"\x7f\n", ["/inbox/\x7f\n.mp4"]),
            (r"a\udcff.mp4", ["/inbox/a\udcff.mp4"]),
            (r"d\n", ["/inbox/d\n.mp4", r"/inbox/d\n.mp4"]),
            ("mp4", []),
            (".mp4", []),
            ("", []),
            ("%", []),
            ("A", []),
            ("inbox", []),
            ("\ud800", []),
            ("\0", []),
        ],
    )
    def test_of_clips_that_a_name_may_mean(
        self, store: JobStore, name: str, clips: list[str]
    ) -> None:
        names = ["a.mp4", "a.MOV", "aa.mp4", "a.b.mkv", "é.mp4", "\x7f\n.mp4", "a\udcff.mp4"]
        names += [r"d\n.mp4", "d\n.mp4", "/x/a.mp4"]
        store.arrive(map(arrival, names))
        store.arrive([Arrival(Path("c.mp4"), None, None, "1")])
        assert [str(job.clip) for job in store.jobs(clip=name)] == clips

    def test_page_by_page(self, store: JobStore) -> None:
        store.arrive(arrival(f"{name}.mp4") for name in "abcde")
        store.end(4, JobState.DONE)
        assert [job.id for job in store.jobs(limit=2)] == [5, 4]
        assert [job.id for job in store.jobs(limit=2, before=4)] == [3, 2]
        assert [job.id for job in store.jobs(JobState.QUEUED, 2, before=5)] == [3, 2]
        assert [job.id for job in store.jobs(JobState.DONE, clip="a")] == []
        assert store.jobs(before=1) == []

    def test_read_while_nobody_has_it_open(self, tmp_path: Path) -> None:
        store = JobStore(tmp_path / "jobs.sqlite")
        store.arrive([arrival()])
        store.close()
        path = tmp_path / "jobs.sqlite"
        found, jobs = read_store(path, lambda db: (counts(db), newest(db)))
        assert found[JobState.QUEUED] == 1
        assert [job.name for job in jobs] == ["a"]

    def test_none_to_read(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="no job store can be read"):
            read_store(tmp_path / "jobs.sqlite", newest)
        assert list(tmp_path.iterdir()) == []


class TestFile:
    def test_reopened_it_has_what_it_had(self, tmp_path: Path) -> None:
        for expected in ([], [("a.mp4", "queued")]):
            store = JobStore(tmp_path / "jobs.sqlite")
            assert states(store) == expected
            store.arrive([arrival()])
            store.close()

    def test_durable(self, store: JobStore) -> None:
        assert store._db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
        assert store._db.execute("PRAGMA synchronous").fetchone()[0] == 2

    def test_of_a_later_version(self, tmp_path: Path) -> None:
        path = tmp_path / "jobs.sqlite"
        JobStore(path).close()
        with sqlite3.connect(path) as db:
            db.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
        db.close()
        with pytest.raises(ConfigError, match="made by a later version"):
            JobStore(path)

    def test_damaged(self, tmp_path: Path) -> None:
        path = tmp_path / "jobs.sqlite"
        path.write_bytes(b"no database" * 1000)
        with pytest.raises(ConfigError, match=r"jobs\.sqlite: the job store cannot be opened"):
            JobStore(path)

    def test_half_a_migration_is_none(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "jobs.sqlite"
        broken = (*MIGRATIONS, "CREATE TABLE more (a); INSERT INTO nowhere VALUES (1)")
        JobStore(path).close()
        monkeypatch.setattr("daemon.job_schema.MIGRATIONS", broken)
        with pytest.raises(ConfigError):
            JobStore(path)
        monkeypatch.setattr("daemon.job_schema.MIGRATIONS", (*MIGRATIONS, "CREATE TABLE more (a)"))
        JobStore(path).close()

    def test_of_the_first_version(self, tmp_path: Path) -> None:
        """It can be read as it is, and is brought up to date when it is opened."""
        path = tmp_path / "jobs.sqlite"
        with closing(sqlite3.connect(path)) as db:
            db.executescript(f"{MIGRATIONS[0]}; PRAGMA user_version = 1")
            values = [os.fsencode(f"/inbox/a{suffix}") for suffix in (".mp4", ".txt")]
            db.execute(
                "INSERT INTO jobs (clip, prompt_file, seen, name, state, created) "
                "VALUES (?, ?, '1', x'61', 'queued', 0)",
                values,
            )
            db.commit()
        (before,) = read_store(path, newest)
        with closing(JobStore(path)) as store:
            (after,) = store.jobs()
            assert before == after
            assert after.control_files == ()
            assert store.arrive([arrival()]) == []
            (changed,) = store.arrive([arrival(seen="2", control_files=CONTROLS)])
            assert (changed.id, changed.control_files) == (after.id, CONTROLS)

    def test_a_full_disk_changes_nothing(self, tmp_path: Path) -> None:
        store = JobStore(tmp_path / "jobs.sqlite")
        store.arrive([arrival()])
        store._db.execute("PRAGMA max_page_count = 1")
        with pytest.raises(StoreError, match="free some space"):
            store.arrive(arrival(f"{i}.mp4") for i in range(500))
        assert states(store) == [("a.mp4", "queued")]
        store._db.execute("PRAGMA max_page_count = 100000")
        store.arrive(arrival(f"{i}.mp4") for i in range(500))
        assert store.counts()[JobState.QUEUED] == 501
        store.close()


class TestAfterTheEnd:
    """What comes late about a job that runs no more changes nothing."""

    def test_state_and_prints(self, store: JobStore) -> None:
        (record,) = store.arrive([arrival()])
        store.claim()
        store.release(record.id)
        store.set_state(record.id, JobState.TRANSLATING)
        store.set_prints(record.id, PRINTS)
        assert store.get(record.id).state is JobState.QUEUED
        store.claim()
        assert store.recover(3, lambda name, prints: True)[0].state is JobState.QUEUED

    def test_prints_are_those_of_this_attempt(self, store: JobStore) -> None:
        (record,) = store.arrive([arrival()])
        store.claim()
        store.set_prints(record.id, PRINTS)
        store.release(record.id)
        store.claim()
        assert store.recover(3, lambda name, prints: True)[0].state is JobState.QUEUED


def test_any_name_can_be_in_a_reason(store: JobStore) -> None:
    (record,) = store.arrive([arrival("\udcff.mp4")])
    store.claim()
    store.release(record.id, "no space for \udcff.mp4")
    store.claim()
    store.end(record.id, JobState.FAILED, "\udcff.mp4: no decoder can read it")
    assert store.get(record.id).reason == "\\udcff.mp4: no decoder can read it"


def test_only_some_and_not_others(store: JobStore) -> None:
    a, b, c = store.arrive([arrival(f"{name}.mp4") for name in "abc"])
    claimed = store.claim(but=[a.id], only=[a.id, c.id])
    assert claimed is not None
    assert claimed.id == c.id
    assert store.claim(only=[c.id]) is None
    assert store.is_empty([c.id])
    assert not store.is_empty([b.id])
    assert not store.is_empty()
