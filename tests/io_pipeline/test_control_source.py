"""Names of control files, and which ControlNet each is for."""

import subprocess
import sys
from pathlib import Path

import pytest

from fresco_core.errors import ClipError
from io_pipeline.control_source import ControlFile, assign, control_name, meant

DEPTH = ControlFile("depth", Path("a.depth.mp4"))
HED = ControlFile("hed", Path("a.hed"))
ANY = ControlFile("control", Path("a.control.mov"))


@pytest.mark.parametrize(
    ("name", "folder", "found"),
    [
        ("a.depth.mp4", False, ("a", "depth")),
        ("a.b.Canny.MKV", False, ("a.b", "canny")),
        ("a.control.mov", False, ("a", "control")),
        ("a.hed", True, ("a", "hed")),
        ("a.hed", False, None),
        ("a.hed.mp4", True, None),
        ("a.hed.png", False, None),
        ("a.normal.mp4", False, None),
        ("control.mp4", False, None),
        (".depth.mp4", False, None),
        ("depth", True, None),
        ("mp4", False, None),
    ],
)
def test_a_name_tells_clip_and_kind(name: str, folder: bool, found: tuple[str, str] | None) -> None:
    assert control_name(name, folder=folder) == found


@pytest.mark.parametrize(
    ("name", "folder", "found"),
    [
        ("a.cany", True, ("a", "a.canny")),
        ("a.b.Dept", True, ("a.b", "a.b.depth")),
        ("a.contrl.MP4", False, ("a", "a.control.MP4")),
        ("a.canny", True, None),
        ("a.Canny.mp4", False, None),
        ("a.cany", False, None),
        ("a.cany.txt", False, None),
        ("a.red.mp4", False, None),
        ("cany", True, None),
        ("cany.mp4", False, None),
        (".cany", True, None),
    ],
)
def test_what_a_name_nearly_is(name: str, folder: bool, found: tuple[str, str] | None) -> None:
    assert meant(name, folder=folder) == found


def test_every_controlnet_gets_the_file_of_its_kind() -> None:
    assert assign([DEPTH, HED], ["hed", "canny", "depth"]) == ((HED, None, DEPTH), ())
    assert assign([DEPTH], ["depth", "depth"]) == ((DEPTH, DEPTH), ())
    assert assign([], ["hed"]) == ((None,), ())


def test_a_file_of_no_kind_is_for_the_only_controlnet() -> None:
    assert assign([ANY], ["canny"]) == ((ANY,), ())
    with pytest.raises(ClipError, match=r"a\.control\.mov: .*hed, depth.*\.hed in place of"):
        assign([ANY], ["hed", "depth"])


def test_files_for_no_controlnet_are_told_of() -> None:
    assert assign([DEPTH], ["hed"]) == (
        (None,),
        ("a.depth.mp4: is not used: control.type is hed",),
    )
    assert assign([DEPTH, ANY], []) == (
        (),
        (
            "a.depth.mp4: is not used: there is no ControlNet",
            "a.control.mov: is not used: there is no ControlNet",
        ),
    )


def test_two_files_for_one_controlnet_are_refused() -> None:
    with pytest.raises(ClipError, match=r"a\.control\.mov and a\.depth\.mp4: .*keep one"):
        assign([DEPTH, ANY], ["depth"])


def test_the_supervisor_can_ask_it() -> None:
    code = (
        "import sys, io_pipeline.control_source;"
        "assert not {'torch', 'cv2', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
