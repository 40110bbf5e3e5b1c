"""What is no file is refused, and nobody waits for it."""

import os
import socket
import tempfile
from pathlib import Path

import pytest

from io_pipeline.regular_file import open_regular


def test_a_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "a\udcff.txt"
    file.write_bytes(b"a car")
    with open_regular(file) as content:
        assert content.read() == b"a car"
        assert not os.get_inheritable(content.fileno())


def test_links_are_followed_where_that_is_wanted(tmp_path: Path) -> None:
    file, link = tmp_path / "a", tmp_path / "b"
    file.write_bytes(b"a car")
    link.symlink_to(file)
    with open_regular(link) as content:
        assert content.read() == b"a car"
    with pytest.raises(OSError, match="it is a symbolic link"):
        open_regular(link, follow=False)


@pytest.mark.parametrize("follow", [True, False])
def test_what_is_no_file(follow: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:  # a socket's name has to be short
        pipe, listener = Path(folder, "pipe"), Path(folder, "socket")
        os.mkfifo(pipe)
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(listener))
            before = len(os.listdir("/proc/self/fd"))
            for path in (pipe, listener, Path(folder), Path("/dev/zero")):
                with pytest.raises(OSError, match="it is no regular file"):
                    open_regular(path, follow=follow)
            assert len(os.listdir("/proc/self/fd")) == before


def test_absent(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "absent")
