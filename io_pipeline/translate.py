"""Translate: window -> key frames, on the device that the models are on.

Shapes: K new key frames, H x W working size, RGB.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fresco_core.batch import Carry, KeyFrameBatch
from fresco_core.translator import FrescoTranslator
from io_pipeline.prepare import Window
from io_pipeline.prompt import Prompt


@dataclass(frozen=True, eq=False)
class Translated:
    """Key frames (K,H,W,3) uint8 RGB of a window, and the carry for the clip's next one."""

    keys_KHWC: NDArray[np.uint8]
    carry: Carry


class Translate:
    """Runs a `FrescoTranslator` on windows. A clip's windows come in order."""

    def __init__(self, translator: FrescoTranslator) -> None:
        self._translator = translator

    def __call__(
        self,
        window: Window,
        prompt: Prompt,
        carry: Carry | None,
        on_step: Callable[[int, int], None] | None = None,
    ) -> Translated:
        """Translate a window's new key frames.

        Args:
            carry: of the window before; None for a clip's first.
            on_step: called after each sampling step with how many are done, of how many.

        Raises:
            NotFiniteError: the networks produced no picture.
        """
        batch = KeyFrameBatch(
            window.key_frames_KHWC,
            window.controls_KHW,
            (prompt.positive,) * len(window.key_numbers),
            prompt.negative,
        )
        translation = self._translator.translate(
            batch,
            carry,
            None if on_step is None else lambda step: on_step(step.index + 1, step.count),
        )
        return Translated(translation.frames, translation.carry)
