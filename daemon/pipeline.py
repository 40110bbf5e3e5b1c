"""The main loop: clips side by side through prepare, translate, propagate and publish."""

import asyncio
import itertools
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

from daemon.devices import DeviceLost
from daemon.failure_note import FailureNotes
from daemon.failures import details, first_cause, reason
from daemon.fingerprints import Fingerprints, fingerprints, is_done
from daemon.job_files import JobFiles
from daemon.job_queue import JobQueue
from daemon.job_settings import job_settings
from daemon.jobs import Job, JobRecord, JobResult, JobState, Outcome
from daemon.logs import about
from daemon.manifest import manifest
from daemon.memory import Account
from daemon.printable import printable
from daemon.progress import Progress
from daemon.settings import Settings
from daemon.stages import key_frame_options, translation_options
from daemon.work import ClipWork, WindowWork
from daemon.workshop import Workshop
from fresco_core.errors import ClipError, FrescodError
from io_pipeline.checkpoint import CheckpointError
from io_pipeline.prompt import read_prompt
from io_pipeline.publish import Encoding
from io_pipeline.staging import Staging
from io_pipeline.window import Window, windows
from io_pipeline.writing import DiskFullError

# Seconds until a job is claimed again: one whose files change, one without space on the disk.
SOON, NO_SPACE = 1.0, 60.0

Prepared = asyncio.Queue[WindowWork | None]


class NotNowError(FrescodError):
    """A job is not to be touched at the moment: it is queued again."""


