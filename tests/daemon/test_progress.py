import io
import re
import sys
import time
from pathlib import Path

import pytest
import structlog
from rich.console import Console

from daemon.jobs import Job, JobResult, Outcome
from daemon.progress import MAX_LINES, BarProgress, LogProgress, Progress, duration, summary, watch
from tests.daemon.logbook import Log

JOB = Job(Path("in/odd [red]\n\udcff.mp4"), Path("in/odd.txt"), "odd", id=7)
OTHER = Job(Path("in/other.mp4"), Path("in/other.txt"), "other")


def play(progress: Progress, outcome: Outcome = Outcome.DONE, reason: str = "") -> None:
    with progress:
        progress.note("loading models")
        progress.begin(JOB, 2, 3)
        progress.begin(OTHER, 3, 3)
        progress.warn("a warning")
        progress.stage(JOB, "prepare", 5, None, 0.0)
        progress.stage(JOB, "translate", 1, 2, 1.0)
        progress.stage(OTHER, "prepare", 9, 9, 1.5)
        progress.stage(JOB, "translate", 2, 2, 2.5)
        progress.stage(JOB, "translate", 2, 2, 2.6)
        progress.stage(JOB, "publish", 1, 1, 0.5)
        progress.end(JOB, JobResult(JOB.clip, outcome, 4.0, reason))
        progress.stage(JOB, "propagate", 1, 1, 0.5)


class TestLog:
    def test_one_record_a_stage(self, log: Log) -> None:
        play(LogProgress())
        records = log.records()
        assert [(record["action"], record["event"]) for record in records] == [
            ("note", "loading models"),
            ("job.begun", "begun"),
            ("job.begun", "begun"),
            ("warning", "a warning"),
            ("stage.done", "prepare done"),
            ("stage.done", "translate done"),
            ("stage.done", "publish done"),
            ("job.done", "done"),
        ]
        assert [record.get("clip", "")[:5] for record in records] == [
            *("", "odd [", "other", "", "other", "odd [", "odd [", "odd ["),
        ]
        assert records[5].items() >= {"stage": "translate", "count": 2, "seconds": 2.5}.items()
        assert records[1].items() >= {"number": 2, "count": 3, "job": 7}.items()
        assert "job" not in records[2]

    def test_failure_gives_the_reason_in_one_line(self, log: Log) -> None:
        play(LogProgress(), Outcome.FAILED, "it\nbroke")
        last = log.records()[-1]
        assert (last["level"], last["action"]) == ("error", "job.failed")
        assert last["reason"] == "it\\nbroke"

    @pytest.mark.parametrize("outcome", Outcome)
    def test_every_outcome_is_an_action(self, log: Log, outcome: Outcome) -> None:
        play(LogProgress(), outcome)
        assert log.records()[-1]["action"].startswith("job.")

    def test_a_traceback_keeps_its_lines(self, log: Log) -> None:
        LogProgress().trace("Traceback:\n  one \x1b[31m\n  two")
        (record,) = log.records()
        assert record["action"] == "trace"
        assert record["stack"] == "Traceback:\n  one \\x1b[31m\n  two"

    def test_in_an_endless_queue_there_is_no_count(self, log: Log) -> None:
        LogProgress().begin(JOB, 2, 0)
        (record,) = log.records()
        assert {"count", "number"}.isdisjoint(record)


def shown(progress: BarProgress, width: int = 120) -> list[str]:
    """The lines below the finished clips."""
    console = Console(file=io.StringIO(), width=width)
    console.print(progress.lines())
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text.rstrip("\n").splitlines()


