"""One-shot mode: a folder of clips, done once, and a closing summary."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import click

from daemon.failures import first_cause
from daemon.folder_scan import FolderScan, scan
from daemon.job_queue import JobQueue
from daemon.job_store import JobStore, StoreError
from daemon.jobs import Arrival, Job, JobResult, Outcome
from daemon.kept_prompt import KeptPrompt
from daemon.logs import worker_record
from daemon.misspellings import misspelt
from daemon.order import longest_first
from daemon.output_folder import held
from daemon.pipeline import Pipeline
from daemon.places import STATE, STORE
from daemon.printable import printable
from daemon.progress import Progress, summary, watch
from daemon.run_input import without_prompt
from daemon.settings import Settings
from daemon.setup import open_workshop
from daemon.stages import make_stages
from daemon.state_folder import make
from daemon.timeline import Timeline, check_place
from daemon.weights import choose_models, require_weights
from fresco_core.errors import ConfigError, FrescodError
from io_pipeline.staging import Staging


class Interrupted(Exception):
    """A signal has ended the run."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(number)
        self.number = number


def run_folder(
    clips: Path,
    prompts: Path,
    output: Path,
    settings: Settings,
    *,
    warnings: Sequence[str] = (),
    force: bool = False,
    debug: bool = False,
    timeline: Path | None = None,
    progress: Progress | None = None,
    prompt: str | None = None,
    only: str | None = None,
) -> int:
    """Translate every clip of a folder that has a prompt; returns the exit code.

    ``timeline`` gets a trace of who worked when, and a picture of it beside it. ``prompt``: of
    clips without a prompt file; ``only``: the file name of the one clip that counts.

    Raises:
        ConfigError: the one clip has no prompt.
        FrescodError: before the first clip: models missing, no such device, a folder that cannot be
            read or written, or that another run writes to; later: no device left.
    """
    start = time.monotonic()
    recorded = Timeline()
    progress = progress or watch(settings.log.format, settings.log.level)
    with ExitStack() as stack:
        kept = None if prompt is None else KeptPrompt.of(prompt, output)
        try:
            # As the daemon has them: both may use the same store.
            inbox = scan(
                clips.absolute(),
                prompts.absolute(),
                output,
                prompt=None if kept is None else kept.file,
                only=only,
            )
        except OSError as error:
            raise ConfigError(f"{error.filename}: cannot be read: {error.strerror}") from error
        if only is not None and not inbox.jobs:
            raise ConfigError(without_prompt(only, prompts))
        if timeline is not None:
            check_place(timeline)
        watching = stack.enter_context(progress)
        for warning in warnings:
            watching.warn(warning)
        results = _without_prompt(inbox, prompts, watching)
        taken: dict[Path, JobResult] = {}
        if not inbox.jobs and not results:
            watching.warn(f"no clips (.mp4 .avi .mov .mkv) in {printable(clips)}")

        if inbox.jobs:
            stack.enter_context(held(output))
            if kept is not None:
                _keep(kept, inbox.jobs, watching)
            settings, chosen = choose_models(settings)
            for choice in chosen:
                watching.note(choice)
            stages = make_stages(settings)

            def on_start() -> None:
                watching.note("loading models")
                require_weights(settings)

            workshop = open_workshop(
                settings,
                stages,
                recorded,
                watching.warn,
                on_start,
                watching.trace,
                lambda worker, record: worker_record(worker.name, record),
            )
            store = stack.enter_context(closing(_open_store(output, watching)))
            queue = JobQueue(
                store,
                only=(numbers := set[int]()),
                patience=settings.timeouts.space,
                count=len(inbox.jobs),
                on_problem=watching.warn,
                on_end=lambda job, result: taken.update({job.clip: result}),
            )
            pipeline = Pipeline(
                workshop,
                queue,
                settings,
                output,
                watching,
                identity=stages.identity,
                force=force,
                debug=debug,
            )
            try:
                asyncio.run(_run(pipeline, inbox.jobs, numbers))
            except Interrupted as error:
                if error.number is signal.SIGINT:
                    raise KeyboardInterrupt from None
                click.echo("frescod: terminated; the same command goes on from here", err=True)
                sys.exit(128 + error.number)
            finally:
                with suppress(StoreError):  # then they are found interrupted
                    store.release_all()
                if timeline is not None:
                    _write(recorded, timeline, watching)
            _tidy(output, inbox.jobs)
            results[:0] = [taken[job.clip] for job in inbox.jobs]
    held_up = recorded.summary() if any(r.outcome is Outcome.DONE for r in results) else ()
    click.echo(summary(results, time.monotonic() - start, output, extra=held_up))
    return int(any(result.outcome is Outcome.FAILED for result in results))


