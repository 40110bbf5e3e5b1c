"""Control maps beside a clip: as many and as large as its frames, read for key frames alone."""

import os
import struct
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from fresco_core.errors import ClipError
from fresco_core.keyframes import resize_frame
from io_pipeline import control_reader
from io_pipeline.control_reader import ControlReader, scan_control
from io_pipeline.control_source import ControlFile
from io_pipeline.options import KeyFrameOptions
from io_pipeline.plan import ClipPlan, ControlPictures, ControlVideo
from io_pipeline.prepare import Prepare
from io_pipeline.video import MAX_PIXELS, ClipReader, scan_clip
from io_pipeline.window import Window, windows
from tests.io_pipeline.media import make_clip, picture, read

OPTIONS = KeyFrameOptions(3, 3, 4, 64)
FRAMES, WIDTH, HEIGHT = 14, 96, 80
KINDS = ("hed", "depth")

Array = NDArray[np.uint8]


def grey(number: int, width: int = WIDTH, height: int = HEIGHT) -> Array:
    """A map, (H,W): a step that moves, brighter from frame to frame."""
    map_HW = np.full((height, width), 10 * number, np.uint8)
    map_HW[:, number * 4 :] += 100
    return map_HW


def colour(number: int, width: int, height: int) -> Array:
    return np.repeat(grey(number, width, height)[:, :, None], 3, axis=2)


def at_working_size(map_HW: Array) -> Array:
    """All sizes here are worked on at 64 x 64."""
    return np.asarray(cv2.resize(map_HW, (64, 64), interpolation=cv2.INTER_AREA))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    return make_clip(folder / "a.mp4", frames=FRAMES, width=WIDTH, height=HEIGHT)


