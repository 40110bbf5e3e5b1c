"""``frescod serve``: the pipeline fed by the inbox, for as long as nobody ends it."""

import asyncio
import os
import signal
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import structlog

from daemon import logs
from daemon.actions import Action
from daemon.control import ControlServer
from daemon.failures import first_cause
from daemon.fingerprints import Fingerprints, is_done
from daemon.inbox import Changes, Inbox, seen_now
from daemon.intake import Intake, about, tell
from daemon.job_files import JobFiles
from daemon.job_queue import JobQueue
from daemon.job_store import JobStore
from daemon.jobs import RUNNING, Job, JobRecord, JobResult, JobState
from daemon.live import Live
from daemon.metrics import Metrics
from daemon.notify import Notifier
from daemon.pipeline import NotNowError, Pipeline
from daemon.places import Places
from daemon.settings import Settings
from daemon.setup import open_workshop
from daemon.status import snapshot
from daemon.store_view import StoreView
from daemon.timeline import Timeline
from daemon.weights import require_weights
from daemon.work import WindowWork
from fresco_core.errors import FrescodError

if TYPE_CHECKING:
    from daemon.stages import Stages

EXTENSION = 60.0  # seconds that the service manager is asked for, again and again
STORE_SECONDS = 20.0  # in which a store that is well answers
CANCEL_SECONDS = 2.0  # for which somebody is kept waiting


