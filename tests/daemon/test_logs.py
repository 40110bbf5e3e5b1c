import asyncio
import json
import logging
import re
import subprocess
import sys
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import structlog

from daemon.actions import Action
from daemon.log_sink import LogSink
from daemon.logs import about, configure, worker_record
from tests.conftest import ROOT
from tests.daemon.logbook import Log


@dataclass(frozen=True)
class Record:
    """What a worker sends."""

    level: str
    event: str
    fields: dict[str, Any] = field(default_factory=dict)


class TestRecords:
    def test_what_each_of_them_has(self, log: Log) -> None:
        structlog.get_logger().info("claimed", action=Action.JOB_CLAIMED, attempts=2)
        (record,) = log.records()
        assert list(record) == ["timestamp", "level", "action", "event", "attempts"]
        assert record["action"] == "job.claimed"
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", record["timestamp"])

    def test_one_without_an_action_is_a_note(self, log: Log) -> None:
        structlog.get_logger().info("something")
        assert log.records()[0]["action"] == "note"

    def test_no_name_can_forge_a_line_or_reach_the_terminal(self, log: Log) -> None:
        evil = 'a\n{"level": "error"}\x1b[31m\x9b\u2028\udcff".mp4'
        structlog.get_logger().info(evil, clip=evil, **{evil: [Path(evil), {evil: evil}]})
        (record,) = log.records()
        assert all(text.isprintable() for text in re.findall(r'"[^"]*"', json.dumps(record)))
        assert record["clip"] == 'a\\n{"level": "error"}\\x1b[31m\\x9b\\u2028\\udcff".mp4'

    def test_values_that_json_has_not(self, log: Log) -> None:
        structlog.get_logger().info("odd", a=float("nan"), b={1, 2}, c=object, d=None, e=b"\xff")
        (record,) = log.records()
        assert record["a"] == "nan"
        assert record["b"] == [1, 2]
        assert record["d"] is None
        assert "object" in record["c"]

    def test_a_traceback_is_one_field(self, log: Log) -> None:
        try:
            raise ValueError("no")
        except ValueError:
            structlog.get_logger().exception("it broke")
        (record,) = log.records()
        assert record["exception"].startswith("Traceback")
        assert record["exception"].endswith("ValueError: no")

    def test_what_was_lost_is_told_by_the_next(
        self, log: Log, capsys: pytest.CaptureFixture[str]
    ) -> None:
        sink = LogSink()
        configure("json", "info", sink)
        sink.lost = 3
        structlog.get_logger().info("a")
        structlog.get_logger().info("b")
        first, second = log.records()
        assert first["lost"] == 3
        assert "lost" not in second

    @pytest.mark.parametrize(
        ("level", "events"), [("debug", "dhwe"), ("info", "hwe"), ("warning", "we"), ("error", "e")]
    )
    def test_what_is_less_is_left_out(self, log: Log, level: str, events: str) -> None:
        configure("json", level)
        for each in (structlog.get_logger(), logging.getLogger("library")):
            each.debug("d")
            each.info("h")
            each.warning("w")
            each.error("e")
        assert [record["event"] for record in log.records()] == list(events) * 2


