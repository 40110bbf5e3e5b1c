"""One-shot mode: a folder of clips, done once, and a closing summary."""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from daemon import pipeline
from daemon.inbox import scan
from daemon.jobs import JobResult, Outcome, printable
from daemon.output_folder import held
from daemon.progress import Progress, summary, watch
from daemon.settings import Settings
from fresco_core.errors import ConfigError

if TYPE_CHECKING:
    from daemon.stages import Stages


def run_folder(
    clips: Path,
    prompts: Path,
    output: Path,
    settings: Settings,
    *,
    warnings: Sequence[str] = (),
    force: bool = False,
    debug: bool = False,
    progress: Progress | None = None,
) -> int:
    """Translate every clip of a folder that has a prompt; returns the exit code.

    Raises:
        FrescodError: before the first clip: models missing, no such device, a folder that cannot be
            read or written, or that another run writes to.
    """
    start = time.monotonic()
    try:
        inbox = scan(clips, prompts, output)
    except OSError as error:
        raise ConfigError(f"{error.filename}: cannot be read: {error.strerror}") from error
    with ExitStack() as stack, progress or watch() as watching:
        for warning in warnings:
            watching.warn(warning)
        for path in inbox.not_files:
            watching.warn(f"{printable(path)}: not a file, left out")
        without_prompt = []
        for path in inbox.without_prompt:
            reason = f"no {printable(path.stem)}.txt in {printable(prompts)}"
            watching.warn(f"{printable(path.name)}: {reason}, skipped")
            without_prompt.append(JobResult(path, Outcome.NO_PROMPT, reason=reason))
        if not inbox.jobs and not without_prompt:
            watching.warn(f"no clips (.mp4 .avi .mov .mkv) in {printable(clips)}")

        def load(settings: Settings) -> "Stages":
            stack.enter_context(held(output))
            watching.note("loading models")
            from daemon.stages import load_stages  # imports torch, which takes seconds

            return load_stages(settings)

        results = pipeline.run(
            inbox.jobs, settings, output, load, watching, force=force, debug=debug
        )
    results += without_prompt
    click.echo(summary(results, time.monotonic() - start, output))
    return int(any(result.outcome is Outcome.FAILED for result in results))
