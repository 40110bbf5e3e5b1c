"""Blocks that may be captured, where they are not. With a GPU: tests/gpu/test_captured.py."""

import weakref
from collections.abc import Callable
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


class Graph:
    """In the place of a captured call: counts how often it is replayed."""

    def __init__(self, forward: Callable[..., Any], tensors: list[Tensor]) -> None:
        self.output = forward(*tensors)
        self.replays = 0

    def fits(self, *_: Any) -> bool:
        return True

    def replay(self, _: list[Tensor]) -> Any:
        self.replays += 1
        return self.output


class Device:
    """Captures where no error comes next.

    Attributes:
        graphs: those that there are.
        attempts: of captures.
        pools: that were asked for.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.graphs: weakref.WeakSet[Graph] = weakref.WeakSet()
        self.attempts = 0
        self.pools: list[object] = []
        self.errors: list[Exception] = []
        self._taken: list[weakref.ref[Tensor]] = []
        monkeypatch.setattr(captured, "_captured", self._capture)
        monkeypatch.setattr(torch.cuda, "graph_pool_handle", object)

    @property
    def empty(self) -> bool:
        """Whether nothing is left, of graphs or of attempts."""
        return not self.graphs and all(each() is None for each in self._taken)

    def _capture(
        self, forward: Callable[..., Any], _: Any, tensors: list[Tensor], pool: object
    ) -> Graph:
        self.attempts += 1
        self.pools.append(pool)
        taken = torch.ones(100)
        self._taken.append(weakref.ref(taken))
        if self.errors:
            raise self.errors.pop(0)  # not by a name, whose frame it would hold
        graph = Graph(forward, tensors)
        self.graphs.add(graph)
        return graph


class Witness(Block):
    """Called where nothing of the device is taken, but while it is captured."""

    def __init__(self, device: Device) -> None:
        super().__init__()
        self.device = device
        self.empty: list[bool] = []

    def forward(self, hidden: Tensor, *, scale: float = 1.0) -> tuple[Tensor, Tensor]:
        self.empty.append(self.device.empty)
        return super().forward(hidden, scale=scale)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    return Device(monkeypatch)


SHORTAGES = [
    (torch.OutOfMemoryError, "CUDA out of memory"),
    (RuntimeError, "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    (RuntimeError, "Triton Error [CUDA]: out of memory"),
]


def about_to_capture(device: Device) -> tuple[Block, Witness, CapturedBlocks]:
    """A block that is captured, another that is at its next call, both at size "one"."""
    first, block, blocks = Block(), Witness(device), CapturedBlocks()
    for each in (first, block):
        blocks.capture(each)
    blocks.choose("one")
    first(torch.ones(2))
    first(torch.ones(2))
    block(torch.ones(2))
    return first, block, blocks


@pytest.mark.parametrize(("kind", "text"), SHORTAGES)
@torch.no_grad()
def test_graphs_of_other_sizes_make_room_for_those_of_the_size_that_is_called(
    device: Device, kind: type[Exception], text: str
) -> None:
    block, other, blocks = Witness(device), Block(), CapturedBlocks()
    for each in (block, other):
        blocks.capture(each)
    blocks.choose("one")
    for _ in range(2):
        other(torch.ones(2))
    blocks.choose("two")
    device.errors = [kind(text)]
    block(torch.ones(2))
    assert len(device.graphs) == 1
    found, _ = block(torch.ones(2))  # warnings are errors
    assert torch.equal(found, torch.ones(2))
    assert block.empty == [False, True]
    # As many as before: whoever finds no memory now is to know that it was not alone.
    assert blocks.sizes == 2
    for _ in range(3):
        block(torch.ones(2))
    assert len(device.graphs) == 1
    assert block.calls == 3
    assert len({*map(id, device.pools)}) == 3  # none twice
    blocks.choose("one")
    for _ in range(2):
        other(torch.ones(2))
    assert len(device.graphs) == 2


@pytest.mark.parametrize(("kind", "text"), SHORTAGES)
@torch.no_grad()
def test_a_size_whose_graphs_alone_are_too_large_is_called(
    device: Device, kind: type[Exception], text: str
) -> None:
    first, block, blocks = about_to_capture(device)
    device.errors = [kind(text)]
    with pytest.warns(UserWarning, match="some sizes without CUDA graphs, slower: .*(CUDA|CUBLAS)"):
        found, _ = block(torch.ones(2))
    assert torch.equal(found, torch.ones(2))
    assert block.empty == [False, True]  # this size's other graphs are of no use
    for _ in range(2):
        first(torch.ones(2))
        block(torch.ones(2))
    assert device.attempts == 2
    assert blocks.sizes == 1


@torch.no_grad()
def test_sizes_are_too_large_each_for_itself_which_is_said_once(device: Device) -> None:
    block, blocks = Block(), CapturedBlocks()
    blocks.capture(block)
    device.errors = [torch.OutOfMemoryError("CUDA out of memory") for _ in range(2)]

    def call(size: str) -> None:
        blocks.choose(size)
        for _ in range(3):
            block(torch.ones(2))

    with pytest.warns(UserWarning, match="out of memory"):
        call("one")
    call("two")  # warnings are errors
    call("three")
    assert device.attempts == 3
    assert len(device.graphs) == 1
    blocks.clear()  # from here on everything may be otherwise
    blocks.choose("one")
    for _ in range(2):
        block(torch.ones(2))
    assert len(device.graphs) == 1


@torch.no_grad()
def test_what_cannot_be_captured_is_called_with_nothing_left_of_any_graph(device: Device) -> None:
    _, block, blocks = about_to_capture(device)
    text = "CUDA error: operation not permitted when stream is capturing"
    device.errors = [RuntimeError(text)]
    with pytest.warns(UserWarning, match="without CUDA graphs, slower: .* is capturing"):
        found, _ = block(torch.ones(2), scale=3.0)
    assert torch.equal(found, torch.full((2,), 3.0))
    assert block.empty == [False, True]
    for size in ("one", "two"):
        blocks.choose(size)
        for _ in range(3):
            block(torch.ones(2))
    assert device.attempts == 2


@pytest.mark.parametrize(
    "text",
    [
        "CUDA error: an illegal memory access was encountered",
        "Triton Error [CUDA]: an illegal memory access was encountered",
        "CUDA error: unspecified launch failure",
    ],
)
@torch.no_grad()
def test_a_broken_device_is_not_called_again(device: Device, text: str) -> None:
    block, blocks = Block(), CapturedBlocks()
    blocks.capture(block)
    device.errors = [RuntimeError(text)]
    blocks.choose("one")
    block(torch.ones(2))
    with pytest.raises(RuntimeError) as caught:
        block(torch.ones(2))
    assert str(caught.value) == text
    assert block.calls == 1
