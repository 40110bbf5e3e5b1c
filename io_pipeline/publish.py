"""Publish a clip's result: every window's pictures by themselves, then all of them as one.

Legend: T frames of a window, K new key frames, H x W working size, C = 3 (red, green, blue).
"""

import bisect
import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from fresco_core.errors import FrescodError
from fresco_core.keyframes import Batch
from io_pipeline import checkpoint
from io_pipeline.chunk import ChunkWriter, Picture
from io_pipeline.contact_sheet import KEY_ROWS, Row, contact_sheet, sample_numbers, strip
from io_pipeline.join import join
from io_pipeline.plan import ClipPlan
from io_pipeline.staged import BATCHES, keys_folder, result_folder, window_folder
from io_pipeline.staging import MANIFEST, Staging
from io_pipeline.staging import read_manifest as read_manifest
from io_pipeline.window import Window
from io_pipeline.writing import appearing

BLEND = "blend.mp4"
COMPARISON = "comparison.mp4"
CONTACT_SHEET = "contact_sheet.png"
# Of x264, for the comparison: three times the pixels, and only to be looked at.
COMPARISON_PRESET = "veryfast"


@dataclass(frozen=True)
class Encoding:
    """How a clip's result is written.

    Attributes:
        blend: the result itself, at the clip's size; None where it is of key frames alone.
        comparison: input, control map and output side by side at working size; None without.
        samples: frame numbers in the contact sheet, and when they are shown in seconds; empty
            without a contact sheet.
    """

    blend: Picture | None
    comparison: Picture | None
    samples: tuple[tuple[int, float], ...]

    @classmethod
    def of(
        cls,
        plan: ClipPlan,
        *,
        crf: int = 18,
        preset: str = "medium",
        comparison: bool = True,
        contact_sheet: bool = True,
        frames: str = "all",
    ) -> "Encoding":
        """The encoding of a clip's result; ``crf`` and ``preset`` (of the result) are x264's.

        ``frames``: which of the clip's it has, one of `io_pipeline.staging.FRAMES`. Key frames
        alone are no video, and the contact sheet is of them.
        """
        info = plan.info
        whole = frames == "all"
        height, width = plan.working_size
        beside = Picture.of(info, width=3 * width, height=height, crf=crf, preset=COMPARISON_PRESET)
        keys = plan.key_numbers
        numbers = sample_numbers(info.frame_count)
        if not whole:
            numbers = tuple(keys[i] for i in sample_numbers(len(keys), KEY_ROWS))
        if not contact_sheet:
            numbers = ()
        return cls(
            blend=Picture.of(info, crf=crf, preset=preset) if whole else None,
            comparison=beside if comparison and whole else None,
            samples=tuple((number, info.seconds(number)) for number in numbers),
        )


def publish_window(
    staging: Path,
    window: Window,
    maps: tuple[int, ...],
    encoding: Encoding,
    block: Any,
    batches: tuple[Batch, ...] = (),
    on_frame: Callable[[], None] = lambda: None,
) -> None:
    """Encode the frames of a window that the result shows, and keep its key frames.

    ``block`` maps names to the arrays of `Window.layout`; ``maps`` tells which control map of
    every new key frame counts; ``batches``, in which it was translated, are kept. ``on_frame`` is
    called after each frame. Windows may be published in any order and side by side. All is on the
    disk when this returns; a window that is published already is left as it is.

    Raises:
        FrescodError: it cannot be written; `DiskFullError` where there is no space.
    """
    folder = window_folder(staging, window.index)
    if not folder.exists():
        for number, key_HWC in zip(window.key_numbers, block["keys"][1:], strict=True):
            _write_png(keys_folder(staging) / f"{number:04d}.png", key_HWC)
        samples = {number for number, _ in encoding.samples}
        with appearing(folder) as building, ExitStack() as writers:
            building.mkdir()
            kept = json.dumps([asdict(batch) for batch in batches])
            (building / BATCHES).write_text(kept, encoding="utf-8")
            blend, comparison = (
                writers.enter_context(ChunkWriter(building / name, picture)) if picture else None
                for name, picture in ((BLEND, encoding.blend), (COMPARISON, encoding.comparison))
            )
            for number, panels in _panels(window, maps, block):
                if blend is not None:
                    blend.write(panels[-1])
                if comparison is not None:
                    comparison.write(np.concatenate(panels, axis=1))
                if number in samples:
                    _write_png(building / _row_name(number), strip(panels))
                on_frame()
    checkpoint.forget(staging, window.index)


