"""Files appear complete and durable, or not at all."""

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from fresco_core.errors import FrescodError
from io_pipeline.writing import DiskFullError, appearing, remove, sync, writing


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_an_error_of_its_own(tmp_path: Path, number: int) -> None:
    with pytest.raises(DiskFullError, match="free some space"), writing(tmp_path / "a"):
        raise OSError(number, os.strerror(number))


def test_a_device_that_is_full(tmp_path: Path) -> None:
    with pytest.raises(DiskFullError, match="No space left"), writing(Path("/dev/full")):
        Path("/dev/full").write_bytes(b"x")


def test_other_errors(tmp_path: Path) -> None:
    with (
        pytest.raises(FrescodError, match="check the output folder") as caught,
        writing(tmp_path / "a"),
    ):
        (tmp_path / "none" / "a").touch()
    assert not isinstance(caught.value, DiskFullError)


class TestAppearing:
    def test_a_file(self, tmp_path: Path) -> None:
        with appearing(tmp_path / "a") as file:
            file.write_text("one")
            assert not (tmp_path / "a").exists()
        assert (tmp_path / "a").read_text() == "one"
        assert os.listdir(tmp_path) == ["a"]

    def test_an_older_file_is_replaced(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_text("one")
        with appearing(tmp_path / "a") as file:
            file.write_text("two")
            assert (tmp_path / "a").read_text() == "one"
        assert (tmp_path / "a").read_text() == "two"

    def test_a_folder_over_what_a_crash_left(self, tmp_path: Path) -> None:
        (tmp_path / "a.tmp").mkdir()
        (tmp_path / "a.tmp" / "old").touch()
        with appearing(tmp_path / "a") as folder:
            folder.mkdir()
            (folder / "new").touch()
        assert os.listdir(tmp_path / "a") == ["new"]

    def test_nothing_remains_of_a_failure(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_text("one")
        with (
            pytest.raises(TypeError),
            appearing(tmp_path / "a") as file,
            file.open("w") as open_file,
        ):
            open_file.writelines(["two", 2])  # type: ignore[list-item]
        assert (tmp_path / "a").read_text() == "one"
        assert os.listdir(tmp_path) == ["a"]

    def test_content_then_name(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """What is written is on the disk before it is renamed, and then the new name is."""
        done: list[str] = []
        fsync, rename = os.fsync, os.rename

        def note_sync(descriptor: int) -> None:
            done.append(os.path.relpath(os.readlink(f"/proc/self/fd/{descriptor}"), tmp_path))
            fsync(descriptor)

        def note_rename(source: Path, target: Path) -> None:
            done.append("rename")
            rename(source, target)

        monkeypatch.setattr(os, "fsync", note_sync)
        monkeypatch.setattr(os, "rename", note_rename)
        with appearing(tmp_path / "a") as folder:
            folder.mkdir()
            (folder / "b").touch()
        assert done == ["a.tmp/b", "a.tmp", "rename", "."]


class TestSync:
    @pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP])
    def test_a_file_system_that_cannot_sync_folders(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
    ) -> None:
        refused = _refuse_to_sync(monkeypatch, number, stat.S_ISDIR)
        sync(tmp_path)
        assert len(refused) == 1

    def test_a_file_that_cannot_be_synced_is_an_error(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        _refuse_to_sync(monkeypatch, errno.EINVAL, stat.S_ISREG)
        with pytest.raises(FrescodError, match="cannot be written"), appearing(tmp_path / "a") as a:
            a.touch()
        assert os.listdir(tmp_path) == []

    def test_a_folder_with_a_bad_disk_is_an_error(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        _refuse_to_sync(monkeypatch, errno.EIO, stat.S_ISDIR)
        with pytest.raises(OSError, match="Input/output error"):
            sync(tmp_path)


def test_remove(tmp_path: Path) -> None:
    (tmp_path / "folder" / "in").mkdir(parents=True)
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "kept", target_is_directory=True)
    (tmp_path / "kept").mkdir()
    for name in ("folder", "file", "link", "none"):
        remove(tmp_path / name)
    assert os.listdir(tmp_path) == ["kept"]


def _refuse_to_sync(
    patch: pytest.MonkeyPatch, number: int, which: Callable[[int], bool]
) -> list[int]:
    """Let fsync fail for files of a kind; the list grows with every refusal."""
    refused: list[int] = []
    fsync = os.fsync

    def refuse(descriptor: int) -> None:
        if which(os.fstat(descriptor).st_mode):
            refused.append(descriptor)
            raise OSError(number, os.strerror(number))
        fsync(descriptor)

    patch.setattr(os, "fsync", refuse)
    return refused
