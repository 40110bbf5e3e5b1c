from pathlib import Path

import pytest

from daemon.kept_prompt import KeptPrompt
from fresco_core.errors import ConfigError


def test_the_same_prompt_is_the_same_file(tmp_path: Path) -> None:
    first, same, other = (KeptPrompt.of(text, tmp_path) for text in ("caf\udce9", "caf\udce9", "b"))
    assert first.file == same.file != other.file
    for each in (first, same, other):
        each.write()
    assert first.file.read_bytes() == b"caf\xe9"
    assert len(list(first.file.parent.iterdir())) == 2


def test_of_a_relative_folder_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert KeptPrompt.of("a", Path("out")) == KeptPrompt.of("a", tmp_path / "out")


def test_where_none_can_be_kept(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be written"):
        KeptPrompt.of("a", tmp_path / "file").write()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / ".frescod").symlink_to("elsewhere")
    with pytest.raises(ConfigError, match="is a symbolic link"):
        KeptPrompt.of("a", tmp_path).write()
    assert not list((tmp_path / "elsewhere").iterdir())
