import io
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console, RenderableType
from rich.text import Text

from daemon.jobs import JobState
from daemon.status_view import (
    DOWN,
    job_view,
    jobs_view,
    make_console,
    span,
    status_view,
    watch,
)
from tests.daemon.control_rig import record, status


def lines(view: RenderableType, width: int = 80, colours: bool = False) -> list[str]:
    file = io.StringIO()
    system: Any = "standard" if colours else None
    Console(file=file, width=width, force_terminal=colours, color_system=system).print(view)
    return [line.rstrip() for line in file.getvalue().splitlines()]


def line_of(shown: list[str], start: str) -> str:
    (found,) = (line for line in shown if line.startswith(start))
    return found


def squeezed(line: str) -> str:
    return " ".join(line.split())


class TestStatus:
    def test_at_a_glance(self) -> None:
        shown = lines(status_view(status()))
        assert max(map(len, shown)) <= 80
        assert shown[0].startswith("frescod serving")
        assert "up 2 h 3 min" in shown[0]
        assert shown[1] == "problem: /srv/output: the disk is full: free some space"
        device = "cuda:0 working 12 crossing.mp4 translate 3/14 97% 13.0 GiB"
        assert squeezed(line_of(shown, "cuda:0  ")) == device
        assert squeezed(line_of(shown, "cuda:1")) == "cuda:1 idle waits 12 s for windows 4%"
        assert line_of(shown, "cuda:2 lost:") == "cuda:2 lost: 5 restarts in 60 s"
        assert line_of(shown, "in use: ") == (
            "in use: readers 2/4, pool 3/30 (5 waiting), cores 30/32, memory 1.0/4.0 GiB"
        )
        assert line_of(shown, "frames propagated: ") == (
            "frames propagated: 120 by cpu (1.3 s each), 300 by gpu (0.04 s each)"
        )
        assert line_of(shown, "jobs: ") == "jobs: 120 queued, 40 done, 2 failed; 2 h 5 min left"
        running = "12 crossing.mp4 translating 4/14 2/14 1/? 4 min"
        assert squeezed(line_of(shown, " 12  crossing")) == running
        assert "  readers for memory since 31 s, next.mp4" in shown
        assert "  9 bad.mp4: no video stream" in shown

    def test_problems_are_red(self) -> None:
        shown = lines(status_view(status()), colours=True)
        assert "\x1b[1;31mproblem: " in shown[1]

    def test_a_long_name_is_cut_and_nothing_else(self) -> None:
        values = status()
        values["devices"][0]["clip"] = values["running"][0]["clip"] = "a long name " * 30 + ".mp4"
        shown = lines(status_view(values))
        assert len(shown) == len(lines(status_view(status())))
        assert line_of(shown, "cuda:0").endswith("translate    3/14   97%  13.0 GiB")
        assert "…" in line_of(shown, "cuda:0")

    def test_names_that_would_do_things_to_a_terminal(self) -> None:
        values = status(problems=["\x1b[2J[red]x"])
        values["devices"][0]["clip"] = values["failures"][0]["reason"] = "\x1b]0;x\x07\n[bold]"
        shown = "\n".join(lines(status_view(values)))
        assert "\x1b" not in shown
        assert "\x07" not in shown
        assert "problem: \\x1b[2J[red]x" in shown

    def test_a_daemon_that_is_down(self) -> None:
        values = {"state": "down", "store": "/x/jobs.sqlite", "jobs": {"done": 3}, "failures": []}
        assert lines(status_view(values)) == [f"{DOWN}: /x/jobs.sqlite", "", "jobs: 3 done"]

    def test_what_a_later_version_leaves_out_is_left_out(self) -> None:
        assert lines(status_view({"state": "new"}))[0].startswith("frescod new  version ?")


def test_jobs() -> None:
    records = [
        record(12, "a.mp4", state=JobState.WAITING_PROMPT),
        record(3, "b.mp4", state=JobState.FAILED, attempts=3, reason="bad " * 40),
    ]
    shown = lines(jobs_view([each.to_json() for each in records]))
    assert max(map(len, shown)) <= 80
    assert squeezed(shown[1]) == "12 a.mp4 waiting for prompt"
    assert " ".join(shown[2:]).count("bad") == 40  # reasons are never cut


def test_job() -> None:
    job = record(3, "b.mp4", state=JobState.FAILED, reason="why", windows_done=2, windows=9)
    job = replace(job, propagated={"cpu": 40, "gpu": 9})
    shown = [line.split(maxsplit=1) for line in lines(job_view(job.to_json()))]
    assert ["clip", "/inbox/b.mp4"] in shown
    assert ["windows", "2 of 9 done"] in shown
    assert ["reason", "why"] in shown
    assert ["propagated", "40 frames by cpu, 9 frames by gpu"] in shown
    assert not any(title == "ended" for title, _ in shown)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (59.9, "1 min"),
        (3599, "59 min"),
        (7380, "2 h 3 min"),
        (100_800, "1 d 4 h"),
    ],
)
def test_span(seconds: float, text: str) -> None:
    assert span(seconds) == text


class TestWatch:
    def test_again_and_again_until_interrupted(self, capsys: pytest.CaptureFixture[str]) -> None:
        views = iter([Text("first"), Text("second")])

        def fetch() -> RenderableType:
            try:
                return next(views)
            except StopIteration:
                raise KeyboardInterrupt from None

        watch(fetch, make_console(), seconds=0)
        assert capsys.readouterr().out.split() == ["first", "second"]

    def test_a_pipe_gets_no_colours_and_nothing_is_cut(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        name = "x" * 300
        make_console().print(status_view(status(problems=[name])))
        out = capsys.readouterr().out
        assert f"problem: {name}\n" in out
        assert "\x1b" not in out
