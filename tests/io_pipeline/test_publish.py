"""Windows published in any order are the clip's result, complete, in one step."""

import itertools
import os
import pickle
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from fresco_core.errors import FrescodError
from io_pipeline import publish
from io_pipeline.publish import Encoding, publish_clip, publish_window, read_manifest
from io_pipeline.staged import window_folder
from io_pipeline.video import ClipInfo, scan_clip
from io_pipeline.writing import DiskFullError
from tests.io_pipeline.media import decode, difference, make_clip, picture, probe
from tests.io_pipeline.publishing import FINGERPRINTS, Publishing, filled, maps, names, plan, shade

HEIGHT, WIDTH = 64, 128


@pytest.fixture
def info(tmp_path: Path) -> ClipInfo:
    """A clip of 7 frames with sound, larger than working size."""
    path = make_clip(tmp_path / "clip.mp4", frames=7, width=160, height=90, sound=1)
    return scan_clip(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "output"


def publishing(root: Path, info: ClipInfo, name: str = "clip", **arguments: Any) -> Publishing:
    """Three windows: frames 0 to 2, 3, and 4 to 6; a key frame in the middle of the last."""
    last = info.frame_count - 1
    keys = [(0, 2), (3,), (5, 6)] if last == 6 else [(0,)] if last == 0 else [(0, last)]
    return Publishing(root, plan(info, HEIGHT, WIDTH, keys), name, **arguments)


class TestResult:
    def test_folder(self, root: Path, info: ClipInfo) -> None:
        folder = publishing(root, info)()
        assert folder == root / "clip"
        keys = [f"clip/keys/{number:04d}.png" for number in (0, 2, 3, 5, 6)]
        assert names(root) == [
            "clip",
            "clip/blend.mp4",
            "clip/comparison.mp4",
            "clip/contact_sheet.png",
            "clip/keys",
            *keys,
            "clip/manifest.json",
        ]

    @pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
    def test_in_any_order(self, root: Path, info: ClipInfo, order: tuple[int, ...]) -> None:
        in_order, other = publishing(root, info), publishing(root, info, "other")
        in_order()
        other.open()
        for index in order:
            other.window(index)
        other.clip()
        for name in names(root / "clip"):
            if (root / "clip" / name).is_file() and name != "manifest.json":
                assert (root / "other" / name).read_bytes() == (root / "clip" / name).read_bytes()

    def test_blend_has_the_clips_times_size_and_sound(self, root: Path, info: ClipInfo) -> None:
        folder = publishing(root, info)()
        before, after = probe(info.path), probe(folder / "blend.mp4")
        assert after.times == before.times
        assert (after.width, after.height, after.rate) == (160, 90, 24)
        assert after.sound == before.sound
        for number, frame in enumerate(decode(folder / "blend.mp4")):
            expected = cv2.resize(255 - picture(number, WIDTH, HEIGHT), (160, 90))
            assert difference(frame, expected) < 5

    def test_comparison_shows_three_panels(self, root: Path, info: ClipInfo) -> None:
        folder = publishing(root, info)()
        after = probe(folder / "comparison.mp4")
        assert (after.width, after.height) == (3 * WIDTH, HEIGHT)
        assert after.times == probe(info.path).times
        assert after.sound == []
        held = [0, 0, 2, 3, 3, 5, 6]
        for number, frame in enumerate(decode(folder / "comparison.mp4")):
            original = picture(number, WIDTH, HEIGHT)
            assert difference(frame[:, :WIDTH], original) < 5
            assert difference(frame[:, 2 * WIDTH :], 255 - original) < 5
            # The control map of the latest key frame is held, from one window into the next.
            control = frame[:, WIDTH + 8 : 2 * WIDTH - 8].astype(int)
            assert np.abs(control - shade(held[number])).mean() < 5

    def test_without_controlnet_the_middle_is_black(self, root: Path, info: ClipInfo) -> None:
        folder = publishing(root, info, controls=0)()
        for frame in decode(folder / "comparison.mp4"):
            assert frame[:, WIDTH + 8 : 2 * WIDTH - 8].mean() < 3

    def test_of_several_control_maps_the_brightest_is_shown(
        self, root: Path, info: ClipInfo
    ) -> None:
        to = publishing(root, info, controls=2)
        to.open()
        window = to.windows[2]
        block = filled(window)
        for key, side in enumerate(maps(window)):
            block["controls"][side, key, 0, :, : WIDTH // 2] = 0
            block["controls"][side, key, 1, :, WIDTH // 2 :] = 0
        block["previous_control"][0] = 0
        for _, (_, control_HWC, _) in publish._panels(window, maps(window), block):
            assert control_HWC.min() == control_HWC.max() > 0

    def test_keys_are_lossless_and_numbers_may_grow(self, root: Path, info: ClipInfo) -> None:
        to = publishing(root, info)
        to.open()
        long = replace(to.windows[2], first_frame=12345, key_numbers=(12347, 12348))
        block = filled(to.windows[2])
        block["keys"][:] = np.random.default_rng(0).integers(0, 256, block["keys"].shape)
        publish_window(to.staging.folder, long, maps(long), to.encoding, block)
        for number, key_HWC in zip((12347, 12348), block["keys"][1:], strict=True):
            stored = cv2.imread(str(to.staging.folder / "result" / "keys" / f"{number}.png"))
            np.testing.assert_array_equal(stored[:, :, ::-1], key_HWC)

    def test_manifest(self, root: Path, info: ClipInfo) -> None:
        to = publishing(root, info)
        folder = to(clip="ä\udcff.mp4", warnings=["one"])
        manifest = read_manifest(folder)
        assert manifest is not None
        assert list(manifest) == ["fingerprints", "clip", "warnings", "seconds"]
        assert manifest["clip"] == "ä\udcff.mp4"
        assert manifest["warnings"] == ["one"]
        assert "ä" in (folder / "manifest.json").read_bytes().decode()

    def test_seconds_count_this_too(
        self, root: Path, info: ClipInfo, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        join = publish.join

        def slow(*arguments: Any, **more: Any) -> list[str]:
            time.sleep(0.2)
            return join(*arguments, **more)

        monkeypatch.setattr(publish, "join", slow)
        to = publishing(root, info)
        to.open()
        to.all_windows()
        start = time.monotonic()
        to.clip(seconds={"translate": 9.5, "publish": 100.25})
        spent = time.monotonic() - start
        manifest = read_manifest(root / "clip")
        assert manifest is not None
        assert manifest["seconds"]["translate"] == 9.5
        # Two files, each joined slowly.
        assert 0.4 <= manifest["seconds"]["publish"] - 100.25 <= spent + 0.001

    def test_what_became_of_the_sound_is_told(self, root: Path, tmp_path: Path) -> None:
        path = make_clip(tmp_path / "a.mov", frames=2, sound=1, sound_codec="pcm_s16le")
        to = publishing(root, scan_clip(path))
        to.open()
        to.all_windows()
        told = to.clip(warnings=["one"])
        assert told == ("sound track 1 (pcm_s16le) was encoded as AAC for mp4",)
        assert (read_manifest(root / "clip") or {})["warnings"] == ["one", *told]

    def test_without_extras(self, root: Path, info: ClipInfo) -> None:
        publishing(root, info, comparison=False, contact_sheet=False)()
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
        after = probe(publishing(root, scan_clip(path), "a")() / "blend.mp4")
        assert (after.width, after.height) == size
        assert after.times == [Fraction(number, 24) for number in range(frames)]

    @pytest.mark.parametrize(
        "name",
        ["a b", 'it\'s "quoted" %04d', "ünïcødé 動画", "-rf", "x.mp4", os.fsdecode(b"\xff\xfe")],
    )
    def test_names(self, root: Path, info: ClipInfo, name: str) -> None:
        publishing(root, info, name)(name=name)
        assert [path.name for path in root.iterdir()] == [name]
        assert (read_manifest(root / name) or {})["name"] == name

    def test_contact_sheet(self, root: Path, info: ClipInfo) -> None:
        folder = publishing(root, info)()
        sheet = np.ascontiguousarray(cv2.imread(str(folder / "contact_sheet.png"))[:, :, ::-1])
        for number in range(7):
            for panel in (picture(number, WIDTH, HEIGHT), 255 - picture(number, WIDTH, HEIGHT)):
                found = cv2.matchTemplate(sheet, panel, cv2.TM_SQDIFF_NORMED)
                assert found.min() < 1e-3


class TestProgress:
    """Whoever waits for it hears that it goes on."""

    def test_of_a_window(self, root: Path, info: ClipInfo) -> None:
        one, told = publishing(root, info), []
        one.open()
        for window in one.windows:
            publish_window(
                one.staging.folder,
                window,
                maps(window),
                one.encoding,
                filled(window),
                on_frame=lambda: told.append(1),
            )
        assert len(told) == 7

    @pytest.mark.parametrize(("comparison", "count"), [(False, 14), (True, 28)])
    def test_of_a_clip(self, root: Path, info: ClipInfo, comparison: bool, count: int) -> None:
        one, told = publishing(root, info, comparison=comparison), []
        one.open()
        one.all_windows()
        publish_clip(root, one.name, one.plan, one.encoding, FINGERPRINTS, lambda: told.append(1))
        assert len(told) == count


class TestWindow:
    def test_it_is_there_when_it_is_complete(
        self, root: Path, info: ClipInfo, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        to = publishing(root, info)
        to.open()
        folder = window_folder(to.staging.folder, 0)

        def watch(*arguments: Any) -> Any:
            assert not folder.exists()
            return panels(*arguments)

        panels = publish._panels
        monkeypatch.setattr(publish, "_panels", watch)
        to.window(0)
        rows = [f"row-{number:04d}.png" for number in range(3)]
        assert names(folder) == ["batches.json", "blend.mp4", "comparison.mp4", *rows]

    def test_again_it_stays_as_it_is(self, root: Path, info: ClipInfo) -> None:
        to = publishing(root, info)
        to.open()
        to.window(0)
        before = {path: path.stat().st_mtime_ns for path in to.staging.folder.rglob("*")}
        to.window(0)
        assert before == {path: path.stat().st_mtime_ns for path in to.staging.folder.rglob("*")}

    def test_a_failure_leaves_nothing(self, root: Path, info: ClipInfo) -> None:
        to = publishing(root, info)
        to.open()
        block = filled(to.windows[0])
        block["frames"] = block["frames"][:2]
        with pytest.raises(IndexError):
            publish_window(
                to.staging.folder, to.windows[0], maps(to.windows[0]), to.encoding, block
            )
        assert names(to.staging.folder / "windows") == []
        to.window(0)

    def test_the_task_is_small_for_any_clip(self, root: Path, info: ClipInfo) -> None:
        """It travels once for every window of a clip."""
        hour = replace(info, frame_count=108_000, times=tuple(range(108_000)))
        long = plan(hour, HEIGHT, WIDTH, [(0, 107_999)])
        assert len(pickle.dumps(Encoding.of(long))) < 2000


class TestKeyFramesAlone:
    """Neither videos nor what is between; the contact sheet shows each key frame."""

    def test_folder(self, root: Path, info: ClipInfo) -> None:
        folder = publishing(root, info, frames="keys")(frames="keys")
        keys = [f"keys/{number:04d}.png" for number in (0, 2, 3, 5, 6)]
        assert names(folder) == ["contact_sheet.png", "keys", *keys, "manifest.json"]
        for number in (0, 2, 3, 5, 6):
            expected = 255 - picture(number, WIDTH, HEIGHT)
            found = cv2.imread(str(folder / f"keys/{number:04d}.png"))
            assert np.array_equal(found[..., ::-1], expected)

    def test_contact_sheet(self, root: Path, info: ClipInfo) -> None:
        to = publishing(root, info, frames="keys")
        to.open()
        to.all_windows()
        for index, numbers in enumerate([(0, 2), (3,), (5, 6)]):
            rows = [f"row-{number:04d}.png" for number in numbers]
            assert names(window_folder(to.staging.folder, index)) == ["batches.json", *rows]
        row = cv2.imread(str(window_folder(to.staging.folder, 2) / "row-0005.png"))[..., ::-1]
        given, control, made = np.split(row, 3, axis=1)
        assert np.array_equal(given, picture(5, WIDTH, HEIGHT))
        assert (control == shade(5)).all()
        assert np.array_equal(made, 255 - given)
        to.clip()
        sheet = cv2.imread(str(to.staging.result / "contact_sheet.png"))
        assert sheet.shape[0] == 40 + 5 * (HEIGHT + 12)

    def test_can_be_without_one(self, root: Path, info: ClipInfo) -> None:
        folder = publishing(root, info, frames="preview", contact_sheet=False)()
        assert not (folder / "contact_sheet.png").exists()

    def test_a_long_clip_s_sheet_is_bounded(self, info: ClipInfo) -> None:
        hour = replace(info, frame_count=108_000, times=tuple(range(108_000)))
        chosen = plan(hour, HEIGHT, WIDTH, [range(0, 108_000, 10)])
        samples = [number for number, _ in Encoding.of(chosen, frames="keys").samples]
        assert len(samples) == 24
        assert samples[0] == 0
        assert samples[-1] == 107_990
        assert all(number % 10 == 0 for number in samples)


class TestClip:
    def test_a_window_is_missing(self, root: Path, info: ClipInfo) -> None:
        to = publishing(root, info)
        to.open()
        to.window(0)
        to.window(2)
        with pytest.raises(FrescodError, match=r"windows/0001/blend\.mp4: cannot be read"):
            to.clip()
        assert names(to.staging.folder / "result") == [
            "keys",
            *(f"keys/{number:04d}.png" for number in (0, 2, 5, 6)),
        ]

    def test_a_row_that_cannot_be_read(self, root: Path, info: ClipInfo) -> None:
        to = publishing(root, info)
        to.open()
        to.all_windows()
        (to.staging.folder / "windows" / "0001" / "row-0003.png").write_text("")
        with pytest.raises(FrescodError, match=r"row-0003\.png: cannot be read"):
            to.clip()

    def test_again_after_it_was_shown(self, root: Path, tmp_path: Path) -> None:
        """As when its worker dies before it can answer."""
        path = make_clip(tmp_path / "a.mov", frames=2, sound=1, sound_codec="pcm_s16le")
        to = publishing(root, scan_clip(path))
        to.open()
        to.all_windows()
        told = to.clip(warnings=["one"])
        before = (root / "clip" / "manifest.json").read_bytes()
        assert to.clip(warnings=["one"]) == told
        assert (root / "clip" / "manifest.json").read_bytes() == before

    def test_nothing_to_publish(self, root: Path, info: ClipInfo) -> None:
        to = publishing(root, info)
        with pytest.raises(FrescodError, match="nothing to publish"):
            to.clip()
        to()
        other = FINGERPRINTS | {"fingerprints": {"clip": "d0d0"}}
        with pytest.raises(FrescodError, match="nothing to publish"):
            publish_clip(root, "clip", to.plan, to.encoding, other)
        assert read_manifest(root / "clip") is not None


class TestFullDisk:
    """With room for some of it, what fits is kept, nothing else is, and then it goes on."""

    def test_windows_wait_for_space(self, root: Path, tmp_path: Path) -> None:
        path = make_clip(tmp_path / "a.mp4", frames=7, width=320, height=320, sound=1)
        to = publishing(root, scan_clip(path), crf=1, preset="ultrafast")
        undisturbed = Publishing(tmp_path / "other", to.plan, crf=1)()
        with small_disk(root) as give:
            room, failures = 16, 0
            steps = [to.open, *(lambda i=i: to.window(i) for i in range(3)), to.clip]
            for step in steps:
                while True:
                    give(room)
                    try:
                        step()
                        break
                    except DiskFullError as error:
                        assert "free some space" in str(error)  # noqa: PT017
                        failures += 1
                        assert not any(".tmp" in name for name in names(root))
                        assert not (root / "clip").exists()
                        room += 8
            assert failures > 20
            for name in names(undisturbed):
                if name.endswith((".png", ".mp4")):
                    expected = (undisturbed / name).read_bytes()
                    assert (root / "clip" / name).read_bytes() == expected


class TestFilesTooLarge:
    """What the file system refuses is told, and nothing of it remains."""

    @pytest.mark.parametrize("room", [0, 2000, 9000])
    def test_of_a_window(self, root: Path, info: ClipInfo, room: int) -> None:
        to = publishing(root, info, crf=1)
        to.open()
        with pytest.raises(FrescodError, match="check the output folder"), file_size_limit(room):
            to.window(0)
        assert not any(".tmp" in name for name in names(root))
        assert names(to.staging.folder / "windows") == []

    @pytest.mark.parametrize("room", [0, 2000, 20_000])
    def test_of_a_clip(self, root: Path, info: ClipInfo, room: int) -> None:
        to = publishing(root, info, crf=1)
        to.open()
        to.all_windows()
        with pytest.raises(FrescodError, match="check the output folder"), file_size_limit(room):
            to.clip()
        assert not any(".tmp" in name for name in names(root))
        to.clip()


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Writes past ``size`` bytes fail (Python ignores the signal)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def small_disk(folder: Path) -> Iterator[Any]:
    """A file system of its own; called with a number, it has room for so many KiB."""
    folder.mkdir()
    quoted = str(folder)
    if os.system(f"mount -t tmpfs -o size=16k none '{quoted}' 2>/dev/null"):
        pytest.skip("no file system can be mounted here")

    def give(room: int) -> None:
        assert os.system(f"mount -o remount,size={room}k '{quoted}'") == 0

    try:
        yield give
    finally:
        # Busy where a file in it is still open, which would go on taking space.
        assert os.system(f"umount '{quoted}'") == 0