@pytest.fixture(scope="module")
def plan(clip: Path) -> ClipPlan:
    return Prepare().plan(clip, OPTIONS)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures numbered without leading zeros, among other things."""
    made = tmp_path / "a.depth"
    made.mkdir()
    for number in range(FRAMES):
        cv2.imwrite(str(made / f"{number}.png"), grey(number))
    (made / ".hidden.png").write_bytes(b"")
    (made / "Thumbs.db").write_bytes(b"")
    return made


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "a.depth.mp4"
    return make_clip(path, frames=FRAMES, width=WIDTH, height=HEIGHT, paint=colour)


def maps(plan: ClipPlan, path: Path, chosen: slice = slice(None)) -> dict[int, Array]:
    """The maps of some windows' key frames by frame number; the first ControlNet's are drawn."""
    source = scan_control(path, plan, engine="auto", max_pixels=MAX_PIXELS)
    plan = replace(plan, controls=(None, source, source))
    found = {}
    with ControlReader(plan, max_pixels=MAX_PIXELS) as reader:
        for window in list(windows(plan, steps=2, flows=False))[chosen]:
            controls = empty(window)
            reader.read(window, controls)
            assert (controls[:, :, 0] == 9).all()
            assert np.array_equal(controls[0], controls[1])  # whoever draws the others
            assert np.array_equal(controls[:, :, 1], controls[:, :, 2])
            found |= dict(zip(window.key_numbers, controls[0, :, 1], strict=True))
    return found


def empty(window: Window) -> Array:
    shape = 2, len(window.key_numbers), window.controls, window.height, window.width
    return np.full(shape, 9, np.uint8)


@pytest.mark.parametrize("chosen", [slice(None), slice(1, None), slice(0, None, 2)])
def test_a_folders_pictures_are_in_natural_order(
    plan: ClipPlan, folder: Path, chosen: slice
) -> None:
    found = maps(plan, folder, chosen)
    assert set(found) == {number for batch in plan.batches[chosen] for number in batch.new}
    for number, map_HW in found.items():
        assert np.array_equal(map_HW, at_working_size(grey(number)))


@pytest.mark.parametrize("chosen", [slice(None), slice(1, None), slice(0, None, 2)])
def test_a_videos_frames_are_read_grey(plan: ClipPlan, video: Path, chosen: slice) -> None:
    frames = read(video)
    found = maps(plan, video, chosen)
    assert set(found) == {number for batch in plan.batches[chosen] for number in batch.new}
    for number, map_HW in found.items():
        expected = cv2.cvtColor(resize_frame(frames[number], 64), cv2.COLOR_RGB2GRAY)
        assert np.array_equal(map_HW, expected)
        off = np.abs(map_HW.astype(int) - at_working_size(grey(number)))
        assert np.median(off) <= 3


def test_only_key_frames_are_converted(
    plan: ClipPlan, video: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[object] = []
    deliver = ClipReader.__next__
    monkeypatch.setattr(ClipReader, "__next__", lambda self: made.append(1) or deliver(self))
    maps(plan, video)
    assert len(made) == len(plan.key_numbers)
    opened: list[str] = []
    read_picture = control_reader._read_picture
    monkeypatch.setattr(
        control_reader,
        "_read_picture",
        lambda path, most: opened.append(path.stem) or read_picture(path, most),
    )
    maps(plan, folder)
    assert {int(name) for name in opened} == set(plan.key_numbers)


def test_maps_may_have_the_working_size(plan: ClipPlan, tmp_path: Path) -> None:
    (tmp_path / "small").mkdir()
    for number in range(FRAMES):
        cv2.imwrite(str(tmp_path / f"small/{number:02}.png"), grey(number, 64, 64))
    for number, map_HW in maps(plan, tmp_path / "small").items():
        assert np.array_equal(map_HW, grey(number, 64, 64))


def test_what_pictures_may_be(plan: ClipPlan, folder: Path) -> None:
    first, second, third, fourth = plan.key_numbers[:4]
    fine = grey(first).astype(np.uint16) * 256 + 77
    cv2.imwrite(str(folder / f"{first}.png"), fine)  # of 16 bits, as depth often is
    transparent = cv2.cvtColor(colour(second, WIDTH, HEIGHT), cv2.COLOR_RGB2RGBA)
    transparent[:, :, 3] = 0
    cv2.imwrite(str(folder / f"{second}.png"), transparent)
    (folder / f"{third}.png").unlink()
    cv2.imwrite(str(folder / f"{third}.JPG"), grey(third), [cv2.IMWRITE_JPEG_QUALITY, 100])
    (folder / f"{fourth}.png").unlink()
    cv2.imwrite(str(folder / f"{fourth}.tiff"), grey(fourth))
    found = maps(plan, folder)
    for number in (first, second, third, fourth):
        off = np.abs(found[number].astype(int) - at_working_size(grey(number)))
        assert off.max() <= (1 if number != third else 4)


class TestRefused:
    def scan(self, plan: ClipPlan, path: Path, max_pixels: int = MAX_PIXELS) -> None:
        scan_control(path, plan, engine="auto", max_pixels=max_pixels)

    def test_other_numbers_of_frames(self, plan: ClipPlan, tmp_path: Path, folder: Path) -> None:
        short = make_clip(tmp_path / "a.hed.mp4", frames=13, width=WIDTH, height=HEIGHT)
        with pytest.raises(ClipError, match=r"a\.hed\.mp4: 13 control maps .* of 14 frames"):
            self.scan(plan, short)
        cv2.imwrite(str(folder / "more.png"), grey(0))
        with pytest.raises(ClipError, match=r"a\.depth: 15 control maps .* of 14 frames"):
            self.scan(plan, folder)
        (tmp_path / "a.canny").mkdir()
        with pytest.raises(ClipError, match=r"a\.canny: 0 control maps .* of 14 frames"):
            self.scan(plan, tmp_path / "a.canny")

    def test_other_sizes(self, plan: ClipPlan, tmp_path: Path, folder: Path) -> None:
        wide = make_clip(tmp_path / "a.hed.mp4", frames=FRAMES, width=98, height=HEIGHT)
        with pytest.raises(ClipError, match=r"a\.hed\.mp4: .* 98x80 for a clip of 96x80"):
            self.scan(plan, wide)
        last = plan.key_numbers[-1]
        cv2.imwrite(str(folder / f"{last}.png"), grey(0, HEIGHT, WIDTH))
        with pytest.raises(ClipError, match=rf"depth/{last}\.png: .* 80x96 for a clip of 96x80"):
            self.scan(plan, folder)

    def test_what_is_no_picture(self, plan: ClipPlan, tmp_path: Path, folder: Path) -> None:
        secret = tmp_path / "secret.png"
        file = folder / f"{plan.key_numbers[1]}.png"
        file.rename(secret)
        file.symlink_to(secret)
        with pytest.raises(ClipError, match=r"3\.png: cannot be read: it is a symbolic link"):
            self.scan(plan, folder)
        file.unlink()
        os.mkfifo(file)
        with pytest.raises(ClipError, match=r"3\.png: cannot be read: it is no regular file"):
            self.scan(plan, folder)
        file.unlink()
        for content in (b"", b"no picture", secret.read_bytes()[:60]):
            file.write_bytes(content)
            with pytest.raises(ClipError, match=r"3\.png: is no picture that can be read"):
                self.scan(plan, folder)

    def test_what_is_too_large(self, plan: ClipPlan, video: Path, folder: Path) -> None:
        for path in (video, folder):
            with pytest.raises(ClipError, match=r"limits\.max_pixels"):
                self.scan(plan, path, WIDTH * HEIGHT - 1)

    def test_what_is_too_large_is_not_decoded(
        self, plan: ClipPlan, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A hundred bytes may say that they are a picture of gigabytes."""
        header = struct.pack(">II", 60_000, 50_000) + bytes([8, 2, 0, 0, 0])
        chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b""))
        file = folder / f"{plan.key_numbers[1]}.png"
        file.write_bytes(
            b"\x89PNG\r\n\x1a\n"
            + b"".join(
                struct.pack(">I", len(data))
                + kind
                + data
                + struct.pack(">I", zlib.crc32(kind + data))
                for kind, data in chunks
            )
        )
        decode, shapes = cv2.imdecode, []

        def decoded(*arguments: Any) -> Any:
            picture = decode(*arguments)
            shapes.append(picture.shape)
            return picture

        monkeypatch.setattr(cv2, "imdecode", decoded)
        with pytest.raises(ClipError, match=rf"3\.png: 60000x50000 is more than the {MAX_PIXELS} "):
            self.scan(plan, folder)
        assert shapes == [(HEIGHT, WIDTH, 3)]  # the one before

    def test_what_is_more_file_than_picture(self, plan: ClipPlan, folder: Path) -> None:
        file = folder / f"{plan.key_numbers[1]}.png"
        os.truncate(file, 1 << 31)  # takes no space
        with pytest.raises(ClipError, match=rf"3\.png: {1 << 31} bytes for 96x80 pixels"):
            self.scan(plan, folder)

    def test_what_is_no_video(self, plan: ClipPlan, tmp_path: Path) -> None:
        (tmp_path / "a.hed.mp4").write_bytes(b"no video")
        with pytest.raises(ClipError, match=r"a\.hed\.mp4"):
            self.scan(plan, tmp_path / "a.hed.mp4")
        with pytest.raises(ClipError, match=r"gone\.mp4"):
            self.scan(plan, tmp_path / "gone.mp4")

    def test_what_changed_since(self, plan: ClipPlan, folder: Path) -> None:
        source = scan_control(folder, plan, engine="auto", max_pixels=MAX_PIXELS)
        planned = replace(plan, controls=(source,))
        cv2.imwrite(str(folder / "0.png"), grey(0, 30, 30))
        window = next(windows(planned, steps=2, flows=False))
        with (
            ControlReader(planned, max_pixels=MAX_PIXELS) as reader,
            pytest.raises(ClipError, match="30x30"),
        ):
            reader.read(window, empty(window))


