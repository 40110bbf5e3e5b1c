"""Blocks as CUDA graphs against the same blocks called. Skipped without a GPU."""

import warnings

import pytest
import torch
from torch import nn

from fresco_core.captured import KEPT, CapturedBlocks

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


class Block(nn.Module):
    """As a UNet's blocks: named tensors, a tuple of tensors, settings, and a tuple back."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)
        self.calls = 0

    def forward(self, hidden, skips=(), *, scale=1.0, mask=None):
        self.calls += 1
        out = self.layer(hidden) * scale + sum(skips)
        return out, (out.relu(), out + 1)


def a_block() -> tuple[Block, CapturedBlocks]:
    torch.manual_seed(0)
    block, blocks = Block().cuda().requires_grad_(False), CapturedBlocks()
    blocks.capture(block)
    return block, blocks


@torch.no_grad()
def test_a_third_call_runs_nothing_in_python_and_gives_the_same_bits():
    block, blocks = a_block()
    blocks.choose("one")
    for i in range(5):
        hidden, skip = torch.randn(2, 3, 8, device="cuda")
        want = Block.forward(block, hidden, (skip,), scale=2.0)
        before = block.calls
        found = block(hidden, (skip,), scale=2.0)
        assert block.calls - before == (1, 2, 0, 0, 0)[i]
        assert torch.equal(found[0], want[0])
        assert all(map(torch.equal, found[1], want[1]))


@torch.no_grad()
def test_other_shapes_or_settings_are_never_taken_for_those_captured():
    block, blocks = a_block()
    blocks.choose("one")
    hidden, skip = torch.randn(2, 3, 8, device="cuda")
    for _ in range(3):
        block(hidden, (skip,))
    more = torch.randn(5, 8, device="cuda")
    for arguments, named in (((more,), {}), ((hidden, (skip,)), {"scale": 3.0}), ((hidden,), {})):
        want = Block.forward(block, *arguments, **named)
        assert torch.equal(block(*arguments, **named)[0], want[0])


@torch.no_grad()
def test_few_sizes_are_kept():
    block, blocks = a_block()
    for count in range(1, KEPT + 2):
        blocks.choose(count)
        for _ in range(3):
            block(torch.ones(count, 8, device="cuda"))
    before = block.calls
    for count in range(2, KEPT + 2):
        blocks.choose(count)
        block(torch.ones(count, 8, device="cuda"))
    assert block.calls == before
    blocks.choose(1)
    block(torch.ones(1, 8, device="cuda"))
    assert block.calls == before + 1


@torch.no_grad()
def test_what_cannot_be_captured_is_called_and_a_warning_says_so_once():
    block, blocks = a_block()
    other = Block().cuda().requires_grad_(False)

    def refuse(*_):
        if torch.cuda.is_current_stream_capturing():
            raise RuntimeError("no graph of this")

    other.layer.register_forward_hook(refuse)
    blocks.capture(other)
    blocks.choose("one")
    hidden = torch.randn(3, 8, device="cuda")
    other(hidden)
    with pytest.warns(UserWarning, match="networks without CUDA graphs"):
        found = other(hidden)
    assert torch.equal(found[0], Block.forward(other, hidden)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            block(hidden)
            other(hidden)


@torch.no_grad()
def test_where_memory_is_short_other_sizes_go_and_the_next_call_is_captured():
    block, blocks = a_block()
    other, short = Block().cuda().requires_grad_(False), [True]

    def refuse(*_):
        if torch.cuda.is_current_stream_capturing() and short:
            short.pop()
            raise torch.OutOfMemoryError("CUDA out of memory")

    other.layer.register_forward_hook(refuse)
    blocks.capture(other)
    hidden = torch.randn(3, 8, device="cuda")
    blocks.choose("one")
    for _ in range(3):
        block(hidden)
    blocks.choose("two")
    for _ in range(5):
        assert torch.equal(other(hidden)[0], other.layer(hidden))
    assert other.calls == 1 + 3 + 2  # called, refused and called, captured
    before = block.calls
    blocks.choose("one")
    for _ in range(3):
        assert torch.equal(block(hidden)[0], block.layer(hidden))
    assert block.calls == before + 2  # captured anew, at once


def test_without_a_size_or_with_gradients_blocks_are_called():
    block, blocks = a_block()
    hidden = torch.randn(3, 8, device="cuda")
    for _ in range(4):
        block(hidden)
    blocks.choose("one")
    for _ in range(4):
        block(hidden)
    assert block.calls == 8
