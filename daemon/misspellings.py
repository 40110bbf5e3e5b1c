"""Names in the inbox that are nearly those of control maps."""

import os
from collections.abc import Callable, Sequence

from daemon.folder_scan import PROMPT_SUFFIX, composed, is_clip, stem_of, suffix_of
from daemon.printable import printable
from io_pipeline.control_source import meant


def misspelt(name: str, right: str) -> str:
    """What the user is told of it."""
    return f"{printable(name)}: no control maps by its name: did you mean {printable(right)}?"


class Misspellings:
    """Tells of each once, when the clip that it may belong to is there.

    Args:
        root: the inbox.
        group: the names of all files of a clip by the folder and stem that they have in common.
        on_warning: one line for the user.
    """

    def __init__(
        self,
        root: str,
        group: Callable[[str], Sequence[str]],
        on_warning: Callable[[str], None],
    ) -> None:
        self._root = root
        self._group = group
        self._warn = on_warning
        self._found: dict[str, tuple[str, str, str]] = {}
        self._told: set[str] = set()

    def see(self, name: str, *, folder: bool = False) -> None:
        """Something is there, by its name relative to the inbox."""
        above, slash, file = name.rpartition("/")
        if name not in self._told and (found := meant(file, folder=folder)):
            clip, own = (above + slash + composed(stem) for stem in (found[0], stem_of(file)))
            self._found[name] = clip, "" if folder else own, found[1]

    def tell(self) -> None:
        """Tell of those whose clips are there; one with a prompt of its own is a clip."""
        for name, (clip, own, right) in list(self._found.items()):
            if not os.path.lexists(os.path.join(self._root, name)):
                del self._found[name]
            elif any(map(is_clip, self._group(clip))) and not self._has_prompt(own):
                del self._found[name]
                self._told.add(name)
                self._warn(misspelt(name, right))

    def _has_prompt(self, group: str) -> bool:
        return any(suffix_of(name) == PROMPT_SUFFIX for name in self._group(group))
