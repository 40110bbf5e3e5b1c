from pathlib import Path

import pytest

from daemon.config import Layer, merge
from daemon.places import Places
from fresco_core.errors import ConfigError


def places(**values: object) -> Places:
    layer = Layer("test", {key.replace("__", "."): value for key, value in values.items()})
    return Places.of(merge(layer))


def test_all_follow_from_the_output_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = places(output__folder="out")
    assert found.inbox == tmp_path / "inbox"
    assert found.output == tmp_path / "out"
    assert found.store == tmp_path / "out/.frescod/jobs.sqlite"
    assert found.socket == tmp_path / "out/.frescod/control.sock"


def test_each_can_be_named() -> None:
    found = places(service__state="/var/lib/x", service__socket="/run/x.sock", inbox__folder="/in")
    assert found.store == Path("/var/lib/x/jobs.sqlite")
    assert found.socket == Path("/run/x.sock")
    assert found.inbox == Path("/in")


@pytest.mark.parametrize(
    ("values", "recursive", "key"),
    [
        ({"output__folder": "/in"}, False, "output.folder"),
        ({"output__folder": "/in/out"}, True, "output.folder"),
        ({"output__folder": "/out", "service__state": "/in/state"}, True, "service.state"),
        ({"output__folder": "/in/out"}, False, ""),
        ({"inbox__folder": "/out/in", "output__folder": "/out"}, False, "inbox.folder"),
        ({"output__folder": "/inner"}, True, ""),
    ],
)
def test_results_are_not_taken_for_clips(
    values: dict[str, object], recursive: bool, key: str
) -> None:
    found = places(**{"inbox__folder": "/in", **values})
    if not key:
        found.check(recursive)
    else:
        with pytest.raises(ConfigError, match=f"{key}: .* lies in the"):
            found.check(recursive)


def test_a_state_folder_that_is_a_link(tmp_path: Path) -> None:
    """In the output folder anybody may have put it there; one that is named is meant."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out/.frescod").symlink_to(tmp_path)
    with pytest.raises(ConfigError, match=r"is a symbolic link: remove it, or set service.state"):
        places(output__folder=str(tmp_path / "out")).check(recursive=False)
    (tmp_path / "state").symlink_to(tmp_path)
    named = {"output__folder": str(tmp_path / "out"), "service__state": str(tmp_path / "state")}
    places(**named).check(recursive=False)