class TestBars:
    def test_a_line_for_every_clip_in_work(self) -> None:
        now = [0.0]
        progress = BarProgress(clock=lambda: now[0])
        names = ("waiting", "planned", "ahead", "translated", "spread", "published")
        jobs = [Job(Path(f"{name}.mp4"), Path("p.txt"), name) for name in names]
        for number, job in enumerate(jobs, 1):
            progress.begin(job, number, 30)
        progress.stage(jobs[1], "prepare", 5, None, 0.0)
        for job in jobs[2:]:
            progress.stage(job, "prepare", 50, 200, 0.0)
        for job, windows in zip(jobs[3:], (1.5, 4, 4), strict=True):
            progress.stage(job, "translate", 0, 4, 0.0)
            progress.stage(job, "translate", windows, 4, 0.0)
        progress.stage(jobs[4], "propagate", 50, 200, 0.0)
        progress.stage(jobs[5], "propagate", 200, 200, 0.0)
        now[0] = 100.0
        lines = [re.sub("[\u2501\u2578\u257a ]+", " ", line).strip() for line in shown(progress)]
        assert lines == [
            "clip stage frames windows left",
            "[4/30] translated.mp4 translate, propagate 0/200 1/4 0:07:13",
            "[5/30] spread.mp4 propagate 50/200 4/4 0:01:00",
            "[6/30] published.mp4 publish 200/200 4/4 0:00:00",
            "[1/30] waiting.mp4 waiting 0 read",
            "[2/30] planned.mp4 prepare 5 read",
            "[3/30] ahead.mp4 prepared 0/200",
        ]

    def test_what_an_earlier_run_did_is_no_speed(self) -> None:
        now = [0.0]
        progress = BarProgress(clock=lambda: now[0])
        progress.begin(OTHER, 1, 1)
        progress.stage(OTHER, "propagate", 90, 100, 0.0)
        progress.stage(OTHER, "translate", 9, 10, 0.0)
        assert "0:0" not in shown(progress)[1]
        progress.stage(OTHER, "translate", 10, 10, 0.0)
        now[0] = 60.0
        assert "0:01:00" in shown(progress)[1]

    def test_many_clips_are_counted(self) -> None:
        progress = BarProgress()
        for number in range(MAX_LINES + 5):
            progress.begin(Job(Path(f"{number}.mp4"), Path("p.txt"), str(number)), number, 99)
        lines = shown(progress)
        assert len(lines) == 1 + MAX_LINES + 1
        assert lines[-1].strip() == "+ 5 more"

    @pytest.mark.parametrize("width", [60, 80, 200])
    def test_long_names_take_no_second_line(self, width: int) -> None:
        progress = BarProgress()
        progress.begin(Job(Path("long" * 60 + ".mp4"), Path("p.txt"), "long"), 1, 1)
        lines = shown(progress, width)
        assert len(lines) == 2
        assert all(len(line) <= width for line in lines)

    def test_drawing_is_cheap(self) -> None:
        progress = BarProgress()
        for number in range(40):
            job = Job(Path(f"{number}.mp4"), Path("p.txt"), str(number))
            progress.begin(job, number, 99)
            progress.stage(job, "translate", 1, 4, 0.0)
        rounds = []
        for _ in range(5):
            begin = time.thread_time()
            shown(progress)
            rounds.append(time.thread_time() - begin)
        assert min(rounds) < 0.05

    def test_on_a_terminal(self) -> None:
        console = Console(file=io.StringIO(), force_terminal=True, width=100)
        progress = BarProgress(console)
        with progress:
            progress.begin(JOB, 2, 3)
            progress.stage(JOB, "translate", 1, 4, 1.0)
            progress._live.refresh()
        shown = console.file.getvalue()  # type: ignore[attr-defined]
        assert "[2/3] odd [red]\\n\\udcff.mp4" in shown
        assert "1/4" in shown

    @pytest.mark.parametrize(
        ("outcome", "text"),
        [
            (Outcome.DONE, "done in 4.0 s"),
            (Outcome.ALREADY_DONE, "already done"),
            (Outcome.FAILED, "failed: because"),
        ],
    )
    def test_finished_clip(self, outcome: Outcome, text: str) -> None:
        console = Console(file=io.StringIO(), force_terminal=True, width=100)
        play(BarProgress(console), outcome, "because")
        shown = console.file.getvalue()  # type: ignore[attr-defined]
        assert f"[2/3] odd [red]\\n\\udcff.mp4: {text}" in shown


class TestWatch:
    def test_without_a_terminal_there_are_json_lines(self, log: Log) -> None:
        progress = watch()
        assert isinstance(progress, LogProgress)
        progress.note("loading models")
        assert log.records()[-1]["event"] == "loading models"

    def test_text_where_it_is_asked_for(self, log: Log, capsys: pytest.CaptureFixture[str]) -> None:
        watch("text").note("loading models")
        assert "] loading models " in capsys.readouterr().err

    def test_on_a_terminal_there_are_lines_that_move_and_warnings(
        self, log: Log, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
        assert isinstance(watch(), BarProgress)
        structlog.get_logger().info("not this")
        structlog.get_logger().warning("but this")
        text = capsys.readouterr().err
        assert "not this" not in text
        assert "but this" in text


def test_summary() -> None:
    results = [
        JobResult(Path("a.mp4"), Outcome.DONE),
        JobResult(Path("b.mp4"), Outcome.ALREADY_DONE),
        JobResult(Path("c\n.mp4"), Outcome.FAILED, reason="it broke"),
        JobResult(Path("d.mp4"), Outcome.NO_PROMPT, reason="no d.txt in prompts"),
    ]
    assert summary(results, 75, Path("out")).splitlines() == [
        "1 done; 1 skipped, already done; 1 skipped, no prompt; 1 failed in 1 min 15 s",
        "  failed: c\\n.mp4: it broke",
        "  no prompt: d.mp4: no d.txt in prompts",
        "results in out",
    ]


def test_summary_with_more_to_say() -> None:
    results = [JobResult(Path("a.mp4"), Outcome.DONE)]
    assert summary(results, 1, Path("out"), ["GPUs waited"]).splitlines() == [
        "1 done in 1.0 s",
        "  GPUs waited",
        "results in out",
    ]


def test_summary_of_nothing() -> None:
    assert summary([], 0, Path("out")) == "0 done in 0.0 s"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0 s"), (4.24, "4.2 s"), (59.96, "60.0 s"), (60, "1 min 0 s"), (7322, "2 h 2 min")],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text
