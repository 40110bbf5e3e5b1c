"""Blocks that may be captured, where they are not. With a GPU: tests/gpu/test_captured.py."""

import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fresco_core import captured
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


def test_without_memory_for_a_graph_the_block_is_called_with_nothing_left_of_the_attempt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    attempts: list[weakref.ref[Tensor]] = []

    def attempt(*_: Any) -> None:
        taken = torch.ones(100)
        attempts.append(weakref.ref(taken))
        raise torch.OutOfMemoryError("CUDA out of memory")

    class Witness(Block):
        def forward(self, hidden: Tensor, *, scale: float = 1.0) -> tuple[Tensor, Tensor]:
            assert not any(each() is not None for each in attempts)
            return super().forward(hidden, scale=scale)

    monkeypatch.setattr(captured, "_captured", attempt)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 1))
    block, blocks = Witness(), CapturedBlocks()
    blocks.capture(block)
    blocks.choose("one")
    with torch.no_grad():
        block(torch.ones(2))
        with pytest.warns(UserWarning, match="without CUDA graphs, slower: CUDA out of memory"):
            found, _ = block(torch.ones(2), scale=3.0)
        assert torch.equal(found, torch.full((2,), 3.0))
        block(torch.ones(2))
    assert len(attempts) == 1
    assert block.calls == 3
