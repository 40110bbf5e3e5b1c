"""Shared memory as bytes that are granted: never more than the budget, and never a deadlock.

A clip that has a device needs its windows one after another; each drains on its own once it is
granted, so such a clip can always go on when a window's bytes come back. A clip that is only
prepared ahead holds its bytes until it gets a device, for as long as others have them all:
together such clips hold at most half, and no window may need more than the other half.
"""

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from fresco_core.errors import ClipError, ConfigError
from io_pipeline.blocks import available_memory

_UNITS = {"MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
_PER_DEVICE = 2**30
_MIB = 2**20


@dataclass(eq=False)
class Account:
    """What one clip holds; ``number`` is its place in the order of clips."""

    number: int
    ahead: bool = True
    held: int = 0


@dataclass(order=True)
class _Request:
    number: int
    order: int
    nbytes: int = field(compare=False)
    account: Account = field(compare=False)
    granted: asyncio.Future[None] = field(compare=False)


class Memory:
    """Grants bytes to accounts in the order of their numbers; nobody overtakes."""

    def __init__(self, total: int, on_change: Callable[[int], None] = lambda used: None) -> None:
        self.total = total
        self.used = 0
        self.peak = 0
        self._requests: list[_Request] = []
        self._order = 0
        self._ahead = 0
        self._on_change = on_change

    def check(self, nbytes: int, clip: Path) -> None:
        """Raise ClipError where a window of this size can never be granted."""
        if nbytes > self.total // 2:
            raise ClipError(
                f"{clip}: a window of it takes {nbytes / _MIB:.1f} MiB of shared memory, more than "
                f"half of prefetch.memory: raise that to {-(-2 * nbytes // _MIB)}MiB or lower "
                "key_frames.resolution, key_frames.max_interval or key_frames.batch_size"
            )

    async def acquire(
        self, account: Account, nbytes: int, on_wait: Callable[[], None] = lambda: None
    ) -> None:
        """Wait until the bytes can be had; ``on_wait`` is called where that is not at once."""
        future = asyncio.get_running_loop().create_future()
        request = _Request(account.number, self._order, nbytes, account, future)
        self._order += 1
        self._requests.append(request)
        self._requests.sort()
        self._grant()
        if not future.done():
            on_wait()
        try:
            await future
        except asyncio.CancelledError:
            if not future.cancelled():
                self.release(account, nbytes)
            else:
                self._grant()  # it may have stood in the way of others
            raise

    def release(self, account: Account, nbytes: int) -> None:
        """Give bytes back."""
        self._add(account, -nbytes)
        self._grant()

    def promote(self, account: Account) -> None:
        """The account's clip has a device now."""
        if account.ahead:
            account.ahead = False
            self._ahead -= account.held
            self._grant()

    def _add(self, account: Account, nbytes: int) -> None:
        account.held += nbytes
        self._ahead += nbytes if account.ahead else 0
        self.used += nbytes
        self.peak = max(self.peak, self.used)
        self._on_change(self.used)

    def _grant(self) -> None:
        self._requests = [request for request in self._requests if not request.granted.done()]
        for request in list(self._requests):
            ahead = request.account.ahead
            if ahead and self._ahead + request.nbytes > self.total // 2:
                continue
            if self.used + request.nbytes > self.total:
                return
            self._requests.remove(request)
            self._add(request.account, request.nbytes)
            request.granted.set_result(None)


def budget_bytes(text: str, devices: int) -> int:
    """The bytes of ``prefetch.memory``: ``2GiB``, ``512MiB``, or ``auto``.

    Raises:
        ConfigError: no size, or more than the machine has.
    """
    available = available_memory()
    if text == "auto":
        return min((devices + 1) * _PER_DEVICE, available // 4)
    wanted = size_bytes(text)
    if wanted == 0:
        raise ConfigError(f"prefetch.memory = {text!r} is no size: write 2GiB, 512MiB or auto")
    if wanted > available:
        raise ConfigError(
            f"prefetch.memory = {text!r}: {wanted // _MIB} MiB of shared memory are needed, "
            f"{available // _MIB} MiB are available: lower it or free some memory"
        )
    return wanted


def size_bytes(text: str) -> int:
    """The bytes of a size such as ``2GiB`` or ``512MiB``; 0 for what is none."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([MGT]iB)", text, re.IGNORECASE)
    return int(float(match[1]) * _UNITS[match[2].upper()]) if match else 0
