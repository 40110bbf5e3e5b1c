"""A result appears complete, in one step, or not at all."""

import errno
import json
import os
import resource
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from fresco_core.errors import FrescodError
from io_pipeline import publish
from io_pipeline.contact_sheet import ContactSheet, sample_numbers
from io_pipeline.publish import Publisher, read_manifest
from io_pipeline.video import ClipInfo, ClipWriter, scan_clip
from tests.io_pipeline.media import decode, make_clip, picture, probe

HEIGHT, WIDTH = 64, 128


@pytest.fixture
def info(tmp_path: Path) -> ClipInfo:
    """A clip of 5 frames with sound, larger than working size."""
    path = make_clip(tmp_path / "clip.mp4", frames=5, width=160, height=90, sound=1)
    return scan_clip(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "output"


def publisher(root: Path, info: ClipInfo, name: str = "clip", **arguments: Any) -> Publisher:
    return Publisher(root, name, info, working_size=(HEIGHT, WIDTH), **arguments)


def write_all(to: Publisher) -> None:
    """Every frame: its input, a control map for even ones, its negative as output."""
    for number in range(to.info.frame_count):
        frame = picture(number, WIDTH, HEIGHT)
        control = (
            np.full((HEIGHT, WIDTH), min(40 * number + 50, 255), np.uint8)
            if number % 2 == 0
            else None
        )
        if number % 2 == 0:
            to.write_key(number, 255 - frame)
        to.write_frame(frame, control, 255 - frame)


def publish_all(to: Publisher) -> Path:
    write_all(to)
    return to.finish({})


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


class TestResult:
    def test_folder(self, root: Path, info: ClipInfo) -> None:
        with publisher(root, info) as to:
            write_all(to)
            folder = to.finish({"seed": 7})
        assert folder == root / "clip"
        assert names(root) == [
            "clip",
            "clip/blend.mp4",
            "clip/comparison.mp4",
            "clip/contact_sheet.png",
            "clip/keys",
            "clip/keys/0000.png",
            "clip/keys/0002.png",
            "clip/keys/0004.png",
            "clip/manifest.json",
        ]

    def test_blend_has_the_clips_times_size_and_sound(self, root: Path, info: ClipInfo) -> None:
        with publisher(root, info) as to:
            write_all(to)
            folder = to.finish({})
        before, after = probe(info.path), probe(folder / "blend.mp4")
        assert after.times == before.times
        assert (after.width, after.height, after.rate) == (160, 90, 24)
        assert after.sound == before.sound
        expected = cv2.resize(255 - picture(3, WIDTH, HEIGHT), (160, 90))
        frame = decode(folder / "blend.mp4")[3].astype(int)
        assert np.abs(frame - expected).mean() < 5

    def test_comparison_shows_three_panels(self, root: Path, info: ClipInfo) -> None:
        with publisher(root, info) as to:
            write_all(to)
            folder = to.finish({})
        after = probe(folder / "comparison.mp4")
        assert (after.width, after.height) == (3 * WIDTH, HEIGHT)
        assert after.times == probe(info.path).times
        assert after.sound == []
        for number, frame in enumerate(decode(folder / "comparison.mp4")):
            original = picture(number, WIDTH, HEIGHT).astype(int)
            assert np.abs(frame[:, :WIDTH] - original).mean() < 5
            assert np.abs(frame[:, 2 * WIDTH :] - (255 - original)).mean() < 5
            # The control map of the last key frame is held.
            held = 40 * (number // 2 * 2) + 50
            assert np.abs(frame[:, WIDTH + 8 : 2 * WIDTH - 8].astype(int) - held).mean() < 5

    def test_keys_are_lossless_and_numbers_may_grow(self, root: Path, info: ClipInfo) -> None:
        key = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
        with publisher(root, info) as to:
            to.write_key(12345, key)
            write_all(to)
            folder = to.finish({})
        stored = cv2.imread(str(folder / "keys" / "12345.png"))
        np.testing.assert_array_equal(stored[:, :, ::-1], key)

    def test_manifest(self, root: Path, info: ClipInfo) -> None:
        with publisher(root, info) as to:
            write_all(to)
            folder = to.finish({"clip": "ä\udcff.mp4", "warnings": ["one"]})
        manifest = read_manifest(folder)
        assert manifest is not None
        assert list(manifest) == ["clip", "warnings", "seconds"]
        assert manifest["clip"] == "ä\udcff.mp4"
        assert manifest["warnings"] == ["one"]
        assert "ä" in (folder / "manifest.json").read_bytes().decode()

    def test_seconds_count_finishing_too(
        self, root: Path, info: ClipInfo, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        close = ClipWriter.close

        def slow(self: ClipWriter) -> None:
            time.sleep(0.2)
            close(self)

        monkeypatch.setattr(ClipWriter, "close", slow)
        with publisher(root, info) as to:
            write_all(to)
            start = time.monotonic()
            folder = to.finish({"seconds": {"translate": 9.5, "publish": 100.25}})
            spent = time.monotonic() - start
        manifest = read_manifest(folder)
        assert manifest is not None
        assert manifest["seconds"]["translate"] == 9.5
        # Two files, each closed slowly.
        assert 0.4 <= manifest["seconds"]["publish"] - 100.25 <= spent + 0.001

    def test_what_became_of_the_sound_is_told(self, root: Path, tmp_path: Path) -> None:
        path = make_clip(tmp_path / "a.mov", frames=2, sound=1, sound_codec="pcm_s16le")
        with publisher(root, scan_clip(path)) as to:
            write_all(to)
            manifest = read_manifest(to.finish({"warnings": ["one"]}))
        assert manifest is not None
        assert manifest["warnings"] == [
            "one",
            "sound track 1 (pcm_s16le) was encoded as AAC for mp4",
        ]

    def test_without_extras(self, root: Path, info: ClipInfo) -> None:
        with publisher(root, info, comparison=False, contact_sheet=False) as to:
            write_all(to)
            to.finish({})
        assert [name for name in names(root / "clip") if "/" not in name] == [
            "blend.mp4",
            "keys",
            "manifest.json",
        ]

    @pytest.mark.parametrize("frames", [1, 2, 3])
    @pytest.mark.parametrize("size", [(853, 479), (1, 1), (64, 96)])
    def test_short_clips_of_any_size(
        self, root: Path, tmp_path: Path, frames: int, size: tuple[int, int]
    ) -> None:
        path = make_clip(tmp_path / "a.mp4", frames=frames, width=size[0], height=size[1])
        with publisher(root, scan_clip(path), "a") as to:
            write_all(to)
            folder = to.finish({})
        after = probe(folder / "blend.mp4")
        assert (after.width, after.height) == size
        assert after.times == [Fraction(number, 24) for number in range(frames)]

    @pytest.mark.parametrize(
        "name",
        ["a b", 'it\'s "quoted" %04d', "ünïcødé 動画", "-rf", "x.mp4", os.fsdecode(b"\xff\xfe")],
    )
    def test_names(self, root: Path, info: ClipInfo, name: str) -> None:
        with publisher(root, info, name) as to:
            write_all(to)
            folder = to.finish({"name": name})
        assert [path.name for path in root.iterdir()] == [name]
        assert (read_manifest(folder) or {})["name"] == name

    @pytest.mark.parametrize("name", ["", ".", "..", "a/b", ".staging", ".replaced"])
    def test_impossible_names(self, root: Path, info: ClipInfo, name: str) -> None:
        with pytest.raises(ValueError, match="cannot be the name"):
            publisher(root, info, name)


class TestAllOrNothing:
    def test_nothing_is_seen_before_the_end(self, root: Path, info: ClipInfo) -> None:
        with publisher(root, info) as to:
            write_all(to)
            assert [path.name for path in root.iterdir()] == [".staging"]
            assert read_manifest(root / ".staging" / "clip") is None
            to.finish({})
        assert [path.name for path in root.iterdir()] == ["clip"]

    def test_abort_leaves_nothing(self, root: Path, info: ClipInfo) -> None:
        to = publisher(root, info)
        to.write_key(0, picture(0, WIDTH, HEIGHT))
        to.write_frame(picture(0, WIDTH, HEIGHT), None, picture(0, WIDTH, HEIGHT))
        to.abort()
        assert names(root) == []

    def test_an_exception_leaves_nothing(self, root: Path, info: ClipInfo) -> None:
        with pytest.raises(KeyError, match="mine"), publisher(root, info):
            {}["mine"]
        assert names(root) == []

    def test_left_unfinished(self, root: Path, info: ClipInfo) -> None:
        with publisher(root, info) as to:
            write_all(to)
        assert names(root) == []

    def test_missing_frames(self, root: Path, info: ClipInfo) -> None:
        to = publisher(root, info)
        to.write_frame(picture(0, WIDTH, HEIGHT), None, picture(0, WIDTH, HEIGHT))
        with pytest.raises(ValueError, match="1 of 5 frames"):
            to.finish({})
        assert names(root) == []

    def test_stale_staging_is_removed(self, root: Path, info: ClipInfo) -> None:
        stale = root / ".staging" / "clip"
        stale.mkdir(parents=True)
        (stale / "old.txt").touch()
        with publisher(root, info) as to:
            write_all(to)
            to.finish({})
        assert not any("old" in name for name in names(root))

    def test_an_older_result_is_replaced(self, root: Path, info: ClipInfo) -> None:
        for seed in (1, 2):
            with publisher(root, info) as to:
                write_all(to)
                to.write_key(seed, picture(0, WIDTH, HEIGHT))
                if seed == 2:
                    manifest = read_manifest(root / "clip")
                    assert manifest is not None
                    assert manifest["seed"] == 1
                to.finish({"seed": seed})
        assert [path.name for path in root.iterdir()] == ["clip"]
        manifest = read_manifest(root / "clip")
        assert manifest is not None
        assert manifest["seed"] == 2
        assert not (root / "clip" / "keys" / "0001.png").exists()

    def test_an_older_result_outlives_a_failure(self, root: Path, info: ClipInfo) -> None:
        with publisher(root, info) as to:
            write_all(to)
            to.finish({"seed": 1})
        before = names(root)
        to = publisher(root, info)
        write_all(to)
        with pytest.raises(KeyError), to:
            {}["mine"]
        assert names(root) == before

    @pytest.mark.parametrize("crash_at", [1, 2])
    def test_a_crash_while_replacing(
        self, root: Path, info: ClipInfo, monkeypatch: pytest.MonkeyPatch, crash_at: int
    ) -> None:
        """Dead before each of the two renames: the older result is there after the next start."""
        with publisher(root, info) as to:
            write_all(to)
            to.finish({"seed": 1})
        to = publisher(root, info)
        write_all(to)
        with monkeypatch.context() as patch:
            _die_at_rename(patch, crash_at)
            patch.setattr(Publisher, "abort", lambda self: None)
            with pytest.raises(KeyboardInterrupt):
                to.finish({"seed": 2})
        publisher(root, info).abort()
        assert [path.name for path in root.iterdir()] == ["clip"]
        manifest = read_manifest(root / "clip")
        assert manifest is not None
        assert manifest["seed"] == 1

    def test_two_at_once(self, root: Path, info: ClipInfo) -> None:
        with publisher(root, info, "one") as one, publisher(root, info, "two") as two:
            write_all(one)
            write_all(two)
            one.finish({})
            two.finish({})
        assert sorted(path.name for path in root.iterdir()) == ["one", "two"]


class TestOthersThings:
    """Only results are replaced: an output folder may hold whatever its user keeps there."""

    @pytest.fixture
    def theirs(self, root: Path) -> Path:
        """A folder that is no result and has the name of one."""
        (root / "clip").mkdir(parents=True)
        (root / "clip" / "thesis.txt").write_text("years of work")
        return root / "clip"

    def test_a_folder_of_the_same_name_stays(
        self, root: Path, info: ClipInfo, theirs: Path
    ) -> None:
        with pytest.raises(FrescodError, match="exists and is no result of frescod; move it"):
            publisher(root, info)
        assert names(root) == ["clip", "clip/thesis.txt"]

    @pytest.mark.parametrize("text", ["", "[]", '{"a": '])
    def test_a_manifest_that_is_none(
        self, root: Path, info: ClipInfo, theirs: Path, text: str
    ) -> None:
        (theirs / "manifest.json").write_text(text)
        with pytest.raises(FrescodError, match="is no result"):
            publisher(root, info)
        assert names(root) == ["clip", "clip/manifest.json", "clip/thesis.txt"]

    def test_a_file_stays(self, root: Path, info: ClipInfo) -> None:
        root.mkdir()
        (root / "clip").write_text("mine")
        with pytest.raises(FrescodError, match="is no result"):
            publisher(root, info)
        assert (root / "clip").read_text() == "mine"

    @pytest.mark.parametrize("broken", [False, True])
    def test_a_link_stays(self, root: Path, info: ClipInfo, tmp_path: Path, broken: bool) -> None:
        """Even one to a result: that lies where another run put it."""
        target = tmp_path / "elsewhere"
        if not broken:
            with publisher(root, info, "other") as to:
                publish_all(to).rename(target)
        root.mkdir(exist_ok=True)
        (root / "clip").symlink_to(target)
        with pytest.raises(FrescodError, match="is no result"):
            publisher(root, info)
        assert (root / "clip").readlink() == target
        assert (target / "blend.mp4").exists() is not broken

    def test_a_folder_that_came_meanwhile_stays(self, root: Path, info: ClipInfo) -> None:
        with publisher(root, info) as to:
            write_all(to)
            (root / "clip").mkdir()
            (root / "clip" / "thesis.txt").touch()
            with pytest.raises(FrescodError, match="is no result"):
                to.finish({})
        assert names(root) == ["clip", "clip/thesis.txt"]

    def test_left_overs_of_a_crash_do_not_hide_it(
        self, root: Path, info: ClipInfo, theirs: Path
    ) -> None:
        older = root / ".replaced" / "clip"
        older.mkdir(parents=True)
        (older / "manifest.json").write_text("{}")
        with pytest.raises(FrescodError, match="is no result"):
            publisher(root, info)
        assert (theirs / "thesis.txt").exists()
        assert (older / "manifest.json").exists()


class TestDurability:
    def test_the_folders_above_a_new_output_folder_are_synced(
        self, tmp_path: Path, info: ClipInfo, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        synced: list[Path] = []
        monkeypatch.setattr(publish, "sync", synced.append)
        root = tmp_path / "new" / "output"
        publisher(root, info).abort()
        assert sorted(synced) == [tmp_path, tmp_path / "new"]
        synced.clear()
        publisher(root, info).abort()
        assert synced == []

    def test_all_is_synced_before_it_is_shown(
        self, root: Path, info: ClipInfo, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        synced: list[str] = []
        monkeypatch.setattr(
            publish, "sync", lambda path: synced.append(str(path.relative_to(root)))
        )
        root.mkdir()
        with publisher(root, info) as to:
            folder = publish_all(to)
        staged = [f".staging/clip/{name}" for name in names(folder)]
        assert sorted(synced) == sorted([".", ".staging/clip", *staged])
        assert synced[-1] == "."

    @pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP])
    def test_a_file_system_that_cannot_sync_folders(
        self, root: Path, info: ClipInfo, monkeypatch: pytest.MonkeyPatch, number: int
    ) -> None:
        refused = _refuse_to_sync(monkeypatch, number, stat.S_ISDIR)
        with publisher(root, info) as to:
            folder = publish_all(to)
        assert read_manifest(folder) is not None
        assert len(refused) > 2

    def test_a_file_that_cannot_be_synced_is_an_error(
        self, root: Path, info: ClipInfo, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        _refuse_to_sync(monkeypatch, errno.EINVAL, stat.S_ISREG)
        with pytest.raises(FrescodError, match="cannot be written"), publisher(root, info) as to:
            publish_all(to)
        assert names(root) == []

    def test_a_folder_with_a_bad_disk_is_an_error(
        self, root: Path, info: ClipInfo, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        root.mkdir()
        _refuse_to_sync(monkeypatch, errno.EIO, stat.S_ISDIR)
        with pytest.raises(FrescodError, match="cannot be written"), publisher(root, info) as to:
            publish_all(to)
        assert names(root) == []


class TestDiskErrors:
    @pytest.mark.parametrize("room", [0, 20_000, 60_000])
    def test_a_full_disk_while_encoding(self, root: Path, tmp_path: Path, room: int) -> None:
        path = make_clip(tmp_path / "a.mp4", frames=200, width=160, height=96)
        to = publisher(root, scan_clip(path))
        with pytest.raises(FrescodError, match="free some space"), file_size_limit(room), to:
            publish_all(to)
        assert names(root) == []

    def test_a_full_disk_at_the_manifest(
        self, root: Path, info: ClipInfo, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(path: Path) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        to = publisher(root, info)
        write_all(to)
        monkeypatch.setattr(publish, "sync", full)
        with pytest.raises(FrescodError, match=r"No space left.*free some space"):
            to.finish({})
        assert names(root) == []

    def test_no_folder_to_write_to(self, tmp_path: Path, info: ClipInfo) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(FrescodError, match="check the output folder"):
            publisher(tmp_path / "file", info)


class TestContactSheet:
    @pytest.mark.parametrize(
        ("count", "numbers"),
        [(1, (0,)), (2, (0, 1)), (8, tuple(range(8))), (80, (0, 11, 23, 34, 45, 56, 68, 79))],
    )
    def test_rows_are_spread_evenly(self, count: int, numbers: tuple[int, ...]) -> None:
        assert sample_numbers(count) == numbers

    @pytest.mark.parametrize("size", [(512, 896), (896, 512), (64, 64), (1, 1)])
    def test_rows_and_columns(self, size: tuple[int, int]) -> None:
        sheet = ContactSheet()
        for number in range(3):
            sheet.add(number, number / 24, [_flat(size, shade) for shade in (60, 120, 240)])
        drawn = sheet.draw()
        long, short = max(size), min(size)
        scale = min(1, 320 / long)
        for shade in (60, 120):
            area = int((drawn == shade).all(axis=2).sum())
            assert area == pytest.approx(3 * round(long * scale) * round(short * scale), rel=0.02)

    def test_sheet_of_a_result(self, root: Path, info: ClipInfo) -> None:
        with publisher(root, info) as to:
            write_all(to)
            folder = to.finish({})
        sheet = cv2.imread(str(folder / "contact_sheet.png"))[:, :, ::-1]
        first = picture(0, WIDTH, HEIGHT)
        found = cv2.matchTemplate(np.ascontiguousarray(sheet), first, cv2.TM_SQDIFF_NORMED)
        assert found.min() < 1e-3


def test_no_manifest_where_there_is_none(tmp_path: Path) -> None:
    assert read_manifest(tmp_path) is None
    for text in ("", "[]", '{"a": ', "\xff"):
        (tmp_path / "manifest.json").write_bytes(text.encode("latin-1"))
        assert read_manifest(tmp_path) is None
    (tmp_path / "manifest.json").write_text(json.dumps({"a": 1}))
    assert read_manifest(tmp_path) == {"a": 1}


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Writes past ``size`` bytes fail, as on a full disk (Python ignores the signal)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def _refuse_to_sync(
    patch: pytest.MonkeyPatch, number: int, which: Callable[[int], bool]
) -> list[int]:
    """Let fsync fail for files of a kind; the list grows with every refusal."""
    refused: list[int] = []
    fsync = os.fsync

    def refuse(descriptor: int) -> None:
        if which(os.fstat(descriptor).st_mode):
            refused.append(descriptor)
            raise OSError(number, os.strerror(number))
        fsync(descriptor)

    patch.setattr(os, "fsync", refuse)
    return refused


def _die_at_rename(patch: pytest.MonkeyPatch, number: int) -> None:
    renames = iter(range(1, 100))
    rename = Path.rename

    def dying(self: Path, target: Path) -> Path:
        if next(renames) == number:
            raise KeyboardInterrupt
        return rename(self, target)

    patch.setattr(Path, "rename", dying)


def _flat(size: tuple[int, int], shade: int) -> NDArray[np.uint8]:
    return np.full((*size, 3), shade, np.uint8)
