"""A translated window on disk: its key frames, and what ties the next window to it.

Legend: S sampling steps, K new key frames, M ControlNets, H x W working size, h x w latent grid.
"""

import json
import struct
import zlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as packed

from fresco_core.errors import FrescodError
from fresco_core.keyframes import Batch
from io_pipeline.staged import checkpoint_path, window_folder
from io_pipeline.tasks import Translated
from io_pipeline.window import BY_CPU, Window
from io_pipeline.writing import appearing

_ARRAYS = ("keys", "carry_latents", "carry_frames", "carry_controls", "previous_control")


class CheckpointError(FrescodError):
    """A checkpoint cannot be read, or is not what was written."""


def path(staging: Path, index: int) -> Path:
    """The file of a window's checkpoint."""
    return checkpoint_path(staging, index)


def save(
    staging: Path,
    window: Window,
    block: Any,
    translated: Translated,
    maps: tuple[int, ...] = (),
) -> None:
    """Write a translated window's checkpoint; it is on the disk when this returns.

    ``block`` maps names to the arrays of `Window.layout`; ``maps`` tells which control maps count
    (default: all `BY_CPU`). The checkpoint before is removed where nothing can need it any more.

    Raises:
        FrescodError: it cannot be written; `DiskFullError` where there is no space.
    """
    arrays = {name: block[name] for name in _ARRAYS if name in block}
    if window.controls:
        keys = len(window.key_numbers)
        arrays["controls"] = block["controls"][list(maps or (BY_CPU,) * keys), range(keys)]
    metadata = {"translated": json.dumps(asdict(translated)), "checksum": _checksum(arrays)}
    with appearing(path(staging, window.index)) as file:
        file.write_bytes(packed(arrays, metadata))
    forget(staging, window.index - 1)


def load(file: Path) -> tuple[dict[str, NDArray[Any]], Translated]:
    """What `save` wrote: its arrays by name, ``controls`` as (K,M,H,W), and the `Translated`.

    Raises:
        CheckpointError: it cannot be read or is damaged.
    """
    try:
        with safe_open(file, framework="numpy") as content:
            arrays = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
            metadata = content.metadata() or {}
        translated = _translated(json.loads(metadata["translated"]))
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{file}: cannot be read ({error})") from error
    if metadata.get("checksum") != _checksum(arrays):
        raise CheckpointError(f"{file}: is damaged")
    return arrays, translated


def restore(staging: Path, window: Window, block: Any) -> Translated:
    """Fill ``keys``, ``previous_control`` and ``controls[BY_CPU]`` of a window from its checkpoint.

    Raises:
        CheckpointError: it cannot be read, is damaged, or is of another window.
    """
    file = path(staging, window.index)
    arrays, translated = load(file)
    try:
        _fill(block["keys"], arrays["keys"])
        if window.controls:
            _fill(block["previous_control"], arrays["previous_control"])
            _fill(block["controls"][BY_CPU], arrays["controls"])
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"{file}: is of another clip") from error
    return translated


def is_complete(file: Path) -> bool:
    """Whether a checkpoint's file is as long as its header says."""
    try:
        with file.open("rb") as content:
            (length,) = struct.unpack("<Q", content.read(8))
            if length > file.stat().st_size:
                return False
            header = json.loads(content.read(length))
        ends = (entry["data_offsets"][1] for name, entry in header.items() if name[:2] != "__")
        return bool(file.stat().st_size == 8 + length + max(ends))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error):
        return False


def forget(staging: Path, index: int) -> None:
    """Remove a window's checkpoint where nothing can need it any more.

    Its key frames are needed until it is encoded, its carry until the next window has one.
    """
    if window_folder(staging, index).exists() and is_complete(path(staging, index + 1)):
        path(staging, index).unlink(missing_ok=True)


def batches_of(values: list[dict[str, list[int]]]) -> tuple[Batch, ...]:
    """Batches as JSON has them."""
    return tuple(
        Batch(**{name: tuple(numbers) for name, numbers in batch.items()}) for batch in values
    )


def _fill(array: NDArray[Any], kept: NDArray[Any]) -> None:
    if array.shape != kept.shape:  # some of those could be broadcast
        raise ValueError(f"{kept.shape} for an array of {array.shape}")
    array[:] = kept


def _translated(values: dict[str, Any]) -> Translated:
    batches = batches_of(values.pop("batches"))
    return Translated(batches, **{name: tuple(value) for name, value in values.items()})


def _checksum(arrays: Mapping[str, NDArray[Any]]) -> str:
    value = 0
    for name in sorted(arrays):
        value = zlib.crc32(
            np.ascontiguousarray(arrays[name]).reshape(-1).view(np.uint8).data, value
        )
    return f"{value:08x}"
