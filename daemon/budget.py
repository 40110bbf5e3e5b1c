"""What there is only so much of: cores. Who needs some waits until it is there."""

import asyncio
import heapq
import itertools
import os

from io_pipeline.control_groups import control_groups


class Budget:
    """A number of tokens. The waiting one of smallest priority is served first, none overtakes it.

    So a request for many tokens is not starved by those for few. Requests of equal priority are
    served as they came.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.free = total
        self._waiting: list[tuple[tuple[int, ...], int, int, asyncio.Future[None]]] = []
        self._order = itertools.count()

    async def acquire(self, amount: int = 1, priority: tuple[int, ...] = ()) -> None:
        """Wait for tokens; a request for more than there are takes all."""
        request = asyncio.get_running_loop().create_future()
        amount = min(amount, self.total)
        heapq.heappush(self._waiting, (priority, next(self._order), amount, request))
        self._serve()
        try:
            await request
        except asyncio.CancelledError:
            if request.cancelled():
                self._serve()  # it may have stood in the way of smaller ones
            else:
                self.release(amount)
            raise

    def release(self, amount: int = 1) -> None:
        """Give tokens back."""
        self.free += min(amount, self.total)
        self._serve()

    def _serve(self) -> None:
        while self._waiting:
            _, _, amount, request = self._waiting[0]
            if not request.done():
                if amount > self.free:
                    return
                self.free -= amount
                request.set_result(None)
            heapq.heappop(self._waiting)


def usable_cores() -> int:
    """Cores that this process may use, by affinity and by the quota of its control groups."""
    cores = len(os.sched_getaffinity(0))
    for group in control_groups():
        try:
            quota, period = (group / "cpu.max").read_text().split()
            cores = min(cores, max(1, round(int(quota) / int(period))))
        except (OSError, ValueError):  # no such controller there, or no quota: "max"
            continue
    return cores
