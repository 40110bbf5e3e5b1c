"""Blocks that may be captured, where they are not. With a GPU: tests/gpu/test_captured.py."""

import torch
from torch import Tensor, nn

from fresco_core.captured import CapturedBlocks


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, hidden: Tensor, *, scale: float = 1.0) -> tuple[Tensor, Tensor]:
        self.calls += 1
        return scale * hidden, hidden


def test_a_size_that_comes_once_is_not_captured() -> None:
    block, blocks = Block(), CapturedBlocks()
    blocks.capture(block)
    with torch.no_grad():
        for size in range(5):
            blocks.choose(size)
            found, _ = block(torch.ones(2), scale=3.0)
            assert torch.equal(found, torch.full((2,), 3.0))
    assert block.calls == 5


def test_nothing_is_captured_without_a_size_or_with_gradients() -> None:
    block, blocks = Block(), CapturedBlocks()
    blocks.capture(block)
    with torch.no_grad():
        for _ in range(3):
            block(torch.ones(2))
    blocks.choose("one")
    for _ in range(3):
        block(torch.ones(2))
    assert block.calls == 6
