"""Whole segments on a device, as many at once as its memory allows.

Shape suffixes: T frames of a segment, both key frames included; N = T-2 between them; H, W rows
and columns; C = RGB.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fresco_core.propagation.gpu import building, footprint
from fresco_core.propagation.gpu.blending import merge
from fresco_core.propagation.gpu.block import Block
from fresco_core.propagation.gpu.chains import propagate_keys
from fresco_core.propagation.gpu.poisson import PoissonFusion
from fresco_core.propagation.inputs import Segment
from fresco_core.propagation.options import PropagationOptions

Frames = NDArray[np.uint8]


def paint(
    segments: Sequence[Segment],
    options: PropagationOptions,
    device: torch.device | str,
    *,
    memory: int | None,
    on_frame: Callable[[], None] | None,
) -> list[Frames]:
    """See `fresco_core.propagation.gpu.paint_segments`."""
    device = torch.device(device)
    results = {
        i: np.empty((0, *segment.size, 3), np.uint8)
        for i, segment in enumerate(segments)
        if segment.between == 0
    }
    try:
        for numbers in list(batches(segments, memory)):  # before anything is painted
            chosen = [segments[i] for i in numbers]
            results.update(
                zip(numbers, _paint_batch(chosen, options, device, on_frame), strict=True)
            )
        return [results[i] for i in range(len(segments))]
    except Exception as error:
        told = building.failure(error)
        if told is None:
            raise
    # Only here: the error that was caught held all that its callers had taken.
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.empty_cache()
    raise told


def _paint_batch(
    segments: Sequence[Segment],
    options: PropagationOptions,
    device: torch.device,
    on_frame: Callable[[], None] | None,
) -> list[Frames]:
    """Segments of one size, the longest first."""
    tell = on_frame or (lambda: None)
    # All that is sent to the device comes first: later it would wait for what the device does.
    blocks = [Block.of(segment, options.timing, device) for segment in segments]
    fusion = PoissonFusion(*segments[0].size, options, device) if options.poisson else None
    results = propagate_keys(blocks, options, tell)
    merged_KHWC = _received(merge(blocks, results, options, fusion, tell))
    return [each.numpy() for each in merged_KHWC.split([block.between for block in blocks])]


def _received(pictures: Tensor) -> Tensor:
    """In memory that the device writes to by itself, four times as quickly."""
    if not pictures.is_cuda:
        return pictures
    return torch.empty(pictures.shape, dtype=pictures.dtype, pin_memory=True).copy_(pictures)


def batches(segments: Sequence[Segment], memory: int | None) -> Iterator[list[int]]:
    """Numbers of segments that go together: of one size, the longest first, as fit the memory.

    Those without frames between are left out.
    """
    numbers = [i for i, segment in enumerate(segments) if segment.between]
    numbers.sort(key=lambda i: (segments[i].size, -segments[i].between))
    batch: list[int] = []
    for i in numbers:
        segment = segments[i]
        if batch and segments[batch[0]].size != segment.size:
            yield batch
            batch = []
        if memory is not None:
            needed = footprint.of_batch([segment])
            if needed > memory:
                raise torch.OutOfMemoryError(
                    f"a segment of {segment.between + 2} frames of {segment.size[1]}x"
                    f"{segment.size[0]} needs {needed / 2**20:.0f} MiB of the device, more than "
                    f"the {memory / 2**20:.0f} MiB that propagation may use"
                )
            if footprint.of_batch([segments[j] for j in [*batch, i]]) > memory:
                yield batch
                batch = []
        batch.append(i)
    if batch:
        yield batch
