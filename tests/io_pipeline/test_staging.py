"""The staging folder is the checkpoint, and what has a result's name is only ever replaced by one.

Crashes between any two steps are in `tests/faults/test_publishing.py`.
"""

import errno
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from fresco_core.errors import FrescodError
from fresco_core.keyframes import Batch
from io_pipeline import checkpoint, staging
from io_pipeline.staging import Progress, Staging, read_manifest
from io_pipeline.video import scan_clip
from tests.io_pipeline.media import make_clip
from tests.io_pipeline.publishing import IDENTITY, Publishing, names, plan

NOTHING = Progress(frozenset(), frozenset())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "output"


@pytest.fixture
def publishing(root: Path, tmp_path: Path) -> Publishing:
    """A clip of four windows."""
    info = scan_clip(make_clip(tmp_path / "clip.mp4", frames=9))
    return Publishing(root, plan(info, 64, 64, [(0, 2), (4,), (6,), (8,)]))


def progress(published: str, translated: str) -> Progress:
    return Progress(frozenset(map(int, published)), frozenset(map(int, translated)))


class TestProgress:
    def test_what_is_done_is_not_done_again(self, publishing: Publishing) -> None:
        assert publishing.open() == NOTHING
        publishing.save(0)
        assert publishing.open() == progress("", "0")
        publishing.window(0)
        assert publishing.open() == progress("0", "0")
        publishing.save(1)  # the carry of window 0 is not needed any more
        assert publishing.open() == progress("0", "1")
        publishing.save(2)
        publishing.window(2)
        assert publishing.open() == progress("02", "12")

    def test_the_batches_of_published_windows_are_known(self, publishing: Publishing) -> None:
        publishing.open()
        publishing.save(0)
        publishing.window(0)
        assert publishing.open().batches == {0: (Batch((0, 2), ()),)}
        (publishing.staging.folder / "windows/0000/batches.json").write_text("{")
        assert publishing.open().batches == {0: ()}

    def test_all_done_but_shown(self, publishing: Publishing) -> None:
        publishing.open()
        for index in range(4):
            publishing.save(index)
            publishing.window(index)
        assert publishing.open() == progress("0123", "3")
        publishing.clip()

    def test_a_window_whose_carry_is_lost_is_done_again(self, publishing: Publishing) -> None:
        publishing.open()
        for index in range(3):
            publishing.save(index)
            publishing.window(index)
        checkpoint.path(publishing.staging.folder, 2).unlink()
        # Nothing is left to go on from: checkpoint 1 went when 2 was there.
        assert publishing.open() == NOTHING
        assert names(publishing.staging.folder / "windows") == []

    def test_only_what_has_to_be_is_done_again(self, publishing: Publishing) -> None:
        publishing.open()
        publishing.save(0)
        publishing.window(1)  # published sooner than its checkpoint was written
        publishing.window(0)
        assert publishing.open() == progress("0", "0")

    def test_a_damaged_checkpoint_is_none(self, publishing: Publishing) -> None:
        publishing.open()
        publishing.save(0)
        publishing.save(1)
        os.truncate(checkpoint.path(publishing.staging.folder, 1), 1000)
        assert publishing.open() == progress("", "0")

    def test_left_overs_of_a_crash_are_removed(self, publishing: Publishing) -> None:
        publishing.open()
        folder = publishing.staging.folder
        (folder / "windows" / "0000.tmp" / "row.png.tmp").mkdir(parents=True)
        for name in ("checkpoints/0000.safetensors.tmp", "result/keys/0000.png.tmp", "x.tmp"):
            (folder / name).touch()
        assert publishing.open() == NOTHING
        assert not any("tmp" in name for name in names(folder))

    @pytest.mark.parametrize(
        "other", [IDENTITY | {"clip": "d0d0"}, {"clip": "c0ffee"}, IDENTITY | {"torch": "3"}, {}]
    )
    def test_another_identity_begins_anew(
        self, publishing: Publishing, other: dict[str, str]
    ) -> None:
        publishing.open()
        publishing.save(0)
        publishing.window(0)
        assert publishing.staging.open(other) == NOTHING
        assert publishing.open() == NOTHING

    def test_fresh(self, publishing: Publishing) -> None:
        publishing.open()
        publishing.save(0)
        assert publishing.open(fresh=True) == NOTHING
        assert publishing.open() == NOTHING

    def test_what_is_half_removed_is_not_continued(
        self, publishing: Publishing, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        publishing.open()
        publishing.save(0)
        publishing.window(0)

        def die_half_way(path: Path) -> None:
            (path / "windows" / "0000" / "blend.mp4").unlink()
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(staging, "remove", die_half_way)
            with pytest.raises(KeyboardInterrupt):
                publishing.open(fresh=True)
        assert publishing.open() == NOTHING

    @pytest.mark.parametrize("text", ["", "[]", '{"a": ', "\xff"])
    def test_an_identity_that_cannot_be_read(self, publishing: Publishing, text: str) -> None:
        publishing.open()
        publishing.save(0)
        (publishing.staging.folder / "identity.json").write_text(text, encoding="latin-1")
        assert publishing.open() == NOTHING

    def test_a_stale_folder_of_an_older_version(self, publishing: Publishing) -> None:
        publishing.staging.folder.mkdir(parents=True)
        (publishing.staging.folder / "blend.mp4").touch()
        publishing()
        assert [path.name for path in publishing.root.iterdir()] == ["clip"]


class TestFolders:
    def test_remove_leaves_nothing(self, publishing: Publishing) -> None:
        publishing.open()
        publishing.save(0)
        publishing.staging.remove()
        assert names(publishing.root) == []
        publishing.staging.remove()

    def test_nothing_is_seen_before_the_end(self, publishing: Publishing) -> None:
        publishing.open()
        publishing.all_windows()
        assert [path.name for path in publishing.root.iterdir()] == [".staging"]
        assert read_manifest(publishing.staging.folder) is None
        publishing.clip()
        assert [path.name for path in publishing.root.iterdir()] == ["clip"]

    def test_the_folders_above_a_new_output_folder_are_synced(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        synced: list[Path] = []
        monkeypatch.setattr(staging, "sync", synced.append)
        root = tmp_path / "new" / "output"
        Staging(root, "clip").open(IDENTITY)
        assert {tmp_path, tmp_path / "new", root, root / ".staging"} <= set(synced)
        synced.clear()
        Staging(root, "clip").open(IDENTITY)
        assert synced == []

    @pytest.mark.parametrize("name", ["", ".", "..", "a/b", ".staging", ".replaced"])
    def test_impossible_names(self, root: Path, name: str) -> None:
        with pytest.raises(ValueError, match="cannot be the name"):
            Staging(root, name)

    def test_no_folder_to_write_to(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(FrescodError, match="check the output folder"):
            Staging(tmp_path / "file", "clip").open(IDENTITY)

    def test_a_file_system_that_cannot_sync_folders(
        self, publishing: Publishing, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fsync = os.fsync

        def refuse(descriptor: int) -> None:
            if stat.S_ISDIR(os.fstat(descriptor).st_mode):
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
            fsync(descriptor)

        monkeypatch.setattr(os, "fsync", refuse)
        assert read_manifest(publishing()) is not None


class TestOlderResults:
    def test_it_is_replaced(self, publishing: Publishing) -> None:
        older = publishing(seed=1) / "older.txt"
        older.touch()
        publishing.open()
        publishing.all_windows()
        assert (read_manifest(publishing.staging.result) or {})["seed"] == 1
        publishing.clip(seed=2)
        assert [path.name for path in publishing.root.iterdir()] == ["clip"]
        assert (read_manifest(publishing.staging.result) or {})["seed"] == 2
        assert not older.exists()

    def test_it_outlives_a_failure(self, publishing: Publishing) -> None:
        publishing(seed=1)
        before = names(publishing.root)
        publishing.open()
        publishing.window(0)
        publishing.staging.remove()
        assert names(publishing.root) == before

    @pytest.mark.parametrize("call", ["open", "remove"])
    def test_it_comes_back_after_a_crash(self, publishing: Publishing, call: str) -> None:
        publishing(seed=1)
        (publishing.root / ".replaced").mkdir()
        publishing.staging.result.rename(publishing.root / ".replaced" / "clip")
        publishing.open() if call == "open" else publishing.staging.remove()
        assert (read_manifest(publishing.staging.result) or {})["seed"] == 1
        assert not (publishing.root / ".replaced").exists()

    def test_two_at_once(self, publishing: Publishing) -> None:
        other = Publishing(publishing.root, publishing.plan, "other")
        publishing.open()
        other.open()
        publishing.all_windows()
        other.all_windows()
        publishing.clip()
        other.clip()
        assert sorted(path.name for path in publishing.root.iterdir()) == ["clip", "other"]


class TestFewerFrames:
    """A look at a few frames does not cost a night's work."""

    @pytest.mark.parametrize(
        ("there", "new"),
        [("all", "keys"), ("all", "preview"), ("keys", "preview"), (None, "preview")],
    )
    def test_do_not_replace_more(self, publishing: Publishing, there: str | None, new: str) -> None:
        publishing(**({"frames": there} if there else {}))
        with pytest.raises(FrescodError, match=rf'clip: has all .*"{new}" would replace') as caught:
            publishing.open(frames=new)
        assert "--force" in str(caught.value)
        assert [path.name for path in publishing.root.iterdir()] == ["clip"]
        publishing.open(frames=new, fresh=True)

    @pytest.mark.parametrize(
        ("there", "new"), [("all", "keys"), ("all", "preview"), ("keys", "preview")]
    )
    def test_do_not_throw_away_what_is_half_made(
        self, publishing: Publishing, there: str, new: str
    ) -> None:
        publishing.open(frames=there)
        publishing.save(0)
        folder = publishing.staging.folder
        with pytest.raises(FrescodError, match=rf'clip: is half made, .*"{new}" asks') as caught:
            publishing.staging.open({**IDENTITY, "settings": "0f0f"}, frames=new)
        assert "--force" in str(caught.value)
        assert publishing.open(frames=there) == progress("", "0")
        publishing.open(frames=new, fresh=True)
        assert publishing.open(frames=new) == NOTHING
        assert (folder / "frames").read_text() == f"{new}\n"

    @pytest.mark.parametrize("saved", [False, True])
    def test_may_begin_where_nothing_is_lost(self, publishing: Publishing, saved: bool) -> None:
        publishing.open(frames="preview" if saved else "all")
        if saved:
            publishing.save(0)
        publishing.staging.open(
            {**IDENTITY, "settings": "0f0f"}, frames="keys" if saved else "preview"
        )

    @pytest.mark.parametrize(("there", "new"), [("preview", "keys"), ("keys", "all")])
    def test_are_replaced_by_more(self, publishing: Publishing, there: str, new: str) -> None:
        publishing(frames=there)
        publishing.open(frames=there)
        publishing.open(frames=new)


class TestOthersThings:
    """Only results are replaced: an output folder may hold whatever its user keeps there."""

    @pytest.fixture
    def theirs(self, root: Path) -> Path:
        """A folder that is no result and has the name of one."""
        (root / "clip").mkdir(parents=True)
        (root / "clip" / "thesis.txt").write_text("years of work")
        return root / "clip"

    def test_a_folder_of_the_same_name_stays(self, root: Path, theirs: Path) -> None:
        with pytest.raises(FrescodError, match="exists and is no result of frescod; move it"):
            Staging(root, "clip").open(IDENTITY)
        assert names(root) == ["clip", "clip/thesis.txt"]

    @pytest.mark.parametrize("text", ["", "[]", '{"a": '])
    def test_a_manifest_that_is_none(self, root: Path, theirs: Path, text: str) -> None:
        (theirs / "manifest.json").write_text(text)
        with pytest.raises(FrescodError, match="is no result"):
            Staging(root, "clip").open(IDENTITY)
        assert names(root) == ["clip", "clip/manifest.json", "clip/thesis.txt"]

    def test_a_file_stays(self, root: Path) -> None:
        root.mkdir()
        (root / "clip").write_text("mine")
        with pytest.raises(FrescodError, match="is no result"):
            Staging(root, "clip").open(IDENTITY)
        assert (root / "clip").read_text() == "mine"

    @pytest.mark.parametrize("broken", [False, True])
    def test_a_link_stays(self, publishing: Publishing, tmp_path: Path, broken: bool) -> None:
        """Even one to a result: that lies where another run put it."""
        target = tmp_path / "elsewhere"
        root = publishing.root
        if not broken:
            Publishing(root, publishing.plan, "other")().rename(target)
        root.mkdir(exist_ok=True)
        (root / "clip").symlink_to(target)
        with pytest.raises(FrescodError, match="is no result"):
            publishing.open()
        assert (root / "clip").readlink() == target
        assert (target / "blend.mp4").exists() is not broken

    def test_a_folder_that_came_meanwhile_stays(self, publishing: Publishing) -> None:
        publishing.open()
        publishing.save(3)
        publishing.all_windows()
        theirs = publishing.root / "clip"
        theirs.mkdir()
        (theirs / "thesis.txt").touch()
        with pytest.raises(FrescodError, match="is no result"):
            publishing.clip()
        assert names(theirs) == ["thesis.txt"]
        # Once it is moved away, the work that was done counts.
        theirs.rename(publishing.root / "theirs")
        assert publishing.open().published == {0, 1, 2, 3}
        publishing.clip()
        assert read_manifest(theirs) is not None

    def test_left_overs_of_a_crash_do_not_hide_it(self, root: Path, theirs: Path) -> None:
        older = root / ".replaced" / "clip"
        older.mkdir(parents=True)
        (older / "manifest.json").write_text("{}")
        with pytest.raises(FrescodError, match="is no result"):
            Staging(root, "clip").open(IDENTITY)
        assert (theirs / "thesis.txt").exists()
        assert (older / "manifest.json").exists()


def test_no_manifest_where_there_is_none(tmp_path: Path) -> None:
    assert read_manifest(tmp_path) is None
    for text in ("", "[]", '{"a": ', "\xff"):
        (tmp_path / "manifest.json").write_bytes(text.encode("latin-1"))
        assert read_manifest(tmp_path) is None
    (tmp_path / "manifest.json").write_text(json.dumps({"a": 1}))
    assert read_manifest(tmp_path) == {"a": 1}


class TestLinks:
    """What they lead to is somebody's own: nothing is written, moved or removed there."""

    @pytest.fixture
    def elsewhere(self, tmp_path: Path) -> Iterator[Path]:
        """A folder that looks like all that could be there; nothing of it may change."""
        folder = tmp_path / "elsewhere"
        for name in ("a/keys", "a/windows", "a/checkpoints", "a/result"):
            (folder / name).mkdir(parents=True)
        for file in (folder / "a/identity.json", folder / "a/manifest.json"):
            file.write_text(json.dumps(IDENTITY))
        (folder / "a/windows/x.tmp").touch()

        def content() -> dict[str, bytes]:
            files = sorted(path for path in folder.rglob("*") if path.is_file())
            return {str(path.relative_to(folder)): path.read_bytes() for path in files}

        before = content()
        yield folder
        assert content() == before

    @pytest.mark.parametrize("name", [".staging", ".replaced"])
    def test_folders_of_ours(self, root: Path, elsewhere: Path, name: str) -> None:
        root.mkdir()
        (root / name).symlink_to(elsewhere)
        for act in (lambda: Staging(root, "a").open(IDENTITY), Staging(root, "a").remove):
            with pytest.raises(FrescodError, match=f"{name}: is a symbolic link; remove it"):
                act()

    @pytest.mark.parametrize("name", [".staging", ".replaced"])
    def test_one_job(self, root: Path, elsewhere: Path, name: str) -> None:
        (root / name).mkdir(parents=True)
        (root / name / "a").symlink_to(elsewhere / "a")
        folder = Staging(root, "a")
        assert folder.open(IDENTITY) == NOTHING
        assert not folder.folder.is_symlink()
        assert not os.path.lexists(root / "a")
        folder.remove()
        assert os.listdir(root) == []

    @pytest.mark.parametrize("name", ["windows", "identity.json", "result"])
    def test_within_one(self, root: Path, elsewhere: Path, name: str) -> None:
        folder = Staging(root, "a")
        folder.open(IDENTITY)
        (folder.folder / name).rename(root / "old")
        (folder.folder / name).symlink_to(elsewhere / "a" / name)
        folder.open(IDENTITY)
        assert not [path for path in folder.folder.rglob("*") if path.is_symlink()]
