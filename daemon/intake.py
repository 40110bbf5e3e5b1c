"""From the inbox into the store: what arrives, changes and goes, also while its job runs."""

import asyncio
from collections.abc import Callable, Collection, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import structlog

from daemon.actions import Action
from daemon.inbox import Changes, Inbox
from daemon.job_queue import JobQueue
from daemon.job_settings import job_priority
from daemon.jobs import RUNNING, Arrival, Job, JobRecord, JobResult, JobState, Outcome

MANY = 20  # arrivals at once that are counted instead of told one by one

_ACTIONS = {
    JobState.DONE: Action.JOB_DONE,
    JobState.FAILED: Action.JOB_FAILED,
    JobState.SKIPPED: Action.INBOX_REFUSED,
    JobState.CANCELLED: Action.JOB_CANCELLED,
}

log: Any = structlog.get_logger()


class Intake:
    """Enters what the inbox tells of.

    ``running()`` are the clips whose jobs run; ``forget(name)`` removes what was built of a result.
    """

    def __init__(
        self,
        inbox: Inbox,
        queue: JobQueue,
        running: Callable[[], Collection[Path]],
        forget: Callable[[str], None],
    ) -> None:
        self._inbox = inbox
        self._queue = queue
        self._running = running
        self._forget = forget
        # Until what a clip has left is removed, no other one is given its name.
        self._entering = asyncio.Lock()
        # Clips that changed while their jobs ran: told again when those have ended.
        self._changed_meanwhile: set[Path] = set()
        self._tasks: set[asyncio.Task[Any]] = set()

    async def change(self, changes: Changes) -> None:
        """Enter what is new in the inbox into the store; what runs is told again when it ends."""
        arrivals = await asyncio.to_thread(lambda: [_with_priority(a) for a in changes.arrived])
        async with self._entering:
            # First, so that a clip that was renamed may have the other's name.
            gone = await self._gone(changes.gone)
            records = await self._queue.do(self._queue.store.arrive, arrivals)
        for clip in [record.clip for record in records if record.state in RUNNING]:
            if clip in self._running():
                self._changed_meanwhile.add(clip)
            else:  # it is being claimed, or has just ended
                self._tell_again(clip)
        records = gone + [record for record in records if record.state not in RUNNING]
        self._queue.wake()
        if len(records) > MANY:
            log.info(f"{len(records)} clips arrived or changed", action=Action.JOB_ARRIVED)
            records = [record for record in records if record.state is JobState.SKIPPED]
        for record in records:
            tell(record)

    def ended(self, job: Job, result: JobResult) -> None:
        """What came while the job ran is looked at now."""
        if job.clip in self._changed_meanwhile:
            self._changed_meanwhile.discard(job.clip)
            self._tell_again(job.clip)
        if result.outcome is Outcome.QUEUED:
            self._beside(self._cancel_if_gone(job.clip))

    def _tell_again(self, clip: Path) -> None:
        self._beside(self._inbox.tell_again(clip))

    async def _cancel_if_gone(self, clip: Path) -> None:
        """The inbox may have told of its end while it was in work."""
        if await self._inbox.lacks(clip):
            async with self._entering:
                gone = await self._gone([clip])
            for record in gone:
                tell(record)

    async def _gone(self, clips: Collection[Path]) -> list[JobRecord]:
        """Cancel the jobs of clips that are not there any more, and remove what was built."""
        cancelled = await self._queue.do(self._queue.store.gone, clips)
        for record in cancelled:  # it may have been interrupted
            await asyncio.to_thread(self._forget, record.name)
        return cancelled

    def _beside(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def tell(record: JobRecord) -> None:
    """Log where a job is that waits, or has ended."""
    told = about(record)
    action = _ACTIONS.get(record.state, Action.JOB_ARRIVED)
    if record.reason:
        log.warning(record.reason, action=action, **told)
    else:
        log.info(str(record.state), action=action, **told)


def about(record: JobRecord) -> dict[str, Any]:
    """The fields that say which job a log record is about."""
    return {"job": record.id, "clip": record.clip.name}


def _with_priority(arrival: Arrival) -> Arrival:
    """The priority that the clip's settings file gives it, where nobody else has given one."""
    if arrival.priority is not None or arrival.settings_file is None or arrival.refused:
        return arrival
    return replace(arrival, priority=job_priority(arrival.settings_file))
