"""Translate: a window's new key frames and its flows, on the device that the models are on.

Shapes: T frames of a window, K new key frames, M ControlNets, H x W working size, RGB.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fresco_core.batch import Carry, KeyFrameBatch, Matched, Translation
from fresco_core.device_errors import Trouble, trouble
from fresco_core.errors import NoPictureError
from fresco_core.keyframes import Batch, batch_key_frames
from fresco_core.translator import FrescoTranslator, Step
from io_pipeline import checkpoint
from io_pipeline.blocks import Block
from io_pipeline.control_maps import DrawMaps
from io_pipeline.prompt import Prompt
from io_pipeline.prompt_warnings import idle_words, misread_weights, prompt_warnings
from io_pipeline.propagate_on_device import propagate_segments
from io_pipeline.tasks import FindFlows, PropagateSegments, Translated, TranslateWindow
from io_pipeline.window import BY_DEVICE, Window
from io_pipeline.worker import FatalError, OutOfDeviceMemory, Report

# Frame pairs given to the flow model at once; bounds its memory on long windows.
FLOW_PAIRS = 8

Array = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Before:
    """What the next window needs of the one before: its carry, and its last key frame translated.

    Attributes:
        carry: see `fresco_core.batch.Carry`.
        key_HWC: (H,W,3) uint8 RGB.
    """

    carry: Carry
    key_HWC: Array


class Translate:
    """Handles `TranslateWindow`, `FindFlows` and `PropagateSegments`.

    Reports phases "maps", "step", "flow" and "propagate".

    The networks are the translator's, the options each task's own.

    Keeps what the next window needs of the one translated last; after another job, or in another
    process, it comes from the checkpoint, bit by bit the same.
    """

    def __init__(
        self,
        translator: FrescoTranslator,
        detectors: DrawMaps | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        """The detectors draw the control maps that are left to the device."""
        self.facts = dict(facts or {})
        self._translator = translator
        self._detectors = detectors
        self._last: tuple[TranslateWindow, Before] | None = None
        self._told: set[str] = set()

    @property
    def memory(self) -> int | None:
        """Bytes of a GPU's memory that this process has held at most; None on the CPU."""
        device = self._translator.models.device
        return torch.cuda.max_memory_reserved(device) if device.type == "cuda" else None

    def __call__(self, task: Any, blocks: tuple[Block, ...], report: Report) -> Translated | None:
        """Do a task.

        Raises:
            OutOfDeviceMemory: the batch is too large for the device.
            NoMemoryToPropagate: the device has no room for segments.
            FatalError: the device's driver has given up this process.
            NoPictureError: the networks produce no pictures.
            FrescodError: the checkpoint cannot be read.
        """
        (block,) = blocks
        with _device_errors():
            match task:
                case TranslateWindow():
                    return self._translate(task, block, report)
                case FindFlows(window):
                    self._find_flows(window, block, report)
                    return None
                case PropagateSegments():
                    propagate_segments(task, block, self._translator.models.device, report)
                    return None
        raise TypeError(f"no task of a device: {type(task).__name__}")

    def _translate(self, task: TranslateWindow, block: Block, report: Report) -> Translated:
        window = task.window
        if task.options != self._translator.options:
            self._translator = self._translator.with_options(task.options)
        warnings = [*prompt_warnings(self._translator, *_new_prompts(task))]
        if window.index == 0:
            warnings += [*misread_weights(self._translator, task.prompt), *self._idle(task.prompt)]
        self._draw_maps(task, block, report)
        before = self._before(task)
        if before is not None:
            block["keys"][0] = before.key_HWC
            if before.carry.controls is not None:
                block["previous_control"][:] = before.carry.controls[1]
        carry = None if before is None else before.carry
        batches = cut(window, task.batch_size)
        matched = _matched(window, block, carry) if len(batches) == 1 else None
        steps = window.steps * len(batches)
        begin = 0
        for i, batch in enumerate(batches):
            report("step", window.steps * i, steps)
            keys = range(begin, begin + len(batch.new))

            def on_step(step: Step, done: int = window.steps * i) -> None:
                report("step", done + step.index + 1, steps)

            translation, precise = self._translate_batch(
                _key_frames(task, block, keys, matched), carry, on_step
            )
            if precise:
                warnings.append(
                    f"key frames {batch.new[0]} to {batch.new[-1]}: no pictures in "
                    f"{self.facts.get('dtype', 'half precision')}, done again with the VAE in "
                    "float32"
                )
            block["keys"][1 + keys.start : 1 + keys.stop] = translation.frames
            carry = translation.carry
            begin = keys.stop
        assert carry is not None
        block["carry_latents"][:] = carry.latents.numpy()
        block["carry_frames"][:] = carry.frames
        if carry.controls is not None:
            block["carry_controls"][:] = carry.controls
        if window.flows:
            self._find_flows(window, block, report)
        self._last = task, Before(carry, block["keys"][-1].copy())
        return Translated(batches, carry.prompts, tuple(warnings))

    def _idle(self, prompt: Prompt) -> list[str]:
        """Of embeddings that a clip does not use; once of each, others may well do without it."""
        idle = [word for word in idle_words(self._translator, prompt) if word not in self._told]
        self._told.update(idle)
        return [f"embedding {word!r}: no prompt of this clip has this word" for word in idle]

    def _translate_batch(
        self, batch: KeyFrameBatch, carry: Carry | None, on_step: Callable[[Step], None]
    ) -> tuple[Translation, bool]:
        """The translation, and whether it needed the VAE in float32.

        Decided by the batch alone, so that the result is the same whatever was translated before.
        """
        translator = self._translator
        try:
            return self._fitted(batch, carry, on_step), False
        except NoPictureError:
            if translator.codec.dtype == torch.float32:
                raise
        with translator.codec.in_float32():
            return self._fitted(batch, carry, on_step), True

    def _fitted(
        self, batch: KeyFrameBatch, carry: Carry | None, on_step: Callable[[Step], None]
    ) -> Translation:
        """The translation; where memory is short, without what is kept of other sizes.

        Else batches would be cut smaller because of what was translated before.
        """
        try:
            return self._translator.translate(batch, carry, on_step)
        except Exception as error:
            if trouble(error) is not Trouble.SHORTAGE:
                raise
            shortage = error.with_traceback(None)  # which would hold what it was raised among
        if not self._translator.release():
            raise shortage
        return self._translator.translate(batch, carry, on_step)

    def _draw_maps(self, task: TranslateWindow, block: Block, report: Report) -> None:
        mine = [key for key, side in enumerate(task.maps) if side == BY_DEVICE]
        for i, key in enumerate(mine):
            assert self._detectors is not None
            report("maps", i, len(mine))
            frame_HWC = block["frames"][task.window.key_offsets[key]]
            which = task.window.to_draw
            maps = self._detectors(frame_HWC, task.map_options, which)
            block["controls"][BY_DEVICE, key, list(which)] = maps

    def _before(self, task: TranslateWindow) -> Before | None:
        if task.window.index == 0:
            return None
        if self._last is not None and _follows(task, self._last[0]):
            return self._last[1]
        assert task.checkpoint is not None
        arrays, translated = checkpoint.load(task.checkpoint)
        return Before(
            Carry(
                torch.from_numpy(arrays["carry_latents"]),
                arrays["carry_frames"],
                arrays.get("carry_controls"),
                translated.carry_prompts,
            ),
            arrays["keys"][-1],
        )

    def _find_flows(self, window: Window, block: Block, report: Report) -> None:
        """Flows of neighbouring frames; float16 tells a 256th of a pixel in flows below 8."""
        device = self._translator.models.device
        if device.type == "cuda":
            # Pinned for these copies alone, which are most of the block. What translating copies,
            # some key frames in and out, takes less time than to pin 60 MB: about 10 ms.
            block.pin()
        frames_THWC, flows = block.tensor("frames"), block.tensor("flows")
        pairs = window.frame_count - 1
        with torch.no_grad():
            for begin in range(0, pairs, FLOW_PAIRS):
                report("flow", begin, pairs)
                end = min(begin + FLOW_PAIRS, pairs)
                some_T3HW = frames_THWC[begin : end + 1].to(device, non_blocking=True)
                some_T3HW = some_T3HW.permute(0, 3, 1, 2)
                for side, flow in enumerate(self._translator.flow(some_T3HW[:-1], some_T3HW[1:])):
                    flows[side, begin:end].copy_(flow)
        report("flow", pairs, pairs)


