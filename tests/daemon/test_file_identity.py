import os
import socket
from pathlib import Path

import pytest

from daemon.file_identity import FileIdentity, folder_identity, identify, seen, seen_now


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


class TestFolderOfPictures:
    @pytest.fixture
    def pictures(self, folder: Path) -> Path:
        pictures = folder / "a.depth"
        pictures.mkdir()
        for name in ("1.png", "2.png"):
            (pictures / name).write_bytes(b"x")
        return pictures

    def test_another_one_with_every_change_in_it(self, folder: Path, pictures: Path) -> None:
        found = [identify(str(folder), "a.depth")]
        assert (found[0].size, found[0].refused) == (2, "")
        old = (pictures / "1.png").stat().st_mtime_ns
        for change in (
            lambda: os.utime(pictures / "1.png", ns=(0, old - 1)),
            lambda: (pictures / "2.png").write_bytes(b"xy"),
            lambda: (pictures / "1.png").rename(pictures / "3.png"),
            lambda: (pictures / "3.png").unlink(),
            lambda: (pictures / "4.png").touch(),
        ):
            change()
            found.append(identify(str(folder), "a.depth"))
        assert len({seen([("a.depth", identity)]) for identity in found}) == len(found)

    def test_what_is_hidden_does_not_count(self, folder: Path, pictures: Path) -> None:
        before = identify(str(folder), "a.depth")
        (pictures / ".DS_Store").touch()
        assert identify(str(folder), "a.depth") == before

    def test_by_descriptor(self, folder: Path, pictures: Path) -> None:
        descriptor = os.open(pictures, os.O_RDONLY)
        identity = folder_identity(descriptor, pictures.stat().st_ino)
        assert identity == folder_identity(descriptor, pictures.stat().st_ino)
        os.close(descriptor)
        assert identity == identify(str(folder), "a.depth")

    def test_refused(
        self, folder: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (folder / "out.depth").symlink_to(tmp_path)
        (folder / "in.depth").symlink_to(pictures)
        assert refused(folder, "out.depth") == "is a link that leads out of the inbox"
        assert identify(str(folder), "in.depth") == identify(str(folder), "a.depth")
        (pictures / "3.png").symlink_to("1.png")
        assert refused(folder, "a.depth") == "has 3.png, a link, in it"
        (pictures / "0\n").mkdir()
        assert refused(folder, "a.depth") == r"has 0\n, a folder, in it"
        monkeypatch.setattr("daemon.file_identity.MANY", 3)
        assert refused(folder, "a.depth") == "has more than 3 files"

    def test_a_file_of_such_a_name_is_not_there(self, folder: Path) -> None:
        (folder / "a.depth").touch()
        with pytest.raises(FileNotFoundError):
            identify(str(folder), "a.depth")


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
    words.append(seen([("a.mp4", one), None, None, ("a.hed.mp4", one)]))
    assert len(set(words)) == len(words)
    # What a store has seen before there were folders stays seen.
    assert words[0] == "592fa03991a0ec504efa56b0"
    assert seen([("sub/a.mp4", one)]) == seen([("a.mp4", one)])
    assert seen([("bytes\udcff.mp4", one)])


def test_seen_now(folder: Path) -> None:
    (folder / "a.mp4").write_bytes(b"x")
    before = seen_now(folder, folder / "a.mp4", None, None)
    assert before == seen([("a.mp4", identify(str(folder), "a.mp4")), None, None])
    (folder / "a.mp4").write_bytes(b"xy")
    assert seen_now(folder, folder / "a.mp4", None, None) not in (before, "")
    assert seen_now(folder, folder / "a.mp4", folder / "a.txt", None) == ""
