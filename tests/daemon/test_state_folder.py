import os
import stat
from pathlib import Path

import pytest

from daemon.state_folder import owned
from fresco_core.errors import ConfigError


def test_one_owner_whose_number_the_second_names(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "state"
    owner = f"the frescod of process {os.getpid()} uses it"
    with owned(folder), pytest.raises(ConfigError, match=owner), owned(folder):
        pass
    with owned(folder):
        pass


def test_everyone_may_enter_one_that_is_made(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        with owned(tmp_path / "state"):
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o755
    (tmp_path / "state").chmod(0o700)  # somebody's wish
    with owned(tmp_path / "state"):
        assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    why = r"file/state: cannot be written"
    with pytest.raises(ConfigError, match=why), owned(tmp_path / "file" / "state"):
        pass


def test_a_lock_that_is_a_link(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("somebody's own")
    (tmp_path / "state").mkdir()
    (tmp_path / "state/lock").symlink_to(tmp_path / "file")
    with pytest.raises(ConfigError, match="cannot be written"), owned(tmp_path / "state"):
        pass
    assert (tmp_path / "file").read_text() == "somebody's own"
