"""A clip's windows, filled with made pictures, published without anything being computed."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fresco_core.keyframes import Batch
from io_pipeline import checkpoint
from io_pipeline.clip_info import ClipInfo
from io_pipeline.plan import ClipPlan
from io_pipeline.publish import Encoding, publish_clip, publish_window
from io_pipeline.staging import Progress, Staging
from io_pipeline.tasks import Translated
from io_pipeline.window import BY_CPU, BY_DEVICE, Window, windows
from tests.io_pipeline.media import picture

IDENTITY = {"clip": "c0ffee", "settings": "5e77"}
FINGERPRINTS = {"fingerprints": {"clip": "c0ffee"}}


def plan(info: ClipInfo, height: int, width: int, batches: Sequence[Sequence[int]]) -> ClipPlan:
    """Key frames as given, batch by batch; they end with the clip's last frame."""
    keys = [number for batch in batches for number in batch]
    return ClipPlan(
        info,
        (height, width),
        tuple(keys),
        tuple(
            Batch(tuple(new), () if i == 0 else (keys[0], batches[i - 1][-1]))
            for i, new in enumerate(batches)
        ),
    )


def shade(key: int) -> int:
    """The grey that the control map of a key frame is."""
    return min(40 * key + 50, 255)


def filled(window: Window) -> dict[str, NDArray[Any]]:
    """A window's arrays: outputs are the inputs' negatives, what must not be looked at is noise."""
    generator = np.random.default_rng(window.index)
    block: dict[str, NDArray[Any]] = {
        array.name: generator.integers(0, 256, array.shape).astype(array.dtype)
        for array in window.layout().arrays
    }
    height, width = window.height, window.width
    for offset in range(window.frame_count):
        frame = picture(window.first_frame + offset, width, height)
        block["frames"][offset] = frame
        if window.between and offset not in (0, *window.key_offsets):
            block["results"][offset] = 255 - frame
    for key, number in enumerate(window.key_numbers):
        block["keys"][key + 1] = 255 - picture(number, width, height)
        if window.controls:
            block["controls"][maps(window)[key], key] = shade(number)
    if window.controls:
        block["previous_control"][:] = 0 if window.index == 0 else shade(window.first_frame)
    return block


def maps(window: Window) -> tuple[int, ...]:
    """Drawn now here, now there."""
    if not window.controls:
        return ()
    return tuple((BY_CPU, BY_DEVICE)[number % 3 == 1] for number in window.key_numbers)


def translated(window: Window) -> Translated:
    return Translated((Batch(window.key_numbers),), ("a car", "a car"))


class Publishing:
    """What the supervisor does with a clip, without workers."""

    def __init__(
        self,
        root: Path,
        plan: ClipPlan,
        name: str = "clip",
        *,
        controls: int = 1,
        **encoding: Any,
    ) -> None:
        whole = encoding.get("frames", "all") == "all"
        plan = replace(plan, controls=(None,) * controls)
        self.root, self.name, self.plan = root, name, plan
        self.windows = list(windows(plan, steps=2, flows=False, between=whole))
        self.encoding = Encoding.of(plan, **({"preset": "ultrafast"} | encoding))
        self.staging = Staging(root, name)

    def open(self, **arguments: Any) -> Progress:
        return self.staging.open(IDENTITY, **arguments)

    def save(self, index: int) -> None:
        window = self.windows[index]
        block = filled(window)
        checkpoint.save(self.staging.folder, window, block, translated(window), maps(window))

    def window(self, index: int) -> None:
        window = self.windows[index]
        batches = (self.plan.batches[index],)
        folder = self.staging.folder
        publish_window(folder, window, maps(window), self.encoding, filled(window), batches)

    def all_windows(self) -> None:
        for index in range(len(self.windows)):
            self.window(index)

    def clip(self, **manifest: Any) -> tuple[str, ...]:
        complete = FINGERPRINTS | manifest
        return publish_clip(self.root, self.name, self.plan, self.encoding, complete)

    def __call__(self, **manifest: Any) -> Path:
        """From nothing to the result's folder."""
        self.open()
        self.all_windows()
        self.clip(**manifest)
        return self.staging.result


def names(folder: Path) -> list[str]:
    """All that is in a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
