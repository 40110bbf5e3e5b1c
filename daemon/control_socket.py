"""The unix socket that the daemon is controlled by: made with care, and who may do what there."""

import errno
import grp
import os
import pwd
import socket
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from daemon.output_folder import BusyError
from daemon.printable import printable
from fresco_core.errors import ConfigError

# What fits into a socket's address, less the NUL at its end.
MAX_PATH = 107
# Few, since so many are accepted at a time before they are counted.
BACKLOG = 16
_ANSWER_SECONDS = 2.0
_SO_PEERGROUPS = 59


@dataclass(frozen=True)
class Peer:
    """The process at the other end; ``pid`` is 0 where it cannot be seen from here."""

    pid: int
    uid: int
    gid: int
    groups: frozenset[int] = field(default=frozenset(), compare=False)  # where they can be seen

    @classmethod
    def of(cls, connection: socket.socket) -> "Peer":
        """As the kernel knows it; of a listening process it is the one that made the socket."""
        fields = struct.Struct("iII")
        pid, uid, gid = fields.unpack(
            connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, fields.size)
        )
        groups = b""
        with suppress(OSError):  # more of them than fit, or a kernel that does not tell
            groups = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, 1024)
        return cls(pid, uid, gid, frozenset(memoryview(groups).cast("I")))

    @property
    def is_trusted(self) -> bool:
        """Whether it may change things by what the kernel says alone: known at once."""
        return self.uid in (0, os.geteuid()) or os.getegid() in {self.gid, *self.groups}

    def may_change(self) -> bool:
        """Whether it is root, this process's user, or in this process's group."""
        if self.is_trusted:
            return True
        groups = {self.gid}
        with suppress(KeyError, OSError):  # a user without a name has no other groups
            groups.update(os.getgrouplist(pwd.getpwuid(self.uid).pw_name, self.gid))
        return os.getegid() in groups


def who_may_change() -> str:
    """The same in words."""
    user, group = str(os.geteuid()), str(os.getegid())
    with suppress(KeyError):
        user = pwd.getpwuid(os.geteuid()).pw_name
    with suppress(KeyError):
        group = grp.getgrgid(os.getegid()).gr_name
    return f"root, user {user}, whom the daemon runs as, or a member of its group {group}"


@contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    """A listening socket at ``path`` that everyone may connect to; the file goes with it.

    A socket file that nobody answers at is replaced. Whatever else is there is left alone.

    Raises:
        ConfigError: the path is too long or taken by something else, or cannot be written.
        BusyError: another process answers there.
    """
    if len(os.fsencode(path)) > MAX_PATH:
        raise ConfigError(
            f"{printable(path)}: the path of the control socket is longer than {MAX_PATH} bytes: "
            "set service.socket to a shorter one"
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.setblocking(False)
        try:
            _remove_stale(path)
            server.bind(os.fsencode(path))
            made = _open_to_all(path)
            server.listen(BACKLOG)  # nobody could connect before
        except OSError as error:
            raise ConfigError(
                f"{printable(path)}: the control socket cannot be made ({error.strerror}): "
                "correct the folder's permissions or change service.socket"
            ) from error
        try:
            yield server
        finally:
            with suppress(OSError):
                if _identity(os.lstat(path)) == made:
                    path.unlink()


def _remove_stale(path: Path) -> None:
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ConfigError(
            f"{printable(path)}: is there already and no socket: change service.socket, or move it"
        )
    if _is_answered(path):
        raise BusyError(
            f"{printable(path)}: another frescod answers there: stop it, or change service.socket"
        )
    path.unlink()


def _is_answered(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(_ANSWER_SECONDS)
        try:
            client.connect(os.fsencode(path))
        except OSError as error:
            if error.errno == errno.ECONNREFUSED:
                return False
            if isinstance(error, TimeoutError) or error.errno == errno.EAGAIN:
                return True  # there is a process, with its hands full
            raise
    return True


def _open_to_all(path: Path) -> tuple[int, int]:
    """Let everyone connect; whoever may not change things is told so in words."""
    # By descriptor: never the mode of something that was put in its place.
    descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW)
    try:
        made = os.fstat(descriptor)
        if not stat.S_ISSOCK(made.st_mode):
            raise ConfigError(f"{printable(path)}: was replaced by something else: try again")
        os.chmod(f"/proc/self/fd/{descriptor}", 0o666)
        return _identity(made)
    finally:
        os.close(descriptor)


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