class Pipeline:
    """Takes clips through a workshop: a coroutine for each clip, tasks for what goes on beside it.

    ``identity()`` is all that a half-finished result must have in common with this run for it to be
    continued, the job's own fingerprints apart. ``admit(job)`` tells where a job's files are
    to be opened, and raises a FrescodError where it is not to be touched; ``on_window`` hears of
    every window that is done. ``force``: what is done already is done again.
    """

    def __init__(
        self,
        workshop: Workshop,
        queue: JobQueue,
        settings: Settings,
        output: Path,
        progress: Progress,
        *,
        identity: Callable[[], Mapping[str, str]],
        admit: Callable[[Job], JobFiles] = JobFiles,
        on_window: Callable[[WindowWork], None] = lambda work: None,
        force: bool = False,
        debug: bool = False,
    ) -> None:
        self.workshop = workshop
        self.queue = queue
        self.settings = settings
        self.output = output
        self.notes = FailureNotes(output)
        self.progress = progress
        self._identity = identity
        self._admit = admit
        self._on_window = on_window
        self._force = force
        self._debug = debug
        # By the job's number in the store.
        self._jobs: dict[int, Job] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._works: dict[int, asyncio.Future[Outcome]] = {}  # what of a job can be withdrawn
        self._clips: dict[int, ClipWork] = {}
        self._files: dict[int, JobFiles] = {}
        self._withdrawn: dict[int, tuple[Outcome, str]] = {}
        self._all_claimed = False
        workshop.propagation.outlook = self._left

    async def run(self) -> None:
        """Every job of the queue; those claimed first go first wherever two want the same.

        A job is claimed when it may soon have a device; until then it costs nothing.

        Raises:
            ExceptionGroup: of a FrescodError that ends the run: no models, no device left.
        """
        slots = asyncio.Semaphore(2 * len(self.workshop.devices.all))
        async with asyncio.TaskGroup() as group:
            for number in itertools.count():
                await slots.acquire()
                self._all_claimed = True  # if there is one now, it is had in a moment
                job = await self.queue.claim()
                if job is None:
                    return
                self._all_claimed = False
                slot = ExitStack()
                slot.callback(slots.release)
                slot.enter_context(self.workshop.devices.expected(number))
                self.progress.begin(job, number + 1, self.queue.count)
                self._jobs[job.id] = job
                with about(job=job.id, clip=job.clip):
                    work = asyncio.ensure_future(self._outcome(job, number, slot))
                    self._works[job.id] = work
                    self._tasks[job.id] = group.create_task(self._job(job, work, slot))

    @property
    def clips(self) -> set[Path]:
        """The clips in work."""
        return {job.clip for job in self._jobs.values()}

    def known(self, record: JobRecord) -> JobRecord:
        """What the store has of a job, and what is known of one in work."""
        clip = self._clips.get(record.id)
        return record if clip is None else replace(record, propagated=dict(clip.propagated))

    def drain(self) -> None:
        """Claim nothing more, and give back what has no device yet."""
        self.queue.drain()
        for number in self._jobs:
            clip = self._clips.get(number)
            if clip is None or clip.account.ahead:
                self._withdraw(number, Outcome.QUEUED)

    async def cancel(self, number: int, reason: str, seconds: float) -> bool:
        """End a job of that number, and forget what was done; False where none is in work.

        What workers do for it just now they do to its end; for that it waits so long at most.
        """
        task, clip = self._tasks.get(number), self._clips.get(number)
        if clip is not None and clip.state is JobState.PUBLISHING:  # its result may be there
            return False
        if task is None or not self._withdraw(number, Outcome.CANCELLED, reason):
            return False
        await asyncio.wait([task], timeout=seconds)
        return True

    def _withdraw(self, number: int, outcome: Outcome, reason: str = "") -> bool:
        if number in self._withdrawn or number not in self._works:
            return False
        self._withdrawn[number] = outcome, reason
        self._works[number].cancel()
        return True

    async def _clip(self, clip: ClipWork, slot: ExitStack) -> None:
        """One clip, from file to result folder; leaves ``slot`` when another may take its place."""
        shop = self.workshop
        prepared: Prepared = asyncio.Queue(self.settings.prefetch.windows)
        saved = None
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._prepare(clip, prepared))
            while work := await shop.next_window(clip, prepared):
                if work.window.index in clip.translated:
                    await shop.load(clip, work)
                else:
                    await shop.assignments.begin(clip)
                    await self._go_on(clip, JobState.TRANSLATING)
                    translated = await shop.translate(clip, work, saved, self._steps(clip, work))
                    saved = tasks.create_task(shop.save(clip, work, translated))
                self._tell(clip, "translate", work.window.index + 1, work.window.count)
                tasks.create_task(self._finish(clip, work, saved))
            count = len(clip.plan.batches)
            self._tell(clip, "translate", count, count)
            shop.assignments.end(clip)  # its device is for the next clip from here on
            slot.close()
            await self._go_on(clip, JobState.PROPAGATING)
        await self._go_on(clip, JobState.PUBLISHING)
        await self._publish(clip)

    async def _prepare(self, clip: ClipWork, prepared: Prepared) -> None:
        """The clip's windows, as far ahead as queue and memory allow."""
        async with self.workshop.reader(clip, self._frames(clip)) as reader:
            control = self.settings.control
            clip.plan = await reader.plan(
                key_frame_options(clip.settings),
                clip.controls,
                control.type if control.enabled else (),
            )
            self.workshop.propagation.compile_ahead(clip)
            clip.prompt.check(clip.plan.key_numbers, printable(clip.job.prompt_file))
            output = clip.settings.output.model_dump(exclude={"folder"})
            clip.encoding = Encoding.of(clip.plan, **output)
            unheard = clip.prompt.warnings(clip.plan.key_numbers, clip.plan.info.frame_count - 1)
            for warning in (*clip.plan.info.warnings, *unheard):
                self.workshop.warn(clip, warning)
            on_device = self.settings.flow.on_device
            for window in windows(
                clip.plan,
                steps=translation_options(clip.settings).executed_steps,
                flows=on_device,
                between=clip.settings.output.frames == "all",
                matched=not on_device,
                salient=self.settings.saliency.model == "motion"
                and clip.settings.constraints.background_smoothing,
                searched=not on_device and self.workshop.propagation.by_devices(clip),
            ):
                if window.index in clip.published:
                    self._count(clip, window)
                else:
                    await prepared.put(await self.workshop.read(clip, reader, window))
        count = clip.plan.frame_count
        self._tell(clip, "prepare", count, count)
        await prepared.put(None)

    async def _finish(
        self, clip: ClipWork, work: WindowWork, saved: asyncio.Task[None] | None
    ) -> None:
        """A translated window's frames: propagated, encoded, on disk, out of memory."""
        shop = self.workshop
        async with asyncio.TaskGroup() as segments:
            for segment in range(len(work.window.segments)):
                segments.create_task(shop.propagate(clip, work, segment))
        await shop.publish_window(clip, work)
        if saved is not None:
            await saved
        await shop.drop(clip, work)
        self._on_window(work)
        self._count(clip, work.window)
        clip.deaths = 0  # they were not in vain
        await self.queue.window_done(clip.job, clip.windows_done, work.window.count)

    async def _publish(self, clip: ClipWork) -> None:
        """The windows' files as one result, under its name."""
        facts = await self.workshop.devices.facts(clip.devices)
        told = manifest(clip, clip.settings, facts)
        for warning in await self.workshop.publish_clip(clip, self.output, told):
            self.workshop.warn(clip, warning)
        count = clip.plan.frame_count
        self._tell(clip, "publish", count, count)

    async def _job(self, job: Job, work: "asyncio.Future[Outcome]", slot: ExitStack) -> None:
        """A job, whatever becomes of it; raises only what ends the whole run."""
        start = time.monotonic()
        outcome, why = Outcome.FAILED, ""
        with slot:
            try:
                outcome = await work
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if job.id not in self._withdrawn or (task is not None and task.cancelling()):
                    raise
                outcome, why = self._withdrawn[job.id]
            except Exception as error:
                cause = first_cause(error)
                if self._debug:
                    self.progress.trace(details(cause))
                if cause is self.workshop.devices.failure:
                    raise cause from cause.__cause__
                why = reason(cause)
                if job.id in self._files:
                    why = self._files[job.id].named(why)
                if isinstance(cause, NotNowError):
                    outcome = Outcome.QUEUED
                    self.queue.put_off(job, SOON)
                elif self.queue.endless and isinstance(cause, DiskFullError):
                    outcome = Outcome.QUEUED
                    self.queue.put_off(job, NO_SPACE)
            finally:
                for of_job in (self._works, self._clips, self._withdrawn):
                    of_job.pop(job.id, None)
                if job.id in self._files:
                    self._files.pop(job.id).close()
        folder = self.output / job.name
        await self.notes.settle(job.name, outcome, why)
        # A clip of an inbox that is again what it was before an interrupted change: nobody wants
        # that. What a run has left of other settings may still be continued with these.
        as_before = outcome is Outcome.ALREADY_DONE and self.queue.endless
        if outcome is Outcome.CANCELLED or as_before:
            await asyncio.to_thread(self.forget, job.name)
        result = JobResult(job.clip, outcome, time.monotonic() - start, why, folder)
        await self.queue.end(job, result)
        del self._jobs[job.id], self._tasks[job.id]
        self.progress.end(job, result)

    def forget(self, name: str) -> None:
        """Remove what was built of a result."""
        with suppress(FrescodError):  # what is left is removed when the clip comes again
            Staging(self.output, name).remove()

    async def _outcome(self, job: Job, number: int, slot: ExitStack) -> Outcome:
        """Do a job, or see that it was done before."""
        files = self._files[job.id] = await asyncio.to_thread(self._admit, job)
        settings = await asyncio.to_thread(
            job_settings, self.settings, job.settings_file, files.settings_file
        )
        prints = await asyncio.to_thread(fingerprints, files, settings)
        await self.queue.begin(job, prints)
        if not self._force and await asyncio.to_thread(is_done, self.output / job.name, prints):
            return Outcome.ALREADY_DONE
        await self.workshop.start()
        await self._continue(job, number, settings, prints, slot, self._force)
        return Outcome.DONE

    async def _continue(
        self,
        job: Job,
        number: int,
        settings: Settings,
        prints: Fingerprints,
        slot: ExitStack,
        force: bool,
        before: ClipWork | None = None,
    ) -> None:
        """The clip from where an earlier run, or this one (``before``), has left it."""
        files = self._files[job.id]
        prompt = await asyncio.to_thread(read_prompt, files.prompt_file)
        staging = Staging(self.output, job.name)
        identity = {**await asyncio.to_thread(self._identity), **prints.to_json()}
        account = Account(number)
        clip = ClipWork(job, number, prints, prompt, account, staging.folder, settings)
        clip.source, clip.controls, clip.named = files.clip, files.control_files, files.named
        clip.deaths, clip.on_death = job.attempts - 1, lambda: self.queue.charge(job)
        self._clips[job.id] = clip
        if before is not None:
            clip.take_over(before)
        done = await self.workshop.until_space(
            clip,
            lambda: asyncio.to_thread(
                staging.open, identity, fresh=force, frames=settings.output.frames
            ),
        )
        clip.published, clip.translated = done.published, done.translated
        clip.batches = dict(done.batches)
        try:
            await self._clip_or_nothing(clip, slot, staging)
        except ExceptionGroup as group:
            cause = first_cause(group)
            if isinstance(cause, DeviceLost):
                await self._continue(job, number, settings, prints, slot, False, clip)
            elif isinstance(cause, CheckpointError) and not force:
                self.workshop.warn(clip, f"{cause}: begun anew")
                await self._continue(job, number, settings, prints, slot, True, clip)
            else:
                raise
        except asyncio.CancelledError:
            if job.id in self._withdrawn:
                await self.workshop.clear(clip)
            else:  # the whole run is: what workers do is given up
                clip.abandon()
            if not clip.begun:
                await asyncio.to_thread(self.forget, job.name)
            raise

    async def _clip_or_nothing(self, clip: ClipWork, slot: ExitStack, staging: Staging) -> None:
        """One clip; one that fails leaves only what a later run can continue."""
        try:
            await self._clip(clip, slot)
        except Exception as error:
            await self.workshop.clear(clip)
            if isinstance(first_cause(error), ClipError | CheckpointError) or not clip.begun:
                await asyncio.to_thread(staging.remove)
            raise

    def _left(self) -> list[tuple[int, int] | None]:
        """What is left of each clip, see `ClipWork.left`; with None if there may be others."""
        if not self._all_claimed or self._works.keys() - self._clips.keys():
            return [None]
        return [clip.left for clip in self._clips.values()]

    def _steps(self, clip: ClipWork, work: WindowWork) -> Callable[[str, int, int], None]:
        """Passes a device's progress on, counted in windows of the clip."""

        def on_step(phase: str, done: int, count: int) -> None:
            if phase == "step":
                # A window is done when its pictures are decoded, after the last step.
                done_windows = work.window.index + done / (count + 1)
                self._tell(clip, "translate", done_windows, work.window.count)

        return on_step

    def _frames(self, clip: ClipWork) -> Callable[[str, int, int], None]:
        """Passes a reader's progress on, in frames; how many there are it may not know."""

        def on_frame(phase: str, done: int, count: int) -> None:
            # Every task begins by saying 0; all frames are there when the last window is.
            if not count or 0 < done < count:
                self._tell(clip, "prepare", done, count or None)

        return on_frame

    async def _go_on(self, clip: ClipWork, state: JobState) -> None:
        """The clip has come to a stage."""
        if clip.state is not state:
            clip.state = state
            await self.queue.go_on(clip.job, state)

    def _count(self, clip: ClipWork, window: Window) -> None:
        """A window's frames are on disk."""
        new = window.new_frames
        clip.frames_done += new.stop - new.start
        clip.windows_done += 1
        self._tell(clip, "propagate", clip.frames_done, clip.plan.frame_count)

    def _tell(self, clip: ClipWork, stage: str, done: float, total: int | None) -> None:
        self.progress.stage(clip.job, stage, done, total, clip.seconds[stage])
