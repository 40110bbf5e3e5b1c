import os
import socket
from pathlib import Path

import pytest

from daemon.file_identity import FileIdentity, identify, seen, seen_now


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "inbox"
    folder.mkdir()
    return folder


def refused(folder: Path, name: str) -> str:
    return identify(str(folder), name).refused


def test_another_one_when_size_time_or_inode_change(folder: Path) -> None:
    file = folder / "a.mp4"
    file.write_bytes(b"1")
    before = identify(str(folder), "a.mp4")
    assert before == identify(str(folder), "a.mp4")
    os.utime(file, ns=(0, before.mtime_ns + 1))
    later = identify(str(folder), "a.mp4")
    file.write_bytes(b"12")
    os.utime(file, ns=(0, before.mtime_ns + 1))
    longer = identify(str(folder), "a.mp4")
    (folder / "b").write_bytes(b"12")
    os.utime(folder / "b", ns=(0, before.mtime_ns + 1))
    (folder / "b").rename(file)
    other = identify(str(folder), "a.mp4")
    assert len({before, later, longer, other}) == 4


def test_what_is_no_file_is_refused_and_never_opened(folder: Path) -> None:
    (folder / "dir.mp4").mkdir()
    os.mkfifo(folder / "fifo.mp4")  # opening it would wait for ever
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "s.mp4"))
    assert refused(folder, "dir.mp4") == "is a folder, not a file"
    assert refused(folder, "fifo.mp4") == "is a FIFO, not a file"
    assert refused(folder, "s.mp4") == "is a socket, not a file"
    (folder / "null.mp4").symlink_to("/dev/null")
    assert refused(folder, "null.mp4") == "is a link that leads out of the inbox"


def test_a_folder_stays_the_same_whatever_is_put_into_it(folder: Path) -> None:
    (folder / "dir.mp4").mkdir()
    before = identify(str(folder), "dir.mp4")
    (folder / "dir.mp4/a").touch()
    assert identify(str(folder), "dir.mp4") == before


def test_links(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"x")
    (tmp_path / "inbox-beside").write_bytes(b"x")
    (folder / "real.mp4").write_bytes(b"x")
    (folder / "way").symlink_to(tmp_path)
    for name, target in {
        "in.mp4": "real.mp4",
        "absolute.mp4": folder / "real.mp4",
        "again.mp4": "in.mp4",
        "up.mp4": "../secret",
        "beside.mp4": tmp_path / "inbox-beside",
        "through.mp4": "way/secret",
        "self.mp4": ".",
        "nothing.mp4": "absent",
        "round.mp4": "round.mp4",
    }.items():
        (folder / name).symlink_to(target)
    leads_out, to_nothing = (
        "is a link that leads out of the inbox",
        "is a link that leads to no file",
    )
    assert identify(str(folder), "in.mp4") == identify(str(folder), "real.mp4")
    assert not refused(folder, "absolute.mp4")
    assert not refused(folder, "again.mp4")
    for name in ("up.mp4", "beside.mp4", "through.mp4", "self.mp4"):
        assert refused(folder, name) == leads_out
    for name in ("nothing.mp4", "round.mp4"):
        assert refused(folder, name) == to_nothing


def test_absent(folder: Path) -> None:
    with pytest.raises(FileNotFoundError):
        identify(str(folder), "absent.mp4")
    (folder / "file").touch()
    with pytest.raises(FileNotFoundError):
        identify(str(folder), "file/a.mp4")


def test_seen_changes_with_each_of_the_files_and_with_their_names() -> None:
    one, two = FileIdentity(1, 2, 3), FileIdentity(1, 2, 4)
    words = [
        seen([("a.mp4", one), None, None]),
        seen([("a.mp4", two), None, None]),
        seen([("a.mp4", one), ("a.txt", one), None]),
        seen([("a.mp4", one), ("a.TXT", one), None]),
        seen([("a.mp4", one), ("a.txt", two), None]),
        seen([("a.mp4", one), None, ("a.txt", one)]),
        seen([("a.mp4", one._replace(refused="is a folder")), None, None]),
    ]
    assert len(set(words)) == len(words)
    assert seen([("sub/a.mp4", one)]) == seen([("a.mp4", one)])
    assert seen([("bytes\udcff.mp4", one)])


def test_seen_now(folder: Path) -> None:
    (folder / "a.mp4").write_bytes(b"x")
    before = seen_now(folder, folder / "a.mp4", None, None)
    assert before == seen([("a.mp4", identify(str(folder), "a.mp4")), None, None])
    (folder / "a.mp4").write_bytes(b"xy")
    assert seen_now(folder, folder / "a.mp4", None, None) not in (before, "")
    assert seen_now(folder, folder / "a.mp4", folder / "a.txt", None) == ""
