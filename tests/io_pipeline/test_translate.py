from dataclasses import dataclass, field

import numpy as np
import torch

from fresco_core.batch import Carry, KeyFrameBatch, Translation
from fresco_core.translator import Step
from io_pipeline.prepare import Window
from io_pipeline.prompt import Prompt
from io_pipeline.translate import Translate


@dataclass
class FakeTranslator:
    """Turns pictures over and remembers what it was given."""

    given: list[tuple[KeyFrameBatch, Carry | None]] = field(default_factory=list)

    def translate(self, batch, carry=None, on_step=None):
        self.given.append((batch, carry))
        for i in range(2):
            on_step(Step(i, 2, 1, *(torch.zeros(1),) * 3))
        carry = Carry(torch.zeros(1), batch.frames[[0, -1]], None, ("a", "b"))
        return Translation(255 - batch.frames, carry)


def test_a_window_becomes_a_batch():
    frames = np.arange(6, dtype=np.uint8)[:, None, None, None] * np.ones((64, 64, 3), np.uint8)
    window = Window(1, 3, 10, frames, (12, 15), np.zeros((2, 64, 64), np.uint8))
    translator, steps = FakeTranslator(), []
    carry = Carry(torch.zeros(1), frames[:2], None, ("a", "b"))
    result = Translate(translator)(
        window, Prompt("a car", "rain"), carry, lambda done, count: steps.append((done, count))
    )
    batch, given = translator.given[0]
    assert given is carry
    assert batch.frames[:, 0, 0, 0].tolist() == [2, 5]
    assert batch.prompts == ("a car", "a car")
    assert batch.negative == "rain"
    assert np.array_equal(result.keys_KHWC, 255 - batch.frames)
    assert steps == [(1, 2), (2, 2)]
