import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.control_socket import MAX_PATH, Peer, listening, who_may_change
from daemon.output_folder import BusyError
from fresco_core.errors import ConfigError
from tests.conftest import ROOT
from tests.daemon.control_rig import short_folder


@pytest.fixture
def path() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder / "control.sock"


def leave(path: Path) -> None:
    """A socket file that nobody listens at, as a killed daemon leaves it."""
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))


def test_everyone_may_connect_and_the_file_goes_with_it(path: Path) -> None:
    with listening(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o666
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
    assert not path.exists()


def test_a_stale_file_is_replaced(path: Path) -> None:
    leave(path)
    with listening(path), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


def test_a_live_one_is_left_alone(path: Path) -> None:
    with listening(path):
        with pytest.raises(BusyError, match=str(path)), listening(path):
            pass
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))


def test_a_live_one_with_its_hands_full_is_left_alone(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daemon.control_socket._ANSWER_SECONDS", 0.1)
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as first:
        server.bind(str(path))
        server.listen(0)
        first.connect(str(path))  # never accepted: there is no room for another
        with pytest.raises(BusyError), listening(path):
            pass
        assert path.exists()


@pytest.mark.parametrize("kind", ["file", "folder", "link", "fifo"])
def test_what_is_no_socket_is_never_removed(path: Path, kind: str) -> None:
    if kind == "file":
        path.write_text("precious")
    elif kind == "folder":
        path.mkdir()
    elif kind == "link":
        leave(path.with_name("other"))
        path.symlink_to("other")
    else:
        os.mkfifo(path)
    before = path.lstat()
    with pytest.raises(ConfigError, match=r"no socket: change service\.socket"), listening(path):
        pass
    assert path.lstat() == before


def test_a_path_too_long_names_the_setting(path: Path) -> None:
    longest = path.with_name("x" * (MAX_PATH - len(str(path.parent)) - 1))
    with listening(longest):
        pass
    too_long = longest.with_name(longest.name + "x")
    with pytest.raises(ConfigError, match=r"service\.socket"), listening(too_long):
        pass


def test_a_folder_that_is_not_there_names_the_setting(path: Path) -> None:
    with pytest.raises(ConfigError, match=r"service\.socket"), listening(path / "x"):
        pass


def test_another_ones_file_is_not_removed_at_the_end(path: Path) -> None:
    with listening(path):
        path.unlink()
        leave(path)
    assert path.exists()


class TestWhoMayChange:
    def test_root_and_the_same_user_and_group(self) -> None:
        assert Peer(1, 0, 12345).may_change()
        assert Peer(1, os.geteuid(), 12345).may_change()
        assert Peer(1, 54321, os.getegid()).may_change()
        assert not Peer(1, 54321, 12345).may_change()

    def test_a_member_of_the_group_by_the_kernel(self) -> None:
        assert Peer(1, 54321, 12345, frozenset({7, os.getegid()})).is_trusted
        assert not Peer(1, 54321, 12345, frozenset({54321})).is_trusted
        left, right = socket.socketpair(socket.AF_UNIX)
        with left, right:
            assert Peer.of(left).groups in (set(os.getgroups()), set())

    def test_a_member_of_the_group_by_name(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import pwd

        nobody = pwd.getpwnam("nobody")
        assert not Peer(1, nobody.pw_uid, nobody.pw_gid).may_change()
        groups = [nobody.pw_gid, os.getegid()]
        monkeypatch.setattr(os, "getgrouplist", lambda name, gid: groups * (name == "nobody"))
        assert Peer(1, nobody.pw_uid, nobody.pw_gid).may_change()

    def test_words(self) -> None:
        assert "root, user " in who_may_change()

    def test_the_kernel_says_who_it_is(self, path: Path) -> None:
        code = "import socket, sys; s = socket.socket(1); s.connect(sys.argv[1]); input()"
        with listening(path) as server:
            server.settimeout(20)
            with subprocess.Popen(
                [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, cwd=ROOT
            ) as client:
                connection, _ = server.accept()
                with connection:
                    peer = Peer.of(connection)
                assert peer == Peer(client.pid, os.geteuid(), os.getegid())
                client.communicate(b"\n")