def _keep(kept: KeptPrompt, jobs: Sequence[Job], watching: Progress) -> None:
    """Write the prompt where jobs have it; tell of those that have one of their own."""
    own = [job.prompt_file for job in jobs if job.prompt_file != kept.file]
    if own:
        more = f" and {len(own) - 1} more: they go" if len(own) > 1 else ": it goes"
        watching.note(f"{printable(own[0])}{more} before the prompt of --prompt or a job file")
    if len(own) < len(jobs):
        kept.write()


def _open_store(output: Path, watching: Progress) -> JobStore:
    """The output folder's own job store; where it cannot have one, nothing is lost without."""
    try:
        state = output / STATE
        if state.is_symlink():
            raise ConfigError(f"{printable(state)} is a symbolic link")
        make(state)
        return JobStore(state / STORE)
    except (OSError, FrescodError) as error:
        watching.warn(f"`frescod status` will know nothing of this run: {error}")
        return JobStore(":memory:")


def _tidy(output: Path, jobs: Sequence[Job]) -> None:
    """Remove what a run has left that was killed between showing a result and tidying up."""
    for job in jobs:
        staging = Staging(output, job.name)
        if staging.is_shown:
            with suppress(FrescodError):
                staging.remove()


def _write(recorded: Timeline, path: Path, watching: Progress) -> None:
    """A night's results count more than how they came about: what cannot be written is told."""
    try:
        recorded.write(path)
    except FrescodError as error:
        watching.warn(str(error))


def _without_prompt(inbox: FolderScan, prompts: Path, watching: Progress) -> list[JobResult]:
    """Tell of what is no job."""
    for path in inbox.not_files:
        watching.warn(f"{printable(path)}: not a file, left out")
    for path in inbox.without_clip:
        watching.warn(f"{printable(path)}: control maps of no clip, left out")
    for path, right in inbox.misspelt:
        watching.warn(misspelt(path.name, right))
    results = []
    for path in inbox.without_prompt:
        reason = f"no {printable(path.stem)}.txt in {printable(prompts)}"
        watching.warn(f"{printable(path.name)}: {reason}, skipped")
        results.append(JobResult(path, Outcome.NO_PROMPT, reason=reason))
    return results


async def _run(pipeline: Pipeline, jobs: Sequence[Job], numbers: set[int]) -> None:
    """Take the jobs through the pipeline, the longest first; end at once at Ctrl-C and SIGTERM.

    ``numbers`` gets those that the jobs have in the store.

    Raises:
        Interrupted: a signal came.
        FrescodError: what ends the run.
    """
    workshop = pipeline.workshop
    received: list[signal.Signals] = []  # the first ends the run, the second the process
    run = asyncio.ensure_future(_in_order(pipeline, jobs, numbers))

    def stop(number: signal.Signals) -> None:
        if received:
            os._exit(128 + number)  # the workers go with it
        received.append(number)
        run.cancel()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop, number)
    try:
        await asyncio.wait([run])
    finally:
        await workshop.close()
    if received:
        raise Interrupted(received[0])
    try:
        run.result()
    except ExceptionGroup as group:
        raise first_cause(group) from None


async def _in_order(pipeline: Pipeline, jobs: Sequence[Job], numbers: set[int]) -> None:
    workshop, queue = pipeline.workshop, pipeline.queue
    ordered = await longest_first(jobs, workshop.readers, workshop.cores.total)
    await queue.do(queue.store.recover, workshop.options.attempts)
    arrivals = [Arrival.of(job, length=-place) for place, job in enumerate(ordered)]
    records = await queue.do(lambda: queue.store.arrive(arrivals, again=True))
    numbers.update(record.id for record in records)
    await pipeline.run()
