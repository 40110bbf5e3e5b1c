"""The folder that results go to."""

from pathlib import Path

import pytest

from daemon.output_folder import BusyError, held
from fresco_core.errors import ConfigError


def test_it_is_made_and_nothing_is_left_in_it(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "output"
    with held(folder):
        assert folder.is_dir()
    assert list(folder.iterdir()) == []


def test_a_second_run_is_turned_away_and_a_later_one_is_not(tmp_path: Path) -> None:
    with (
        held(tmp_path),
        pytest.raises(BusyError, match="another frescod writes there") as caught,
        held(tmp_path),
    ):
        pass
    assert caught.value.exit_code == 75
    with held(tmp_path):
        pass


def test_the_lock_goes_with_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="inside"), held(tmp_path):
        raise ValueError("inside")
    with held(tmp_path):
        pass


def test_a_file_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "output").write_text("")
    with pytest.raises(ConfigError, match="output: cannot be written"), held(tmp_path / "output"):
        pass


def test_a_file_system_that_cannot_be_written_is_refused() -> None:
    with pytest.raises(ConfigError, match="choose another output folder"), held(Path("/proc/x")):
        pass
