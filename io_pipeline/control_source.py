"""Control maps that come with a clip: a video or a folder of pictures beside it.

They take the place of the detector's: `<stem>.<kind>.mp4` (also .avi, .mov, .mkv) or a folder
`<stem>.<kind>`, where the kind is that of a ControlNet, or `control` for the only one there is.
Imports neither torch nor OpenCV.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from fresco_core.errors import ClipError

ANY_KIND = "control"
KINDS = (ANY_KIND, "hed", "canny", "depth")
_NEAR = 0.7  # "cany", "contrl", "depht"; not "red"
VIDEO_SUFFIXES = frozenset({".mp4", ".avi", ".mov", ".mkv"})


@dataclass(frozen=True)
class ControlFile:
    """Control maps of all frames of a clip: ``path`` is a video or a folder of pictures.

    ``kind`` is one of `KINDS`.
    """

    kind: str
    path: Path


def control_name(name: str, *, folder: bool = False) -> tuple[str, str] | None:
    """What a name says: the clip's stem and the kind of the control maps; None where it is no such.

    ``folder``: it is a folder's. Suffix and kind count in either case. A file of such a name is
    never a clip of its own.

    >>> control_name("street.depth.MP4"), control_name("street.depth", folder=True)
    (('street', 'depth'), ('street', 'depth'))
    >>> control_name("control.mp4"), control_name("street.depth")
    (None, None)
    """
    if not folder:
        name, dot, suffix = name.rpartition(".")
        if dot + suffix.lower() not in VIDEO_SUFFIXES:
            return None
    stem, _, kind = name.rpartition(".")
    kind = kind.lower()
    return (stem, kind) if stem and kind in KINDS else None


def meant(name: str, *, folder: bool = False) -> tuple[str, str] | None:
    """Of a name that is nearly one of control maps the clip's stem, and how it would be right.

    >>> meant("street.cany", folder=True), meant("street.contrl.MP4"), meant("street.depth.mp4")
    (('street', 'street.canny'), ('street', 'street.control.MP4'), None)
    """
    suffix = ""
    if not folder:
        name, dot, suffix = name.rpartition(".")
        suffix = dot + suffix
        if suffix.lower() not in VIDEO_SUFFIXES:
            return None
    stem, _, kind = name.rpartition(".")
    if not stem or kind.lower() in KINDS:
        return None
    near = get_close_matches(kind.lower(), KINDS, 1, _NEAR)
    return (stem, f"{stem}.{near[0]}{suffix}") if near else None


def assign(
    files: Sequence[ControlFile], kinds: Sequence[str]
) -> tuple[tuple[ControlFile | None, ...], tuple[str, ...]]:
    """Which file the maps of every ControlNet come from, and what the user should know.

    Args:
        files: those beside the clip.
        kinds: of the ControlNets, in order; one that occurs twice gets the same maps twice.

    Returns:
        one entry for each ControlNet, None where its maps are to be drawn; and a sentence about
        every file that is not used.

    Raises:
        ClipError: two files are for one ControlNet, or it is not clear for which one is.
    """
    found: dict[str, ControlFile] = {}
    unused = []
    for file in files:
        kind = file.kind
        if kind == ANY_KIND and kinds:
            if len(set(kinds)) > 1:
                raise ClipError(
                    f"{file.path}: there are several ControlNets ({', '.join(kinds)}): name it by "
                    f"the kind of its maps, .{kinds[0]} in place of .{ANY_KIND}"
                )
            kind = kinds[0]
        if kind not in kinds:
            there = f"control.type is {', '.join(kinds)}" if kinds else "there is no ControlNet"
            unused.append(f"{file.path}: is not used: {there}")
        elif kind in found:
            raise ClipError(
                f"{file.path} and {found[kind].path}: are control maps of one kind: keep one"
            )
        else:
            found[kind] = file
    return tuple(found.get(kind) for kind in kinds), tuple(unused)
