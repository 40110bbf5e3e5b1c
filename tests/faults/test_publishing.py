"""Dead between any two steps, a result is complete or absent, and nothing done is done again."""

import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from io_pipeline import checkpoint
from io_pipeline.publish import publish_window
from io_pipeline.staging import read_manifest
from io_pipeline.video import scan_clip
from io_pipeline.window import BY_CPU
from tests.io_pipeline.media import make_clip
from tests.io_pipeline.publishing import FINGERPRINTS, Publishing, filled, names, plan

_STEPS = ("fsync", "rename", "mkdir", "rmdir", "unlink")


class Death(BaseException):
    """Nothing that comes after it happens."""


class Disk:
    """Every step that changes the disk for good, until a death before the ``last``.

    With ``power_loss``, what was not synced is lost as well: of files the second half, of renames
    the new name.
    """

    def __init__(self, root: Path, last: int, *, power_loss: bool) -> None:
        self.root = root
        self.dead = False
        self._left = last
        self._power_loss = power_loss
        self._synced: dict[int, tuple[int, int]] = {}
        self._renamed: list[tuple[Path, Path]] = []

    @contextmanager
    def __call__(self) -> Iterator[None]:
        for path in self.root.rglob("*"):
            self._note(os.stat(path))
        with pytest.MonkeyPatch.context() as patch:
            for name in _STEPS:
                patch.setattr(os, name, self._step(name, getattr(os, name)))
            with suppress(Death):
                yield
        if self.dead and self._power_loss:
            self._lose()

    def _step(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any, **more: Any) -> None:
            self.dead = self.dead or self._left == 0
            if self.dead:
                raise Death
            self._left -= 1
            new = name == "rename" and not os.path.isfile(arguments[1])
            call(*arguments, **more)
            if new:
                self._renamed.append((Path(arguments[0]), Path(arguments[1])))
            if name == "fsync":
                self._note(os.fstat(arguments[0]))
                folder = Path(os.readlink(f"/proc/self/fd/{arguments[0]}"))
                self._renamed = [pair for pair in self._renamed if pair[1].parent != folder]

        return step

    def _note(self, file: os.stat_result) -> None:
        self._synced[file.st_ino] = file.st_size, file.st_mtime_ns

    def _lose(self) -> None:
        for path in self.root.rglob("*"):
            file = path.stat()
            if path.is_file() and self._synced.get(file.st_ino) != (file.st_size, file.st_mtime_ns):
                os.truncate(path, file.st_size // 2)
        for old, new in reversed(self._renamed):
            new.rename(old)


def supervise(to: Publishing) -> list[int]:
    """What a run does with the clip; returns the windows that it had to translate."""
    translated: list[int] = []
    shown = read_manifest(to.staging.result) or {}
    if shown.get("fingerprints") == FINGERPRINTS["fingerprints"]:
        to.staging.remove()
        return translated
    progress = to.open()
    for window in to.windows:
        index = window.index
        if index in progress.published:
            continue
        block, maps = filled(window), (BY_CPU,) * len(window.key_numbers)
        if index in progress.translated:
            for name in ("keys", "controls", "previous_control"):
                block[name][:] = 0
            checkpoint.restore(to.staging.folder, window, block)
            publish_window(to.staging.folder, window, maps, to.encoding, block)
        else:
            if index > 0:
                checkpoint.load(checkpoint.path(to.staging.folder, index - 1))
            translated.append(index)
            to.save(index)
            to.window(index)
    to.clip(seed=2)
    return translated


def content(folder: Path) -> dict[str, Any]:
    """All files of a result; of the manifest what does not depend on the clock."""
    files: dict[str, Any] = {
        name: (folder / name).read_bytes() for name in names(folder) if (folder / name).is_file()
    }
    manifest = json.loads(files["manifest.json"])
    return files | {"manifest.json": {"seed": manifest["seed"]}}


@pytest.mark.parametrize(
    ("power_loss", "replaces"),
    [
        pytest.param(False, False, id="the process dies in a new output folder"),
        pytest.param(True, True, id="power is lost while an older result is replaced"),
    ],
)
def test_dead_between_any_two_steps(tmp_path: Path, power_loss: bool, replaces: bool) -> None:
    info = scan_clip(make_clip(tmp_path / "clip.mp4", frames=5, width=32, height=32))
    three_windows = plan(info, 64, 64, [(0,), (2,), (4,)])
    root = tmp_path / "output"
    clip, undisturbed, earlier = (
        Publishing(folder, three_windows, contact_sheet=False)
        for folder in (root, tmp_path / "undisturbed", tmp_path / "earlier")
    )
    result = clip.staging.result
    supervise(undisturbed)
    newer = content(undisturbed.staging.result)
    older = content(earlier(seed=1, fingerprints={}))
    for last in itertools.count():
        shutil.rmtree(root, ignore_errors=True)
        if replaces:
            shutil.copytree(earlier.root, root)
        disk = Disk(root, last, power_loss=power_loss)
        done: list[int] = []
        with disk():
            done = supervise(clip)
        if not disk.dead:
            assert done == [0, 1, 2]
            assert last > 60
            break
        was_shown = result.exists() and content(result) == newer
        if replaces and not result.exists():
            assert content(root / ".replaced" / "clip") == older
        elif replaces or result.exists():
            assert was_shown or content(result) == older
        kept = {
            index
            for index in range(3)
            if checkpoint.is_complete(checkpoint.path(clip.staging.folder, index))
        }
        again = supervise(clip)
        # What was on the disk is not translated again.
        assert again == ([] if was_shown else list(range(max(kept, default=-1) + 1, 3)))
        assert content(result) == newer
        assert os.listdir(root) == ["clip"]
