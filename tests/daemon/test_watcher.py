import errno
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from watchdog.utils import BaseThread

from daemon import watcher
from daemon.watcher import Watcher

WAIT = 10.0  # seconds at most


class Heard:
    def __init__(self) -> None:
        self.hints: list[tuple[str | None, bool | None]] = []
        self.warnings: list[str] = []

    def hint(self, name: str | None, written: bool | None) -> None:
        self.hints.append((name, written))


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if isinstance(thread, BaseThread)]


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "inbox"
    folder.mkdir()
    return folder


@pytest.fixture
def watching(folder: Path, heard: Heard) -> Iterator[Watcher]:
    watching = Watcher(folder, True, heard.hint, heard.warnings.append)
    yield watching
    watching.stop()
    assert threads() == []


def test_hints(watching: Watcher, folder: Path, heard: Heard) -> None:
    assert watching.check() == ""
    with (folder / "bytes\udcff.mp4").open("wb") as file:
        until(lambda: ("bytes\udcff.mp4", None) in heard.hints)
        file.write(b"x")
        file.flush()
        until(lambda: ("bytes\udcff.mp4", True) in heard.hints)
        assert ("bytes\udcff.mp4", False) not in heard.hints
    until(lambda: ("bytes\udcff.mp4", False) in heard.hints)
    (folder / "bytes\udcff.mp4").rename(folder / "b.mp4")
    until(lambda: ("b.mp4", None) in heard.hints and (None, None) in heard.hints)
    heard.hints.clear()
    (folder / "b.mp4").unlink()
    until(lambda: (None, None) in heard.hints)
    heard.hints.clear()
    (folder / "sub").mkdir()
    until(lambda: (None, None) in heard.hints)


def test_reading_is_no_event(watching: Watcher, folder: Path, heard: Heard) -> None:
    (folder / "a.mp4").touch()
    watching.check()
    for _ in range(10):
        (folder / "a.mp4").read_bytes()
    (folder / "b.mp4").touch()
    until(lambda: ("b.mp4", False) in heard.hints)
    assert not [name for name, _ in heard.hints if name == "a.mp4"]


def test_every_dead_thread_is_noticed(watching: Watcher, folder: Path, heard: Heard) -> None:
    watching.check()
    assert watching.check() == ""
    for number in range(len(threads())):
        thread = threads()[number]
        assert isinstance(thread, BaseThread)
        thread.stop()
        until(lambda thread=thread: not thread.is_alive())
        assert watching.check() == "the inbox's watcher had ended; it is started again"
        assert watching.check() == ""
        heard.hints.clear()
        (folder / f"{number}.mp4").touch()
        until(lambda: bool(heard.hints))


def test_a_folder_that_is_replaced(watching: Watcher, folder: Path, heard: Heard) -> None:
    watching.check()
    folder.rename(folder.with_name("old"))
    assert watching.check() == ""  # whoever looks through it tells
    assert threads() == []
    folder.mkdir()
    assert watching.check() == ""
    (folder / "a.mp4").touch()
    until(lambda: ("a.mp4", False) in heard.hints)
    folder.rename(folder.with_name("older"))
    folder.mkdir()
    assert watching.check() == ""
    (folder / "b.mp4").touch()
    until(lambda: ("b.mp4", False) in heard.hints)
    shutil.rmtree(folder)
    assert watching.check() == ""


@pytest.mark.parametrize("limit", [errno.ENOSPC, errno.EMFILE])
def test_limits_of_inotify(
    watching: Watcher, folder: Path, heard: Heard, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = watcher.Observer

    class Limited(real):
        def start(self) -> None:
            raise OSError(limit, "limit reached")

    with monkeypatch.context() as patch:
        patch.setattr(watcher, "Observer", Limited)
        assert watching.check() == watching.check() == ""
    (warning,) = heard.warnings
    assert "fs.inotify.max_user_watches" in warning
    assert threads() == []
    assert watching.check() == ""
    (folder / "a.mp4").touch()
    until(lambda: bool(heard.hints))


def test_another_failure(watching: Watcher, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(watcher, "Observer", fail)
    assert watching.check().endswith("cannot be watched: Input/output error")


def test_stopped_for_good(watching: Watcher) -> None:
    watching.check()
    watching.stop()
    assert watching.check() == ""
    assert threads() == []