def cut(window: Window, batch_size: int) -> tuple[Batch, ...]:
    """The batches in which a window is translated: one, unless it is too large for the device.

    Cut by the rule that cuts clips, `batch_key_frames`, so that the batches that clips were cut
    into stay whole.
    """
    if window.index == 0:
        return batch_key_frames(window.key_numbers, batch_size)
    carried = 0, window.first_frame
    first, *others = batch_key_frames((*carried, *window.key_numbers), batch_size)
    batches = Batch(first.new[2:], carried), *others
    return tuple(batch for batch in batches if batch.new)


def _new_prompts(task: TranslateWindow) -> list[Prompt]:
    """The prompts of a window's key frames, without those of the key frames it carries over."""
    window, prompt = task.window, task.prompt
    texts = dict.fromkeys(map(prompt.at, window.key_numbers))
    if window.index:
        for number in (0, window.first_frame):
            texts.pop(prompt.at(number), None)
    return [Prompt(text, prompt.negative) for text in texts]


def _matched(window: Window, block: Block, carry: Carry | None) -> Matched | None:
    """What the CPU pool has found of a window's key frames, if it is of those to be translated.

    A reader that died may have been replaced by one with another decoder: then the block has other
    pictures of the carried frames, and the batch is to be what its frames alone make it.
    """
    if not window.ring_pairs:
        return None
    if carry is not None:
        there = block["first_frame"], block["frames"][0]
        if not all(map(np.array_equal, there, carry.frames)):
            return None
    return Matched(block["ring_flows"].transpose(0, 1, 4, 2, 3), block.get("salient"))


def _key_frames(
    task: TranslateWindow, block: Block, keys: range, matched: Matched | None
) -> KeyFrameBatch:
    controls_KMHW = None
    if task.maps:
        controls_KMHW = block["controls"][[task.maps[key] for key in keys], list(keys)]
    return KeyFrameBatch(
        block["frames"][[task.window.key_offsets[key] for key in keys]],
        controls_KMHW,
        tuple(task.prompt.at(task.window.key_numbers[key]) for key in keys),
        task.prompt.negative,
        matched,
    )


def _follows(task: TranslateWindow, last: TranslateWindow) -> bool:
    """Whether a task is about the window after another's."""
    same = (task.job, task.clip, task.prompt, task.options) == (
        last.job,
        last.clip,
        last.prompt,
        last.options,
    )
    return same and (task.window.index, task.window.first_frame) == (
        last.window.index + 1,
        last.window.key_numbers[-1],
    )


@contextmanager
def _device_errors() -> Iterator[None]:
    """Tell the errors after which a process is of no use any more from all others."""
    try:
        yield
    except Exception as error:
        match trouble(error):
            case Trouble.SHORTAGE:
                raise OutOfDeviceMemory(_first_line(error)) from error
            case Trouble.BROKEN | Trouble.UNCLEAR:
                raise FatalError(_first_line(error)) from error
        raise


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
