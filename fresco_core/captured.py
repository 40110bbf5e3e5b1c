"""Blocks of a network as CUDA graphs: their hundreds of kernels are started by one call.

A block is captured the second time that it is called at a size of pictures and batch. How many
sizes are kept is bounded; a new one takes a fraction of a second. One for whose graphs there is no
memory, even in place of those of other sizes, is called as if it were not captured.
"""

import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fresco_core.device_errors import Trouble, trouble
from fresco_core.errors import brief

# Sizes of pictures and batch whose graphs are kept: that of most windows and that of a last one.
KEPT = 2


class CapturedBlocks:
    """Graphs of some blocks, for a few sizes.

    Graphs of one size share their memory, so a network's blocks must always be called in the same
    order; what they give is valid until a block of another network is called, or of the same one
    for the next time.
    """

    def __init__(self) -> None:
        self._sizes: OrderedDict[object, _Size] = OrderedDict()
        self._size: _Size | None = None
        self._refused = False
        self._short = False

    def capture(self, block: nn.Module) -> None:
        """Have a block's calls captured from now on. For inference only."""
        forward = block.forward

        def call(*arguments: Any, **named: Any) -> Any:
            return self._call(block, forward, arguments, named)

        object.__setattr__(block, "forward", call)

    def choose(self, size: object) -> None:
        """What is called from now on belongs to this size of pictures and batch."""
        found = self._sizes.pop(size, None)
        if found is None:
            while len(self._sizes) >= KEPT:
                self._sizes.popitem(last=False)
            found = _Size()
        self._sizes[size] = self._size = found

    @property
    def sizes(self) -> int:
        """How many sizes something may be kept for."""
        return len(self._sizes)

    def clear(self) -> None:
        """Give back the memory of all graphs."""
        for size in self._sizes.values():
            size.clear()  # whoever may still hold it
        self._sizes.clear()
        self._size = None

    def _call(
        self,
        block: nn.Module,
        forward: Callable[..., Any],
        arguments: tuple[Any, ...],
        named: Mapping[str, Any],
    ) -> Any:
        size = self._size
        if size is None or not size.fits or self._refused or torch.is_grad_enabled():
            return forward(*arguments, **named)
        if block not in size.seen:
            size.seen.add(block)
            return forward(*arguments, **named)
        tensors: list[Tensor] = []
        rest = _taken(tensors, (arguments, named))
        graph = size.graphs.get(block)
        if graph is not None:
            # Another graph of the same block would break the order that the memory relies on.
            fits = graph.fits(tensors, rest)
            return graph.replay(tensors) if fits else forward(*arguments, **named)
        if self._capture(size, block, forward, rest, tensors):
            return size.graphs[block].output
        # Here, where no error holds what it was raised among.
        return forward(*arguments, **named)

    def _capture(
        self,
        size: "_Size",
        block: nn.Module,
        forward: Callable[..., Any],
        rest: Any,
        tensors: list[Tensor],
    ) -> bool:
        """Capture a call and replay it; False where that cannot be had."""
        try:
            size.pool = size.pool or torch.cuda.graph_pool_handle()
            graph = _captured(forward, rest, tensors, size.pool)
            graph.replay(tensors)
        except Exception as error:  # whatever does not let itself be captured
            match trouble(error):
                case Trouble.BROKEN:
                    raise
                case Trouble.SHORTAGE:
                    self._make_room(size, error)
                case _:
                    self._refused = True
                    self.clear()
                    text = f"networks without CUDA graphs, slower: {brief(error)}"
                    warnings.warn(text, stacklevel=3)
            return False
        size.graphs[block] = graph
        return True

    def _make_room(self, size: "_Size", error: Exception) -> None:
        """Give back what other sizes' graphs hold; where that is nothing, give up this one's.

        The error goes no further: without graphs there may be room enough, and a batch is not to be
        cut for what is only quicker. Sizes stay known though their graphs are gone: `sizes` tells
        whether a batch that finds no room after all was the only one that something is kept for.
        """
        others = [each for each in self._sizes.values() if each is not size and each.graphs]
        for other in others:
            other.clear()
        size.fits = bool(others)  # then its next call is captured
        if not size.fits or not size.graphs:
            size.clear()  # its pool too: PyTorch may refuse one that all graphs have left
        if not size.fits and not self._short:
            self._short = True
            text = f"networks of some sizes without CUDA graphs, slower: {brief(error)}"
            warnings.warn(text, stacklevel=4)


class _Size:
    """The graphs of one size."""

    def __init__(self) -> None:
        self.graphs: dict[nn.Module, _Graph] = {}
        self.seen: set[nn.Module] = set()
        self.pool: Any = None
        self.fits = True  # unless it is known that its graphs alone are too large

    def clear(self) -> None:
        self.graphs.clear()
        self.pool = None


@dataclass(eq=False)
class _Graph:
    """A captured call: where its tensors are read from, and where its results lie."""

    graph: torch.cuda.CUDAGraph
    inputs: list[Tensor]
    rest: Any
    output: Any

    def fits(self, tensors: list[Tensor], rest: Any) -> bool:
        """Whether a call is the one that was captured, with other tensors of the same kind."""
        kinds, mine = (
            [(each.shape, each.dtype) for each in some] for some in (tensors, self.inputs)
        )
        return kinds == mine and rest == self.rest

    def replay(self, tensors: list[Tensor]) -> Any:
        torch._foreach_copy_(self.inputs, tensors)
        self.graph.replay()
        return self.output


def _captured(forward: Callable[..., Any], rest: Any, tensors: list[Tensor], pool: Any) -> _Graph:
    inputs = [torch.empty_like(tensor).copy_(tensor) for tensor in tensors]
    arguments, named = _given(iter(inputs), rest)
    # Once beside the graph: what is compiled or allocated once must not be captured.
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        forward(*arguments, **named)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
        output = forward(*arguments, **named)
    return _Graph(graph, inputs, rest, output)


@dataclass(frozen=True)
class _Place:
    """Stands for a tensor."""


_PLACE = _Place()


def _taken(tensors: list[Tensor], value: Any) -> Any:
    """A value with its tensors moved to a list; tuples, lists and dicts are looked into."""
    match value:
        case Tensor():
            tensors.append(value)
            return _PLACE
        case tuple() | list():
            return tuple(_taken(tensors, each) for each in value)
        case dict():
            return {name: _taken(tensors, each) for name, each in value.items()}
    return value


def _given(tensors: Any, value: Any) -> Any:
    """`_taken` undone with other tensors."""
    match value:
        case _Place():
            return next(tensors)
        case tuple():
            return tuple(_given(tensors, each) for each in value)
        case dict():
            return {name: _given(tensors, each) for name, each in value.items()}
    return value