class TestText:
    def test_colours_only_on_a_terminal(
        self, log: Log, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("NO_COLOR", raising=False)
        configure("text")
        structlog.get_logger().info("hello", clip="a\x1b.mp4", action=Action.JOB_DONE)
        plain = capsys.readouterr().err
        assert "\x1b" not in plain
        assert re.search(r"Z \[info +\] hello +action=job.done +clip=a\\x1b.mp4\n", plain)
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
        configure("auto")
        structlog.get_logger().info("hello", clip="a\x1b.mp4")
        assert "\x1b[" in capsys.readouterr().err
        monkeypatch.setenv("NO_COLOR", "1")
        configure("auto")
        structlog.get_logger().info("hello")
        assert "\x1b[" not in capsys.readouterr().err

    def test_a_traceback_keeps_its_lines(
        self, log: Log, capsys: pytest.CaptureFixture[str]
    ) -> None:
        configure("text")
        try:
            raise ValueError("no\x1b")
        except ValueError:
            structlog.get_logger().exception("it broke")
        lines = capsys.readouterr().err.splitlines()
        assert "it broke" in lines[0]
        assert lines[1].startswith("Traceback")
        assert lines[-1] == "ValueError: no\\x1b"


class TestAbout:
    def test_is_in_every_record_of_the_task_and_of_those_that_it_starts(self, log: Log) -> None:
        logger = structlog.get_logger()

        async def window(index: int) -> None:
            with about(window=index, device="cuda:0"):
                await asyncio.sleep(0)
                logger.info("window")

        async def job(number: int, clip: str) -> None:
            with about(job=number, clip=Path("in") / clip):
                windows = [asyncio.create_task(window(index)) for index in range(2)]
                await asyncio.gather(*windows)
                await asyncio.to_thread(logging.getLogger("library").warning, "thread")
                logger.info("job")
            logger.info("outside")

        async def both() -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(job(1, "a.mp4"))
                group.create_task(job(2, "b\n.mp4"))
            logger.info("outside")

        asyncio.run(both())
        told = [
            tuple(record.get(name) for name in ("event", "job", "clip", "window", "device"))
            for record in log.records()
            if record["level"] != "debug"  # the loop's own
        ]
        expected: list[tuple[Any, ...]] = [("outside", None, None, None, None)] * 3
        for number, clip in ((1, "a.mp4"), (2, "b\\n.mp4")):
            expected += [("window", number, clip, index, "cuda:0") for index in range(2)]
            expected += [("thread", number, clip, None, None), ("job", number, clip, None, None)]
        assert sorted(told, key=repr) == sorted(expected, key=repr)


class TestLibraries:
    def test_their_records_go_the_same_way(self, log: Log) -> None:
        logger = logging.getLogger("some.library")
        logger.info("read %d of %s", 3, "a\n")
        logger.log(35, "between")
        try:
            raise KeyError("k")
        except KeyError:
            logger.exception("it broke")
        records = log.records()
        assert [(r["level"], r["event"]) for r in records] == [
            ("info", "read 3 of a"),
            ("warning", "between"),
            ("error", "it broke"),
        ]
        assert {(r["action"], r["library"]) for r in records} == {("library", "some.library")}
        assert "KeyError" in records[-1]["exception"]

    def test_one_whose_arguments_do_not_fit(self, log: Log) -> None:
        wrong = logging.makeLogRecord({"msg": "%d", "args": ("x",), "levelno": 5})
        handlers = logging.getLogger().handlers
        next(h for h in handlers if type(h).__module__ == "daemon.logs").emit(wrong)
        (record,) = log.records()
        assert (record["event"], record["level"]) == ("%d", "debug")

    def test_warnings_too(self, log: Log) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning("soon gone", DeprecationWarning, "x.py", 3)
        (record,) = log.records()
        assert (record["level"], record["library"]) == ("warning", "py.warnings")
        assert "x.py:3: DeprecationWarning: soon gone" in record["event"]

    def test_set_up_twice_they_are_told_once(self, log: Log) -> None:
        configure("json")
        configure("json")
        logging.getLogger("library").warning("once")
        assert len(log.records()) == 1

    def test_what_a_loop_says_of_a_lost_error(self, log: Log) -> None:
        async def lose() -> None:
            asyncio.get_running_loop().call_soon(lambda: 1 / 0)
            await asyncio.sleep(0)
            await asyncio.sleep(0)

        asyncio.run(lose())
        record = next(record for record in log.records() if record["level"] == "error")
        assert record["library"] == "asyncio"
        assert "ZeroDivisionError" in record["exception"]


class TestWorkers:
    def test_what_one_said(self, log: Log) -> None:
        with about(job=7):
            worker_record("pool-3", Record("warning", "slow\n", {"seconds": 3}))
        (record,) = log.records()
        expected = {
            "level": "warning",
            "event": "slow\\n",
            "action": "worker.record",
            "worker": "pool-3",
            "job": 7,
            "seconds": 3,
        }
        assert record.items() >= expected.items()

    def test_a_traceback_of_one(self, log: Log) -> None:
        fields = {"logger": "torch", "error": "KeyError: 'a'", "trace": "Traceback:\n  KeyError"}
        worker_record("cuda:0", Record("error", "it broke", fields))
        (record,) = log.records()
        assert record["exception"] == "Traceback:\n  KeyError"
        assert (record["library"], record["error"]) == ("torch", "KeyError: 'a'")

    def test_it_cannot_speak_for_others(self, log: Log) -> None:
        forged = {"action": "job.done", "worker": "x", "job": 9, "level": "info", "event": "e"}
        with about(job=7):
            worker_record("pool-3", Record("loud", "hello", {**forged, "exc_info": True}))
        (record,) = log.records()
        assert record["action"] == "worker.record"
        assert (record["worker"], record["job"], record["level"]) == ("pool-3", 7, "info")
        assert (record["worker_"], record["job_"]) == ("x", 9)


class TestDocs:
    def test_the_table_of_actions_is_true(self) -> None:
        """``python -m tests.daemon.test_logs`` prints it."""
        assert actions_table() in (ROOT / "docs" / "logs.md").read_text(encoding="utf-8")

    def test_words_are_short_and_stable(self) -> None:
        for action in Action:
            assert re.fullmatch(r"[a-z]+(\.[a-z]+)?", action)
            assert action.meaning.endswith(".")
        assert len({action.meaning for action in Action}) == len(Action)


@pytest.mark.parametrize("standard_error", ["2>&-", "2>/dev/full", "2> >(exec sleep 0)"])
def test_without_anyone_to_tell_the_process_goes_on(standard_error: str) -> None:
    code = (
        "import structlog, time; from daemon.logs import configure; configure()\n"
        "for _ in range(100): structlog.get_logger().info('x' * 2000); time.sleep(0.001)\n"
        "print('done')"
    )
    result = subprocess.run(
        ["bash", "-c", f'"$0" -c "$1" {standard_error}', sys.executable, code],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
    )
    assert (result.returncode, result.stdout) == (0, "done\n")


def actions_table() -> str:
    """Every word with what it means."""
    rows = [f"| `{action}` | {action.meaning} |" for action in Action]
    return "\n".join(["| action | what has happened |", "| --- | --- |", *rows])


if __name__ == "__main__":
    print(actions_table())
