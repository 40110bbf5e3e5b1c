import asyncio
import errno
from pathlib import Path

import pytest

from daemon import failure_note
from daemon.failure_note import FailureNotes, note_path, settle
from daemon.jobs import Outcome
from io_pipeline.writing import DiskFullError


def test_says_why_and_goes_when_all_is_well(tmp_path: Path) -> None:
    folder = tmp_path / "out" / "a"
    settle(folder, Outcome.FAILED, "a.mp4: cut\nshort")
    assert note_path(folder).name == "a.failed.txt"
    assert note_path(folder).read_text() == "failed: a.mp4: cut\\nshort\n"
    settle(folder, Outcome.FAILED, "another reason")
    assert "another reason" in note_path(folder).read_text()
    settle(folder, Outcome.DONE, "")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.DONE])
def test_a_file_of_the_user_stays(tmp_path: Path, outcome: Outcome) -> None:
    note = tmp_path / "a.failed.txt"
    note.write_text("my notes")
    settle(tmp_path / "a", outcome, "why")
    assert note.read_text() == "my notes"


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    other = tmp_path / "other"
    (tmp_path / "a.failed.txt").symlink_to(other)
    settle(tmp_path / "a", Outcome.FAILED, "why")
    assert not other.exists()


@pytest.mark.parametrize("name", ["x" * 251, "x" * 240, "雪" * 83, "\udcff.x"])
def test_any_name(tmp_path: Path, name: str) -> None:
    settle(tmp_path / name, Outcome.FAILED, "why")
    (note,) = tmp_path.iterdir()
    assert note.name.endswith(".failed.txt")


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    settle(tmp_path / "file" / "a", Outcome.FAILED, "why")


@pytest.mark.parametrize("call", ["mkdir", "write_bytes"])
def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, call, full)
    with pytest.raises(DiskFullError, match="No space left"):
        settle(tmp_path / "a", Outcome.FAILED, "why")
    assert list(tmp_path.iterdir()) == []


def test_a_note_that_is_there_is_not_written_again(tmp_path: Path) -> None:
    settle(tmp_path / "a", Outcome.FAILED, "why")
    before = note_path(tmp_path / "a").stat()
    settle(tmp_path / "a", Outcome.FAILED, "why")
    assert note_path(tmp_path / "a").stat() == before


class TestOwed:
    """Notes that found no space."""

    @pytest.fixture(autouse=True)
    def _soon(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(failure_note, "AGAIN", 0.01)

    def test_they_come_when_there_is_some(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def body() -> None:
            notes = FailureNotes(tmp_path)
            with monkeypatch.context() as patch:
                patch.setattr(failure_note, "_write", full)
                for name in ("kept", "done"):
                    await notes.settle(name, Outcome.FAILED, f"{name}: broken")
                running = asyncio.create_task(notes.run())
                await asyncio.sleep(0.1)
                await notes.settle("done", Outcome.DONE, "")
                assert list(tmp_path.iterdir()) == []
            while not (made := list(tmp_path.iterdir())):
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)
            running.cancel()
            assert made == [*tmp_path.iterdir()] == [note_path(tmp_path / "kept")]
            assert made[0].read_text() == "failed: kept: broken\n"

        asyncio.run(asyncio.wait_for(body(), 10))

    def test_of_an_earlier_process(self, tmp_path: Path) -> None:
        async def body() -> None:
            notes = FailureNotes(tmp_path)
            notes.owe({"a": "a: broken", "b": "b: broken"})
            await notes.settle("b", Outcome.DONE, "")
            running = asyncio.create_task(notes.run())
            while not note_path(tmp_path / "a").exists():
                await asyncio.sleep(0.01)
            running.cancel()
            assert not note_path(tmp_path / "b").exists()

        asyncio.run(asyncio.wait_for(body(), 10))


def full(*_: object, **__: object) -> None:
    raise DiskFullError("no space left")
