import io
from pathlib import Path

import pytest
from rich.console import Console

from daemon.jobs import Job, JobResult, Outcome
from daemon.progress import BarProgress, LogProgress, Progress, duration, summary, watch

JOB = Job(Path("in/odd [red]\n\udcff.mp4"), Path("in/odd.txt"), "odd")


def play(progress: Progress, outcome: Outcome = Outcome.DONE, reason: str = "") -> None:
    with progress:
        progress.note("loading models")
        progress.begin(JOB, 2, 3)
        progress.warn("a warning")
        progress.stage("prepare", 5, None, 0.0)
        progress.stage("translate", 1, 2, 1.0)
        progress.stage("translate", 2, 2, 2.5)
        progress.stage("publish", 1, 1, 0.5)
        progress.end(JobResult(JOB.clip, outcome, 4.0, reason))


class TestLog:
    def test_one_line_a_stage(self, capsys: pytest.CaptureFixture[str]) -> None:
        play(LogProgress())
        lines = capsys.readouterr().err.splitlines()
        assert all("level=" in line and "timestamp=" in line for line in lines)
        events = [line.split("event=")[1].split(" clip=")[0] for line in lines]
        assert events == [
            '"loading models"',
            "begin",
            'warning text="a warning"',
            "translate",
            "publish",
            "done",
        ]
        assert "seconds=2.5" in lines[3]
        assert "number=2 count=3" in lines[1]

    def test_failure_gives_the_reason_in_one_line(self, capsys: pytest.CaptureFixture[str]) -> None:
        play(LogProgress(), Outcome.FAILED, "it\nbroke")
        last = capsys.readouterr().err.splitlines()[-1]
        assert "level=error" in last
        assert "it\\nbroke" in last or "it\\\\nbroke" in last


class TestBars:
    def test_shows_clip_stages_and_time_left(self) -> None:
        console = Console(file=io.StringIO(), force_terminal=True, width=100)
        progress = BarProgress(console)
        with progress:
            progress.begin(JOB, 2, 3)
            progress.stage("translate", 1, 4, 1.0)
            progress._bars.refresh()
        shown = console.file.getvalue()  # type: ignore[attr-defined]
        assert "[2/3] odd [red]\\n\\udcff.mp4" in shown
        assert "translate" in shown
        assert "1/4" in shown
        assert "left" in shown

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
        assert text in console.file.getvalue()  # type: ignore[attr-defined]


def test_without_a_terminal_there_are_log_lines(capsys: pytest.CaptureFixture[str]) -> None:
    assert isinstance(watch(), LogProgress)


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


def test_summary_of_nothing() -> None:
    assert summary([], 0, Path("out")) == "0 done in 0.0 s"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0 s"), (4.24, "4.2 s"), (59.96, "60.0 s"), (60, "1 min 0 s"), (7322, "2 h 2 min")],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text