class Service:
    """The daemon: what `daemon.control.Backend` asks for, and the signals."""

    def __init__(
        self,
        settings: Settings,
        places: Places,
        store: JobStore,
        stages: "Stages",
        *,
        debug: bool = False,
    ) -> None:
        self.inbox = places.inbox
        self.ready = False
        self.state = "loading"
        self._absent = stages.absent
        self.started = time.time()
        self._begun = time.monotonic()
        self.settings = settings
        self.places = places
        self.store = store
        self.live = Live()
        self.notifier = Notifier()
        self.queue = JobQueue(
            store,
            endless=True,
            hold=lambda: self._watched.away,
            on_end=self._ended,
            on_problem=self._warn_of_store,
        )
        self.view = StoreView(store, self.queue.ask)
        self.workshop = open_workshop(
            settings,
            stages,
            Timeline(keep=False),
            self.live.warn,
            self._before_devices,
            self.live.trace,
            lambda worker, record: logs.worker_record(worker.name, record),
        )
        self.pipeline = Pipeline(
            self.workshop,
            self.queue,
            settings,
            places.output,
            self.live,
            identity=stages.identity,
            admit=self._admit,
            on_window=self._window_done,
            debug=debug,
        )
        self.figures = Metrics()
        self._log: Any = structlog.get_logger()
        self._watched: Inbox
        self._work: asyncio.Task[None]
        self._signals = 0
        self._end: asyncio.TimerHandle | None = None
        self.intake: Intake

    # --- the main loop ---------------------------------------------------------------------------

    async def run(self) -> None:
        """Until drained, or ended by signals.

        Raises:
            FrescodError: what ends the daemon.
        """
        self._log.info("starting", action=Action.SERVICE_LOADING, pid=os.getpid())
        await self._recover()
        known = await self.queue.ask(self.store.known)
        # Where the inbox was another folder, or a run has used the same store.
        elsewhere = [clip for clip in known if self.inbox not in clip.parents]
        await self.queue.ask(self.store.gone, elsewhere)
        self._watched = Inbox(
            self.inbox, self.settings.inbox, self._change, known, self._warn_of_inbox
        )
        self.intake = Intake(
            self._watched, self.queue, lambda: self.pipeline.clips, self.pipeline.forget
        )
        self._work = asyncio.create_task(self._serve())
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._signalled, number)
        async with AsyncExitStack() as stack:
            stack.callback(self.queue.close)
            stack.push_async_callback(self.workshop.close)
            server = ControlServer(self.places.socket, self, self.settings.metrics.listen)
            await stack.enter_async_context(server)
            beside = (
                self._watched.run(),
                self._keep_alive(),
                self.view.run(),
                self.pipeline.notes.run(),
            )
            tasks = [self._work, *map(asyncio.ensure_future, beside)]
            stack.push_async_callback(_cancel, tasks)
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            self.state = "stopping"
            self.notifier.stopping()
            self._log.info("stopping", action=Action.SERVICE_STOPPING)
            for task in done:
                error = None if task.cancelled() else task.exception()
                if error is not None:
                    raise first_cause(error) if isinstance(error, Exception) else error

    async def _serve(self) -> None:
        """Take jobs from the moment that the first device is ready."""
        await self.workshop.start()
        await self.workshop.devices.facts()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._announce())
            group.create_task(self.pipeline.run())

    async def _announce(self) -> None:
        await self.workshop.devices.settled()
        self.ready = True
        if self.state == "loading":
            self.state = "serving"
        self.notifier.ready()
        self._log.info("ready", action=Action.SERVICE_READY, inbox=str(self.inbox))

    async def _recover(self) -> None:
        """Settle what an earlier daemon has left."""
        attempts = self.settings.service.attempts
        recovered = await self.queue.ask(self.store.recover, attempts, self._is_done)
        for record in recovered:
            self._log.info(
                f"found interrupted: {record.state}",
                action=Action.STORE_RECOVERED,
                **about(record),
            )
            if record.state is JobState.DONE:
                await asyncio.to_thread(self.pipeline.forget, record.name)
        self.pipeline.notes.owe(await self.queue.ask(self._failures))

    def _failures(self) -> dict[str, str]:
        """Why clips of the inbox have no result, by the name that it would have."""
        return {
            record.name: record.reason
            for record in self.store.failed()
            if self.inbox in record.clip.parents and record.clip.exists()
        }

    def _is_done(self, name: str, prints: Fingerprints) -> bool:
        return is_done(self.places.output / name, prints)

    def _before_devices(self) -> None:
        require_weights(self.settings)

    def _admit(self, job: Job) -> JobFiles:
        """Hold the files, if they are those that were told and none leads out of the inbox."""
        told = self.store.seen(job.id)
        if seen_now(self.inbox, *job.files) != told:
            raise NotNowError("its files are changing")
        files = JobFiles(job, self.inbox)
        if files.seen != told:  # changed in between
            files.close()
            raise NotNowError("its files are changing")
        return files

    # --- arrivals and ends -----------------------------------------------------------------------

    async def _change(self, changes: Changes) -> None:
        await self.intake.change(changes)

    def _window_done(self, work: WindowWork) -> None:
        window = work.window
        frames = window.new_frames.stop - window.new_frames.start
        self.figures.window_done(len(window.key_numbers), frames, work.seconds)

    def _ended(self, job: Job, result: JobResult) -> None:
        self.figures.job_ended(result.outcome)
        self.intake.ended(job, result)

    def _warn_of_store(self, text: str) -> None:
        self._log.warning(text, action=Action.STORE_PROBLEM)

    def _warn_of_inbox(self, text: str) -> None:
        self._log.warning(text, action=Action.INBOX_PROBLEM)

    # --- how it is -------------------------------------------------------------------------------

    async def refresh(self) -> None:
        """Have the status be as things are now, as far as that takes no time."""
        await self.view.refresh()

    def status(self) -> dict[str, Any]:
        """All there is to see, as `daemon.status.snapshot` has it."""
        return snapshot(
            self.workshop,
            self.live,
            self.places,
            state=self.state,
            started=self.started,
            uptime=time.monotonic() - self._begun,
            counts=self.view.counts,
            failures=self.view.failures,
            problems=self.problems(),
        )

    def metrics(self) -> str:
        """Figures in Prometheus' text format."""
        shop = self.workshop
        busy = shop.timeline.busy_seconds()
        workers = {
            "reader": shop.readers.workers,
            "pool": shop.pool.workers,
            "device": [device.worker for device in shop.devices.all],
        }
        deaths = {kind: sum(each.deaths for each in found) for kind, found in workers.items()}
        return self.figures.text(
            self.status(), busy, deaths, inbox_healthy=not self._watched.problem
        )

    def problems(self) -> Sequence[str]:
        """What is not well; empty when all is."""
        lost = [
            f"{device.name} is lost: {device.lost}"
            for device in self.workshop.devices.all
            if device.lost
        ]
        absent = [f"{name} is not there" for name in self._absent]
        found = (self._watched.problem, self.queue.problem, *absent, *lost)
        return [text for text in found if text]

    async def _keep_alive(self) -> None:
        """Tell the service manager that all goes on, and what."""
        interval = self.notifier.watchdog_interval or EXTENSION
        while True:
            if not self.ready or self.state == "draining":
                self.notifier.extend(EXTENSION)
            if await self._is_alive():
                self.notifier.watchdog()
            await self.view.refresh()
            with suppress(FrescodError):
                self.notifier.status(self._in_short())
            await asyncio.sleep(min(interval, EXTENSION) / 3)

    async def _is_alive(self) -> bool:
        """Whether the daemon's parts go on, whatever the world around them is like."""
        try:
            async with asyncio.timeout(STORE_SECONDS):
                await self.queue.ask(self.store.counts)
        except (TimeoutError, FrescodError):
            return bool(self.queue.problem)  # a full disk is waited for
        return True

    def _in_short(self) -> str:
        running, queued = len(self.pipeline.clips), self.view.counts[JobState.QUEUED]
        text = f"{self.state}: {running} running, {queued} queued"
        return "; ".join([text, *self.problems()])

    # --- commands --------------------------------------------------------------------------------

    async def jobs(
        self, state: JobState | None, limit: int, before: int | None, clip: str | None
    ) -> Sequence[JobRecord]:
        """The newest first; those before a number, those of clips that may be meant by a name."""
        found = await asyncio.to_thread(self.store.jobs, state, limit, before, clip)
        return [self.pipeline.known(record) for record in found]

    async def job(self, id: int) -> JobRecord:
        """One job; KeyError where there is none."""
        return self.pipeline.known(await asyncio.to_thread(self.store.get, id))

    async def submit(self, name: str, priority: int | None) -> JobRecord:
        """Take a clip of the inbox that is complete."""
        arrival = await self._watched.take(name, priority)
        await self.intake.change(Changes((arrival,)))
        record = await self.queue.ask(self.store.latest, arrival.clip)
        assert record is not None
        return record

    async def retry(self, id: int) -> JobRecord:
        """Queue it again; KeyError, or FrescodError where its state does not allow it."""
        record = await self.queue.ask(self.store.retry, id)
        self._log.info("queued again", action=Action.JOB_RETRIED, **about(record))
        self.queue.wake()
        return record

    async def cancel(self, id: int) -> JobRecord:
        """End it; KeyError, or FrescodError where its state does not allow it."""
        if await self.pipeline.cancel(id, "by command", CANCEL_SECONDS):
            record = await self.queue.ask(self.store.get, id)
            if record.state in RUNNING:
                return replace(record, reason="ends as soon as the window in work is done")
            if record.state is JobState.CANCELLED:
                return record
        record = await self.queue.ask(self.store.cancel, id)
        await asyncio.to_thread(self.pipeline.forget, record.name)
        tell(record)
        return record

    def pause(self) -> None:
        """Take no more jobs until `resume`."""
        if self.state in ("serving", "loading"):
            self.state = "paused"
        self.queue.pause()
        self._log.info("paused", action=Action.SERVICE_PAUSED)

    def resume(self) -> None:
        """Take jobs again.

        Raises:
            FrescodError: it is about to end.
        """
        if self.state in ("draining", "stopping"):
            raise FrescodError(f"the daemon is {self.state}: start it again when it has ended")
        self.state = "serving" if self.ready else "loading"
        self.queue.resume()
        self._log.info("resumed", action=Action.SERVICE_RESUMED)

    def drain(self, timeout: float | None) -> None:
        """End when what runs is finished, or, so many seconds from now, at its last checkpoint."""
        self._log.info("draining", action=Action.SERVICE_DRAINING, timeout=timeout)
        if self.state != "stopping":
            self.state = "draining"
        self.notifier.stopping()
        self.notifier.extend(EXTENSION)
        self.pipeline.drain()
        if not self.ready and not self.pipeline.clips:
            timeout = 0.0
        if self._end is not None:
            self._end.cancel()
        if timeout is not None:
            loop = asyncio.get_running_loop()
            self._end = loop.call_later(timeout, self._work.cancel)

    def _signalled(self, number: signal.Signals) -> None:
        self._signals += 1
        self.drain(0.0 if self._signals > 1 else self.settings.service.drain_seconds)


async def _cancel(tasks: Sequence["asyncio.Task[Any]"]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