def publish_clip(
    output: Path,
    name: str,
    plan: ClipPlan,
    encoding: Encoding,
    manifest: dict[str, Any],
    on_packet: Callable[[], None] = lambda: None,
) -> tuple[str, ...]:
    """Complete a result of which all windows are published, and show it as ``<output>/<name>``.

    ``manifest`` becomes manifest.json, the warnings that are returned added to its "warnings" and
    the seconds spent in here, up to the writing of manifest.json itself, to "publish" in its
    "seconds". An older result under the name is replaced. Repeated after a crash, it goes on.
    ``on_packet`` is called as by `join`, for each of the result's videos.

    Returns sentences for the user.

    Raises:
        FrescodError: a file cannot be written (`DiskFullError` where there is no space) or read,
            or something that is no result has the result's name.
        ClipError: the clip's sound cannot be read.
        ValueError: windows are missing.
    """
    start = time.monotonic()
    staging = Staging(output, name)
    result = result_folder(staging.folder)
    told = manifest.get("warnings", ())
    if not result.exists():
        shown = read_manifest(staging.result)
        if shown is None or shown.get("fingerprints") != manifest.get("fingerprints"):
            raise FrescodError(f"{staging.folder}: there is nothing to publish; run again")
        staging.remove()
        return tuple(shown["warnings"][len(told) :])
    info = plan.info
    folders = [window_folder(staging.folder, index) for index in range(len(plan.batches))]
    warnings: list[str] = []
    if encoding.blend is not None:
        with appearing(result / BLEND) as file:
            chunks = [folder / BLEND for folder in folders]
            sound_from = info.path if info.sound_tracks else None
            warnings = join(file, chunks, info, sound_from=sound_from, on_packet=on_packet)
    if encoding.comparison is not None:
        with appearing(result / COMPARISON) as file:
            join(file, [folder / COMPARISON for folder in folders], info, on_packet=on_packet)
    if encoding.samples:
        last_numbers = [batch.new[-1] for batch in plan.batches]
        rows = [
            Row(
                number,
                seconds,
                _read_png(folders[bisect.bisect_left(last_numbers, number)] / _row_name(number)),
            )
            for number, seconds in encoding.samples
        ]
        _write_png(result / CONTACT_SHEET, contact_sheet(rows))
    seconds = dict(manifest.get("seconds", {}))
    seconds["publish"] = round(seconds.get("publish", 0.0) + time.monotonic() - start, 3)
    complete = {**manifest, "seconds": seconds, "warnings": [*told, *warnings]}
    text = json.dumps(complete, indent=2, ensure_ascii=False)
    with appearing(result / MANIFEST) as file:
        # File names that are not UTF-8 are kept as JSON's own escapes.
        file.write_bytes(text.encode("utf-8", "backslashreplace") + b"\n")
    staging.show()
    return tuple(warnings)


def _panels(
    window: Window, maps: tuple[int, ...], block: Any
) -> Iterator[tuple[int, list[NDArray[np.uint8]]]]:
    """Frame number; input, control map and output (H, W, 3) of what the result shows of a window.

    A key frame's control map is held until the next one comes; of several, the brightest of each
    pixel is shown.
    """
    key_at = {offset: key for key, offset in enumerate(window.key_offsets)}
    control_HW = np.zeros((window.height, window.width), np.uint8)
    if window.controls:
        control_HW = block["previous_control"].max(axis=0)
    for offset in window.shown:
        if (key := key_at.get(offset)) is None:
            output_HWC = block["results"][offset]
        else:
            output_HWC = block["keys"][key + 1]
            if window.controls:
                control_HW = block["controls"][maps[key], key].max(axis=0)
        control_HWC = np.repeat(control_HW[:, :, None], 3, axis=2)
        yield window.first_frame + offset, [block["frames"][offset], control_HWC, output_HWC]


def _row_name(number: int) -> str:
    return f"row-{number:04d}.png"


def _write_png(path: Path, picture_HWC: NDArray[np.uint8]) -> None:
    # Encoded in memory: OpenCV reports a failed write only by its return value.
    _, data = cv2.imencode(".png", cv2.cvtColor(picture_HWC, cv2.COLOR_RGB2BGR))
    with appearing(path) as file:
        file.write_bytes(data.tobytes())


def _read_png(path: Path) -> NDArray[np.uint8]:
    try:
        picture = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    except (OSError, cv2.error):
        picture = None
    if picture is None:
        raise FrescodError(f"{path}: cannot be read; run again with --force")
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), np.uint8)
