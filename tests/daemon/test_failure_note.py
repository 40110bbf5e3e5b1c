import errno
from pathlib import Path

import pytest

from daemon.failure_note import note_path, settle
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


@pytest.mark.parametrize("call", ["mkdir", "write_text"])
def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, call, full)
    with pytest.raises(DiskFullError, match="No space left"):
        settle(tmp_path / "a", Outcome.FAILED, "why")
    assert list(tmp_path.iterdir()) == []
