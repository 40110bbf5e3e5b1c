"""One-shot mode: a folder of clips, done once, and a closing summary."""

import asyncio
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import click

from daemon.failures import first_cause
from daemon.inbox import Inbox, scan
from daemon.jobs import Job, JobResult, Outcome, printable
from daemon.order import longest_first
from daemon.output_folder import held
from daemon.pipeline import Pipeline
from daemon.progress import Progress, summary, watch
from daemon.settings import Settings
from daemon.setup import open_workshop
from daemon.stages import make_stages
from daemon.timeline import Timeline
from daemon.weights import require_weights
from fresco_core.errors import ConfigError


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
) -> int:
    """Translate every clip of a folder that has a prompt; returns the exit code.

    ``timeline`` gets a trace of who worked when, and a picture of it beside it.

    Raises:
        FrescodError: before the first clip: models missing, no such device, a folder that cannot be
            read or written, or that another run writes to; later: no device left.
    """
    start = time.monotonic()
    try:
        inbox = scan(clips, prompts, output)
    except OSError as error:
        raise ConfigError(f"{error.filename}: cannot be read: {error.strerror}") from error
    recorded = Timeline()
    with ExitStack() as stack, progress or watch() as watching:
        for warning in warnings:
            watching.warn(warning)
        results = _without_prompt(inbox, prompts, watching)
        if not inbox.jobs and not results:
            watching.warn(f"no clips (.mp4 .avi .mov .mkv) in {printable(clips)}")

        def on_start() -> None:
            stack.enter_context(held(output))
            watching.note("loading models")
            require_weights(settings)

        if inbox.jobs:
            stages = make_stages(settings)
            workshop = open_workshop(
                settings, stages, recorded, watching.warn, on_start, watching.trace
            )
            pipeline = Pipeline(
                workshop, settings, output, watching, identity=stages.identity, debug=debug
            )
            try:
                results[:0] = asyncio.run(_run(pipeline, inbox.jobs, force))
            except Interrupted as error:
                if error.number is signal.SIGINT:
                    raise KeyboardInterrupt from None
                sys.exit(128 + error.number)
            finally:
                if timeline is not None:
                    recorded.write(timeline)
    held_up = recorded.summary() if any(r.outcome is Outcome.DONE for r in results) else ()
    click.echo(summary(results, time.monotonic() - start, output, extra=held_up))
    return int(any(result.outcome is Outcome.FAILED for result in results))


def _without_prompt(inbox: Inbox, prompts: Path, watching: Progress) -> list[JobResult]:
    """Tell of what is no job."""
    for path in inbox.not_files:
        watching.warn(f"{printable(path)}: not a file, left out")
    results = []
    for path in inbox.without_prompt:
        reason = f"no {printable(path.stem)}.txt in {printable(prompts)}"
        watching.warn(f"{printable(path.name)}: {reason}, skipped")
        results.append(JobResult(path, Outcome.NO_PROMPT, reason=reason))
    return results


async def _run(pipeline: Pipeline, jobs: Sequence[Job], force: bool) -> list[JobResult]:
    """Take the jobs through the pipeline, the longest first; end at once at Ctrl-C and SIGTERM.

    Raises:
        Interrupted: a signal came.
        FrescodError: what ends the run.
    """
    workshop = pipeline.workshop
    received: list[signal.Signals] = []
    run = asyncio.ensure_future(_in_order(pipeline, jobs, force))

    def stop(number: signal.Signals) -> None:
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
        return run.result()
    except ExceptionGroup as group:
        raise first_cause(group) from None


async def _in_order(pipeline: Pipeline, jobs: Sequence[Job], force: bool) -> list[JobResult]:
    workshop = pipeline.workshop
    ordered = await longest_first(jobs, workshop.readers, workshop.cores.total)
    return await pipeline.run(ordered, force=force)
