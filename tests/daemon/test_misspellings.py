"""What the user is told of names that are nearly those of control maps."""

from pathlib import Path

import pytest

from tests.daemon.test_arrivals import Rig


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def test_once_when_the_clip_is_there(rig: Rig) -> None:
    (rig.folder / "a.cany").mkdir()
    rig.drop("a.contrl.mp4")
    rig.complete()
    assert rig.warnings == []  # nobody knows of a clip `a`
    rig.drop("a.mp4", "a.txt")
    for _ in range(2):
        rig.complete()
        assert sorted(rig.warnings) == [
            "a.cany: no control maps by its name: did you mean a.canny?",
            "a.contrl.mp4: no control maps by its name: did you mean a.control.mp4?",
        ]


def test_not_what_is_a_clip_or_gone_or_left_alone(rig: Rig) -> None:
    (rig.folder / "a.cany").mkdir()
    rig.drop("a.hd.mp4", "a.hd.txt", "a.dept", "a.dept.part")
    rig.complete()
    (rig.folder / "a.cany").rmdir()
    rig.drop("a.mp4", "a.txt")
    rig.complete()
    assert rig.warnings == []


def test_in_a_sub_folder(tmp_path: Path) -> None:
    rig = Rig(tmp_path, recursive=True)
    (rig.folder / "b.x/a.dept").mkdir(parents=True)
    rig.drop("a.mp4", "b.x/a.mp4")
    rig.complete()
    assert rig.warnings == ["b.x/a.dept: no control maps by its name: did you mean a.depth?"]
