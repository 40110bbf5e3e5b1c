"""Whoever reads the log may be slow, asleep or gone: that holds nobody up and ends nothing."""

import os
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from daemon import log_sink as module
from daemon.log_sink import LogSink


class Pipe:
    """Standard error, and whoever reads it."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        self.stream = open(self.writer, "w", closefd=True)  # noqa: SIM115

    def read(self, size: int = 1 << 20) -> bytes:
        """All that is there, or the first of it."""
        os.set_blocking(self.reader, False)
        try:
            return os.read(self.reader, size)
        except BlockingIOError:
            return b""

    def close(self) -> None:
        self.stream.close()
        if self.reader >= 0:
            os.close(self.reader)
            self.reader = -1


def stand_in(monkeypatch: pytest.MonkeyPatch, stream: Any) -> None:
    """The process's own standard error is this one: pytest's takes turns."""
    monkeypatch.setattr(module, "sys", SimpleNamespace(stderr=stream, __stderr__=stream))


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pipe]:
    made = Pipe()
    stand_in(monkeypatch, made.stream)
    yield made
    made.close()


def test_lines_arrive_as_utf_8(pipe: Pipe) -> None:
    sink = LogSink()
    sink.write("añb\udcff\n")
    sink.write("x" * 20_000 + "\n")
    sink.flush()
    read = pipe.read()
    assert read[:12] == "añb\\udcff\nx".encode()
    assert len(read) == 11 + 20_001
    assert sink.lost == 0


@pytest.mark.parametrize("blocking", [True, False])
def test_a_reader_that_sleeps_holds_nobody_up(pipe: Pipe, blocking: bool) -> None:
    os.set_blocking(pipe.writer, blocking)
    sink, begin = LogSink(), time.monotonic()
    count = 2000
    for number in range(count):
        sink.write(f"{number} {'x' * 1000}\n")
    assert time.monotonic() - begin < 2  # its patience is for one line, not for each
    assert 0 < sink.lost < count

    read = pipe.read()
    written = count - sink.lost
    sink.write("and on\n")
    read += pipe.read()
    lines = read.decode().splitlines()
    assert [line.split()[0] for line in lines] == [*map(str, range(written)), "and"]
    assert all(len(line) > 1000 for line in lines[:-1])  # none is cut by what was lost
    assert sink.lost == 0


def test_a_line_that_did_not_fit_is_finished_first(pipe: Pipe) -> None:
    sink = LogSink()
    sink.write("a" * 100_000 + "\n")  # a pipe holds 64 KiB
    assert sink.lost == 0
    sink.write("b\n")
    assert sink.lost == 1
    text = pipe.read()
    sink.write("c\n")
    text += pipe.read()
    assert len(text) == 100_000 + 3
    assert text.endswith(b"a\nc\n")


def test_a_reader_that_is_a_little_late_gets_everything(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE", 5000)
    sink, read = LogSink(), bytearray()

    def read_on() -> None:
        end = time.monotonic() + 10
        while len(read) < 1001 * 1000 and time.monotonic() < end:
            time.sleep(0.001)
            read.extend(pipe.read())

    thread = threading.Thread(target=read_on)
    thread.start()
    for _ in range(1000):
        sink.write("x" * 1000 + "\n")
    thread.join(10)
    assert [len(line) for line in bytes(read).splitlines()] == [1000] * 1000
    assert sink.lost == 0


def test_a_reader_that_is_gone(pipe: Pipe) -> None:
    sink = LogSink()
    os.close(pipe.reader)
    pipe.reader = -1
    sink.write("a\n")
    sink.write("b\n")
    assert sink.lost == 2


def test_a_file_on_a_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    with open("/dev/full", "w") as stream:
        stand_in(monkeypatch, stream)
        sink = LogSink()
        sink.write("a\n")
        assert sink.lost == 1


def test_a_stream_that_is_closed(pipe: Pipe) -> None:
    pipe.stream.close()
    sink = LogSink()
    sink.write("a\n")
    assert sink.lost == 1


def test_no_stream_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, None)
    sink = LogSink()
    sink.write("a\n")
    assert sink.lost == 1


def test_what_stands_in_for_standard_error_gets_it(capsys: pytest.CaptureFixture[str]) -> None:
    LogSink().write("a\udcff\n")
    assert capsys.readouterr().err == "a\\udcff\n"


def test_lines_of_threads_do_not_mix(pipe: Pipe) -> None:
    sink = LogSink()
    threads = [
        threading.Thread(target=lambda c=c: [sink.write(c * 6000 + "\n") for _ in range(2)])
        for c in "abcd"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = pipe.read().decode().splitlines()
    assert sorted(line[0] for line in lines) == sorted("aabbccdd")
    assert all(line == line[0] * 6000 for line in lines)
