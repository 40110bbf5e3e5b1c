"""Publish a clip's result: build it out of sight, then show it complete, in one rename.

Legend: H, W = height and width at working size, C = 3 (red, green, blue).
"""

import json
import os
import shutil
import time
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from fresco_core.errors import FrescodError
from io_pipeline.clip_info import ClipInfo
from io_pipeline.chunk import resized
from io_pipeline.clip_writer import ClipWriter
from io_pipeline.contact_sheet import ContactSheet, sample_numbers
from io_pipeline.writing import sync, writing

STAGING = ".staging"
REPLACED = ".replaced"
MANIFEST = "manifest.json"


class Publisher(AbstractContextManager["Publisher"]):
    """Builds ``<output_root>/.staging/<name>/`` and renames it to ``<output_root>/<name>``.

    ``working_size`` is (height, width) of the frames that are written. ``blend.mp4`` gets the
    clip's own size, times, rate and sound; ``comparison.mp4`` shows input, control map and output
    side by side at working size. Left-overs of an interrupted run under that name are removed.

    A context manager: left without :meth:`finish`, nothing of it remains. Raises FrescodError
    where the disk is full or may not be written, and where something that is no result of an
    earlier run has the result's name: only results are ever replaced.
    """

    def __init__(
        self,
        output_root: Path,
        name: str,
        info: ClipInfo,
        *,
        working_size: tuple[int, int],
        crf: int = 18,
        preset: str = "medium",
        comparison: bool = True,
        contact_sheet: bool = True,
    ) -> None:
        if name in ("", ".", "..", STAGING, REPLACED) or "/" in name:
            raise ValueError(f"{name!r} cannot be the name of a result folder")
        self.info = info
        self.folder = output_root / name
        self._root = output_root
        self._staging = output_root / STAGING / name
        self._replaced = output_root / REPLACED / name
        self._height, self._width = working_size
        self._written = 0
        self._control_HWC = np.zeros((self._height, self._width, 3), np.uint8)
        self._samples = set(sample_numbers(info.frame_count)) if contact_sheet else set()
        self._sheet = ContactSheet()
        self._writers: list[ClipWriter] = []
        with writing(self._staging):
            self._refuse_to_replace()
            self._settle()
            new = [folder for folder in (output_root, *output_root.parents) if not folder.exists()]
            _make_folder(self._staging / "keys")
            for folder in new:
                sync(folder.parent)
        try:
            self._blend = self._writer("blend.mp4", info.width, info.height, crf, preset, True)
            self._comparison = (
                self._writer("comparison.mp4", 3 * self._width, self._height, crf, preset, False)
                if comparison
                else None
            )
        except BaseException:
            self.abort()
            raise

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the user should know about the files written."""
        return tuple(text for writer in self._writers for text in writer.warnings)

    def write_key(self, frame_number: int, key_HWC: NDArray[np.uint8]) -> None:
        """Keep a translated key frame, uint8 (H, W, 3), without loss."""
        self._write_png(self._staging / "keys" / f"{frame_number:04d}.png", key_HWC)

    def write_frame(
        self,
        input_HWC: NDArray[np.uint8],
        control_HW: NDArray[np.uint8] | None,
        output_HWC: NDArray[np.uint8],
    ) -> None:
        """Add the next frame; ``control_HW`` is its control map, held until the next one comes."""
        if control_HW is not None:
            self._control_HWC = self._panel(np.repeat(control_HW[:, :, None], 3, axis=2))
        number = self._written
        self._blend.write(output_HWC)
        self._written += 1
        sampled = number in self._samples
        if self._comparison is None and not sampled:
            return
        panels = [self._panel(input_HWC), self._control_HWC, self._panel(output_HWC)]
        if self._comparison is not None:
            self._comparison.write(np.concatenate(panels, axis=1))
        if sampled:
            self._sheet.add(number, self.info.seconds(number), panels)

    def finish(self, manifest: dict[str, Any]) -> Path:
        """Complete the result and show it under its name; returns the folder.

        ``manifest`` becomes manifest.json, this publisher's warnings added to its "warnings" and
        the seconds spent in here, up to the writing of manifest.json itself, to "publish" in its
        "seconds". An older result under the name is replaced. Raises ValueError where frames are
        missing.
        """
        start = time.monotonic()
        if self._written != self.info.frame_count:
            self.abort()
            raise ValueError(
                f"{self.folder}: {self._written} of {self.info.frame_count} frames were written"
            )
        try:
            for writer in self._writers:
                writer.close()
            if self._samples:
                self._write_png(self._staging / "contact_sheet.png", self._sheet.draw())
            with writing(self._staging):
                for path in sorted(self._staging.rglob("*")):
                    sync(path)
                self._write_manifest(manifest, time.monotonic() - start)
                sync(self._staging)
            with writing(self.folder):
                self._show()
        except BaseException:
            self.abort()
            raise
        return self.folder

    def abort(self) -> None:
        """Remove what was built; an older result stays as it was."""
        for writer in self._writers:
            writer.abandon()
        with suppress(OSError):
            self._settle()

    def __exit__(self, *error: object) -> None:
        if self._staging.exists():
            self.abort()

    def _writer(
        self, name: str, width: int, height: int, crf: int, preset: str, sound: bool
    ) -> ClipWriter:
        writer = ClipWriter(
            self._staging / name,
            self.info,
            crf=crf,
            preset=preset,
            sound_from=self.info.path if sound and self.info.sound_tracks else None,
            width=width,
            height=height,
        )
        self._writers.append(writer)
        return writer

    def _panel(self, frame_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return resized(frame_HWC, self._width, self._height)

    def _write_manifest(self, manifest: dict[str, Any], spent: float) -> None:
        warnings = [*manifest.get("warnings", ()), *self.warnings]
        seconds = dict(manifest.get("seconds", {}))
        seconds["publish"] = round(seconds.get("publish", 0.0) + spent, 3)
        complete = {**manifest, "seconds": seconds, "warnings": warnings}
        text = json.dumps(complete, indent=2, ensure_ascii=False)
        path = self._staging / MANIFEST
        # File names that are not UTF-8 are kept as JSON's own escapes.
        path.write_bytes(text.encode("utf-8", "backslashreplace") + b"\n")
        sync(path)

    def _write_png(self, path: Path, picture_HWC: NDArray[np.uint8]) -> None:
        # Encoded in memory: OpenCV reports a failed write only by its return value.
        _, data = cv2.imencode(".png", cv2.cvtColor(picture_HWC, cv2.COLOR_RGB2BGR))
        with writing(path):
            path.write_bytes(data.tobytes())

    def _refuse_to_replace(self) -> None:
        """Anything but an older result stays: an output folder may hold the user's own things."""
        is_result = not self.folder.is_symlink() and read_manifest(self.folder) is not None
        if os.path.lexists(self.folder) and not is_result:
            raise FrescodError(
                f"{self.folder}: exists and is no result of frescod; move it or choose another "
                "output folder"
            )

    def _show(self) -> None:
        self._refuse_to_replace()  # again: it may have come since
        if self.folder.exists():
            self._replaced.parent.mkdir(exist_ok=True)
            self.folder.rename(self._replaced)
        self._staging.rename(self.folder)
        sync(self._root)
        self._settle()

    def _settle(self) -> None:
        """Bring the output folder to rest: no staging, an older result in its place or gone."""
        if self._replaced.exists() and not self.folder.exists():
            self._replaced.rename(self.folder)
        for path in (self._staging, self._replaced):
            if path.exists():
                shutil.rmtree(path)
            with suppress(OSError):
                path.parent.rmdir()


def _make_folder(path: Path) -> None:
    """Create a folder and those above it, though another publisher may just remove an empty one."""
    for _ in range(100):
        with suppress(FileNotFoundError):
            path.mkdir(parents=True)
            return
    path.mkdir(parents=True)


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """A result folder's manifest; None where there is no complete result."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) else None