class TestPrepare:
    def test_tells_where_every_controlnets_maps_come_from(
        self, clip: Path, video: Path, folder: Path
    ) -> None:
        files = (ControlFile("depth", folder), ControlFile("canny", video))
        plan = Prepare().plan(clip, OPTIONS, controls=files, kinds=KINDS)
        names = tuple(f"{number}.png" for number in range(FRAMES))
        assert plan.controls == (None, ControlPictures(folder, names))
        assert plan.info.warnings == (f"{video}: is not used: control.type is hed, depth",)
        window = next(windows(plan, steps=2, flows=False))
        assert (window.controls, window.given, window.to_draw) == (2, (1,), (0,))

    def test_without_files_all_are_drawn(self, clip: Path) -> None:
        assert Prepare().plan(clip, OPTIONS, kinds=KINDS).controls == (None, None)
        assert Prepare().plan(clip, OPTIONS).controls == ()

    def test_another_decoder_reads_all_of_it(self, clip: Path, video: Path) -> None:
        files = (ControlFile("depth", video),)
        plan = Prepare().plan(clip, OPTIONS, controls=files, kinds=KINDS)
        other = plan.read_with("decord")
        assert other.info == replace(plan.info, engine="decord")
        assert other.controls == (None, ControlVideo(replace(scan_clip(video), engine="decord")))

    def test_windows_come_with_their_maps(self, clip: Path, video: Path) -> None:
        stage, seen = Prepare(), list[int]()
        files = (ControlFile("depth", video),)
        plan = stage.plan(clip, OPTIONS, "auto", seen.append, files, KINDS)
        # There is progress as long as there are maps to look at, but frames only once.
        assert seen == [*range(FRAMES), *[FRAMES - 1] * FRAMES]
        window = list(windows(plan, steps=2, flows=False))[1]
        frames = np.empty((window.frame_count, 64, 64, 3), np.uint8)
        controls = empty(window)
        seen.clear()
        with stage.windows(plan) as reader:
            reader.read(window, frames, seen.append, controls)
        last = window.key_numbers[-1]
        assert seen[: last + 1] == list(range(last + 1))
        assert set(seen[last + 1 :]) == {last}
        assert len(seen) > last + 1
        number = window.key_numbers[0]
        expected = resize_frame(picture(number, WIDTH, HEIGHT), 64)
        assert np.abs(frames[window.key_offsets[0]].astype(int) - expected).mean() < 5
        assert np.median(np.abs(controls[0, 0, 1] - at_working_size(grey(number)).astype(int))) <= 3
