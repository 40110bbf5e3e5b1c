"""Named arrays in one piece of anonymous shared memory, passed between processes by descriptor.

A block has no name in any file system: the kernel frees it when the last process that holds it lets
go of it, however that process ends. Its size is sealed, so that nobody can cut it under another's
feet (which would be SIGBUS at the next access).
"""

import errno
import fcntl
import math
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fresco_core.errors import FrescodError
from io_pipeline.control_groups import control_groups

if TYPE_CHECKING:
    import torch

NAME = "frescod"
ALIGNMENT = 64  # a cache line; more than any dtype or vector instruction asks for
MIB = 1 << 20


class BlockError(FrescodError):
    """There is no memory, or no descriptor, for a block."""


@dataclass(frozen=True)
class Array:
    """Where an array lies in its block: ``offset`` in bytes; ``dtype`` as in ``<f4``."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    offset: int

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Layout:
    """The arrays of a block; ``nbytes`` is what it takes of memory, in whole pages."""

    arrays: tuple[Array, ...]
    nbytes: int

    @classmethod
    def of(cls, **arrays: tuple[tuple[int, ...], DTypeLike]) -> "Layout":
        """One array after the other, each (shape, dtype).

        Raises:
            ValueError: a negative size, or a dtype that has no meaning in another process.
        """
        placed: list[Array] = []
        end = 0
        for name, (shape, dtype) in arrays.items():
            kind = np.dtype(dtype)
            if kind.hasobject or kind.names is not None or min(shape, default=0) < 0:
                raise ValueError(f"{name}: no array of {shape} {kind} can be shared")
            sizes = tuple(int(size) for size in shape)
            placed.append(Array(name, sizes, kind.str, _rounded_up(end, ALIGNMENT)))
            end = placed[-1].offset + placed[-1].nbytes
        return cls(tuple(placed), _rounded_up(max(end, 1), mmap.PAGESIZE))


class Block:
    """Shared memory that holds the arrays of a layout. Closed when left as a context.

    Attributes:
        layout: its arrays.
        descriptor: of the memory; send it to pass the block on.
    """

    def __init__(self, descriptor: int, layout: Layout) -> None:
        self.layout = layout
        self.descriptor = descriptor
        self._arrays = {array.name: array for array in layout.arrays}
        self._memory: mmap.mmap | None = None
        self._pinned: int | None = None

    @classmethod
    def create(cls, layout: Layout) -> "Block":
        """A block of zeros that takes no memory until it is allocated or written.

        Raises:
            BlockError: the system refuses one more descriptor or one of that size.
        """
        with _block_errors(layout.nbytes):
            descriptor = os.memfd_create(NAME, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            try:
                os.ftruncate(descriptor, layout.nbytes)
                seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
                fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
            except BaseException:
                os.close(descriptor)
                raise
        return cls(descriptor, layout)

    @classmethod
    def attach(cls, descriptor: int, layout: Layout) -> "Block":
        """The block that another process created. Takes over the descriptor, also when it fails.

        Raises:
            ValueError: the memory is not of the layout's size.
        """
        if (size := os.fstat(descriptor).st_size) != layout.nbytes:
            os.close(descriptor)
            raise ValueError(f"a block of {size} bytes, not {layout.nbytes}")
        return cls(descriptor, layout)

    @property
    def nbytes(self) -> int:
        """What it takes of memory when all of it is allocated or written."""
        return self.layout.nbytes

    @property
    def taken(self) -> int:
        """Bytes of memory that it has taken by now, here or in another process; 0 once closed."""
        return 0 if self.descriptor < 0 else os.fstat(self.descriptor).st_blocks * 512

    def allocate(self) -> None:
        """Take the memory now, so that no later write can fail.

        Raises:
            BlockError: there is not enough.
        """
        # The kernel sets these files no limit: it would sooner end a process than refuse.
        missing = self.nbytes - self.taken
        if missing > (available := available_memory()):
            raise BlockError(_no_memory(self.nbytes, f"{available // MIB} MiB are available"))
        with _block_errors(self.nbytes):
            os.posix_fallocate(self.descriptor, 0, self.nbytes)

    def __contains__(self, name: object) -> bool:
        return name in self._arrays

    def __getitem__(self, name: str) -> NDArray[Any]:
        """The array, writable, not a copy.

        Raises:
            KeyError: there is none of that name.
            ValueError: the block is closed.
        """
        array = self._arrays[name]
        return np.ndarray(array.shape, array.dtype, self._mapped(), array.offset)

    def get(self, name: str) -> NDArray[Any] | None:
        """The array, or None where there is none of that name."""
        return self[name] if name in self._arrays else None

    def tensor(self, name: str) -> "torch.Tensor":
        """The array as a tensor on the CPU: the same memory."""
        import torch

        return torch.from_numpy(self[name])

    def pin(self) -> bool:
        """Lock the memory for copies to and from a GPU that do not wait; undone by `close`.

        Returns whether it could be had: without CUDA it cannot.
        """
        import torch

        if self._pinned is None and torch.cuda.is_available():
            address = np.frombuffer(self._mapped(), np.uint8).ctypes.data
            if int(_cuda_runtime().cudaHostRegister(address, self.nbytes, 0)) == 0:
                self._pinned = address
        return self._pinned is not None

    def close(self) -> None:
        """Let go of the memory. Arrays that are still in use keep it until they are gone."""
        if self._pinned is not None:
            _cuda_runtime().cudaHostUnregister(self._pinned)
            self._pinned = None
        # Not closed: arrays refer to it, but do not hold it open. The last reference unmaps it.
        self._memory = None
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _mapped(self) -> mmap.mmap:
        if self._memory is None:
            if self.descriptor < 0:
                raise ValueError("the block is closed")
            self._memory = mmap.mmap(self.descriptor, self.nbytes)
        return self._memory


def available_memory() -> int:
    """Bytes that can still be had without swapping or the end of a process.

    The least of what the machine has and of what the control groups of this process leave.
    """
    machine = 0
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            machine = int(line.split()[1]) * 1024
    return min([machine, *_group_limits()])


def _cuda_runtime() -> Any:
    import torch

    return torch.cuda.cudart()  # type: ignore[no-untyped-call]


def _group_limits() -> Iterator[int]:
    """What each control group (version 2) above this process leaves, in bytes."""
    for folder in control_groups():
        try:
            limit = (folder / "memory.max").read_text().strip()
            if limit != "max":
                yield int(limit) - _held_by(folder)
        except OSError:  # no such controller there
            continue


def _held_by(group: Path) -> int:
    """Bytes that a control group holds and that the kernel cannot simply take back."""
    statistics = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    reclaimable = int(statistics["inactive_file"]) + int(statistics["active_file"])
    return int((group / "memory.current").read_text()) - reclaimable


@contextmanager
def _block_errors(nbytes: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BlockError(_no_memory(nbytes, os.strerror(error.errno or errno.ENOMEM))) from error


def _no_memory(nbytes: int, reason: str) -> str:
    return (
        f"no memory for a block of {-(-nbytes // MIB)} MiB: {reason};"
        " lower prefetch.memory or free some"
    )


def _rounded_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
