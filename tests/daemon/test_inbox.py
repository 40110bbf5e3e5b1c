import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from watchdog.utils import BaseThread

from daemon import inbox as inbox_module
from daemon.arrivals import Arrivals
from daemon.inbox import Changes, Inbox
from daemon.settings import Inbox as InboxSettings
from fresco_core.errors import ClipError, ConfigError

QUIET = 0.1
WAIT = 10.0  # seconds at most
NEVER = 3600.0


class Told:
    """Whom an inbox tells."""

    def __init__(self) -> None:
        self.arrived: list[str] = []
        self.prompts: list[str | None] = []
        self.controls: list[list[str]] = []  # their kinds
        self.gone: list[str] = []
        self.warnings: list[str] = []
        self._news = asyncio.Event()

    async def change(self, changes: Changes) -> None:
        for arrival in changes.arrived:
            self.arrived.append(arrival.clip.name)
            self.prompts.append(arrival.prompt_file and arrival.prompt_file.name)
            self.controls.append([file.kind for file in arrival.control_files])
        self.gone += [path.name for path in changes.gone]
        self._news.set()

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT):
            while not true():
                await self._news.wait()
                self._news.clear()


@asynccontextmanager
async def running(
    folder: Path, known: dict[Path, str] | None = None, **settings: object
) -> AsyncIterator[tuple[Inbox, Told]]:
    told = Told()
    values = {"quiet_seconds": QUIET, "rescan_seconds": NEVER, **settings}
    inbox = Inbox(
        folder,
        InboxSettings.model_validate(values),
        told.change,
        known or {},
        told.warnings.append,
    )
    run = asyncio.create_task(inbox.run())
    try:
        yield inbox, told
    finally:
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        assert not [thread for thread in threading.enumerate() if isinstance(thread, BaseThread)]


async def scanned(inbox: Inbox, told: Told) -> None:
    """Wait until the inbox is watched."""
    (inbox.folder / "first.mp4").touch()
    await told.until(lambda: "first.mp4" in told.arrived)


def test_told_soon_after_it_is_complete(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path) as (inbox, told):
            await scanned(inbox, told)
            took = []
            for number in range(3):  # other programs may be in the way once
                (tmp_path / f"{number}.txt").touch()
                (tmp_path / f"{number}.mp4").touch()
                complete = time.monotonic()
                await told.until(lambda number=number: f"{number}.mp4" in told.arrived)
                took.append(time.monotonic() - complete)
            assert QUIET <= min(took) < QUIET + 0.3
            assert told.prompts == [None, "0.txt", "1.txt", "2.txt"]

    before = threading.active_count()
    asyncio.run(main())
    assert threading.active_count() == before


def test_the_folder_is_made(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path / "a/b") as (inbox, told):
            while not inbox.folder.is_dir():
                await asyncio.sleep(0.01)
            await scanned(inbox, told)

    asyncio.run(main())


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    inbox = Inbox(tmp_path / "file", InboxSettings(), Told().change)
    with pytest.raises(ConfigError, match=r"inbox\.folder: .*file cannot be made"):
        asyncio.run(inbox.run())


def test_polling_needs_no_events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox_module, "SOON", 0.02)

    async def main() -> None:
        async with running(tmp_path, watch="polling") as (inbox, told):
            await scanned(inbox, told)
            assert not [t for t in threading.enumerate() if isinstance(t, BaseThread)]
            (tmp_path / "first.mp4").unlink()
            await told.until(lambda: told.gone == ["first.mp4"])

    asyncio.run(main())


def test_events_ask_for_a_scan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox_module, "SOON", 0.02)

    async def main() -> None:
        async with running(tmp_path, recursive=True) as (inbox, told):
            await scanned(inbox, told)
            (tmp_path / "first.mp4").unlink()
            await told.until(lambda: told.gone == ["first.mp4"])
            (tmp_path / "sub").mkdir()
            (tmp_path / "sub/a.mp4").touch()
            await told.until(lambda: "a.mp4" in told.arrived)

    asyncio.run(main())


def test_take_does_not_wait(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path, quiet_seconds=NEVER) as (inbox, told):
            (tmp_path / "a.mp4").touch()
            arrival = await inbox.take("a.mp4", 3)
            assert (arrival.clip, arrival.priority) == (tmp_path / "a.mp4", 3)
            with pytest.raises(ClipError, match="not in the inbox"):
                await inbox.take("b.mp4")
            assert told.arrived == []

    asyncio.run(main())


def test_told_again(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path) as (inbox, told):
            await scanned(inbox, told)
            await inbox.tell_again(tmp_path / "first.mp4")
            await told.until(lambda: told.arrived == ["first.mp4"] * 2)

    asyncio.run(main())


def test_what_on_change_raises_ends_it(tmp_path: Path) -> None:
    async def fail(changes: Changes) -> None:
        raise ValueError("store")

    (tmp_path / "a.mp4").touch()
    inbox = Inbox(tmp_path, InboxSettings(quiet_seconds=QUIET), fail)
    before = threading.active_count()
    with pytest.raises(ValueError, match="store"):
        asyncio.run(inbox.run())
    assert threading.active_count() == before


def test_a_disk_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox_module, "SILENT", 0.05)
    answer = threading.Event()

    async def main() -> None:
        async with running(tmp_path) as (inbox, _):
            monkeypatch.setattr(inbox._arrivals, "look", lambda hints: answer.wait(WAIT))
            try:
                await until(lambda: "has not answered" in inbox.problem)
            finally:
                answer.set()
            await until(lambda: not inbox.problem)

    asyncio.run(main())


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT):
        while not true():
            await asyncio.sleep(0.005)


def test_nothing_is_done_on_the_disk_in_the_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called = []
    for module, name in ((os, "scandir"), (os, "lstat"), (os, "stat"), (os, "open")):
        real = getattr(module, name)

        def noted(*arguments: Any, real: Any = real, name: str = name, **more: Any) -> Any:
            if str(tmp_path) in str(arguments[0]):
                called.append((name, threading.current_thread() is threading.main_thread()))
            return real(*arguments, **more)

        monkeypatch.setattr(module, name, noted)

    (tmp_path / "a.mp4").write_bytes(b"x")
    (tmp_path / "a.txt").symlink_to("a.mp4")
    called.clear()

    async def main() -> None:
        async with running(tmp_path, rescan_seconds=0.5) as (inbox, told):
            await told.until(lambda: told.prompts == ["a.txt"])
            await inbox.take("a.mp4")
            await inbox.tell_again(tmp_path / "a.mp4")
            await told.until(lambda: told.prompts == ["a.txt"] * 2)

    asyncio.run(main())
    assert {name for name, _ in called} == {"scandir", "lstat", "stat", "open"}
    assert not [name for name, in_loop in called if in_loop]


def test_one_who_takes_a_clip_is_not_in_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is due is counted while nobody changes it."""
    asked: list[tuple[bool, bool]] = []

    async def main() -> None:
        async with running(tmp_path) as (inbox, _):

            def due(arrivals: Arrivals) -> float:
                in_loop = threading.current_thread() is threading.main_thread()
                asked.append((inbox._working.locked(), in_loop))
                return float("inf")

            monkeypatch.setattr(Arrivals, "due", property(due))
            await until(lambda: bool(asked))

    asyncio.run(main())
    assert set(asked) == {(True, False)}
