import fcntl
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.open_for_writing import any_open_for_writing, open_for_writing


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "a.mp4"
    file.write_bytes(b"x")
    return file


def test_a_writer_is_noticed_until_it_closes(file: Path) -> None:
    assert open_for_writing(str(file)) is False
    with file.open("ab"):
        assert open_for_writing(str(file)) is True
    assert open_for_writing(str(file)) is False


def test_one_in_a_folder(file: Path) -> None:
    (file.parent / "b.png").touch()
    assert any_open_for_writing(str(file.parent)) is False
    with (file.parent / ".hidden").open("wb"):
        assert any_open_for_writing(str(file.parent)) is False
        with file.open("ab"):
            assert any_open_for_writing(str(file.parent)) is True


def test_readers_are_no_writers(file: Path) -> None:
    with file.open("rb"):
        assert open_for_writing(str(file)) is False


def test_nothing_stays_open_and_nothing_is_leased(file: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        open_for_writing(str(file))
    assert len(os.listdir("/proc/self/fd")) == before
    # With a lease left behind this would wait for the kernel's lease-break time.
    os.close(os.open(file, os.O_WRONLY | os.O_NONBLOCK))


def test_a_writer_that_comes_in_between_ends_nobody(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel tells of it with a signal: the usual one, SIGIO, would end this process."""
    received: list[int] = []
    signals = (signal.SIGIO, signal.SIGURG)
    before = [
        signal.signal(number, lambda number, _: received.append(number)) for number in signals
    ]
    real = fcntl.fcntl

    def interrupted(descriptor: int, command: int, argument: int) -> int:
        answer = real(descriptor, command, argument)
        if (command, argument) == (fcntl.F_SETLEASE, fcntl.F_RDLCK):
            with pytest.raises(BlockingIOError):
                os.open(file, os.O_WRONLY | os.O_NONBLOCK)
        return answer

    try:
        with monkeypatch.context() as patch:
            patch.setattr(fcntl, "fcntl", interrupted)
            assert open_for_writing(str(file)) is False
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)
    assert received == [signal.SIGURG]


def test_absent(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        open_for_writing(str(tmp_path / "absent"))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be somebody else")
class TestFilesOfOthers:
    @pytest.fixture
    def others_file(self) -> Iterator[Path]:
        folder = Path(tempfile.mkdtemp())  # pytest's are closed to others
        folder.chmod(0o755)
        file = folder / "a.mp4"
        file.write_bytes(b"x")
        os.seteuid(65534)
        yield file
        os.seteuid(0)
        shutil.rmtree(folder)

    def test_nobody_tells(self, others_file: Path) -> None:
        assert open_for_writing(str(others_file)) is None

    def test_they_may_be_closed_to_us(self, others_file: Path) -> None:
        os.seteuid(0)
        others_file.chmod(0o600)
        os.seteuid(65534)
        with pytest.raises(PermissionError):
            open_for_writing(str(others_file))
