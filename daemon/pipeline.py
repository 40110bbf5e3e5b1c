"""The loop: clip after clip through prepare, translate, propagate and publish."""

import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from daemon.jobs import Fingerprints, Job, JobResult, Outcome, fingerprints, is_done, printable
from daemon.manifest import manifest
from daemon.progress import Progress
from daemon.settings import Settings
from fresco_core.errors import FrescodError
from io_pipeline.prompt import read_prompt

if TYPE_CHECKING:  # torch takes seconds to import: a run with nothing to do goes without
    from daemon.stages import Stages

Item = TypeVar("Item")


class Clock:
    """Seconds spent in each stage."""

    def __init__(self) -> None:
        self.seconds = {"prepare": 0.0, "translate": 0.0, "propagate": 0.0, "publish": 0.0}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = time.monotonic()
        try:
            yield
        finally:
            self.seconds[stage] += time.monotonic() - start

    def each(self, stage: str, items: Iterable[Item]) -> Iterator[Item]:
        """The items, the time to make them counted."""
        iterator = iter(items)
        while True:
            with self(stage):
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item


def run(
    jobs: Sequence[Job],
    settings: Settings,
    output: Path,
    load: Callable[[Settings], "Stages"],
    progress: Progress,
    *,
    force: bool = False,
    debug: bool = False,
) -> list[JobResult]:
    """Take every job in turn; one that fails does not stop the others.

    Models are loaded once, by ``load``, and only when there is a clip to translate.

    Raises:
        FrescodError: the models cannot be loaded, whatever the reason.
    """
    stages: Stages | None = None
    results: list[JobResult] = []
    for number, job in enumerate(jobs, 1):
        start = time.monotonic()
        folder = output / job.name
        progress.begin(job, number, len(jobs))
        outcome, reason = Outcome.DONE, ""
        try:
            prints = fingerprints(job, settings)
            if not force and is_done(folder, prints):
                outcome = Outcome.ALREADY_DONE
        except FrescodError as error:
            outcome, reason = Outcome.FAILED, str(error)
        if outcome is Outcome.DONE:
            if stages is None:
                stages = _loaded(load, settings, progress if debug else None)
                start = time.monotonic()  # loading is not the clip's own time
            try:
                translate_clip(job, prints, settings, output, stages, progress)
            except FrescodError as error:
                outcome, reason = Outcome.FAILED, str(error)
            except Exception as error:
                outcome, reason = Outcome.FAILED, _unexpected(error)
                if debug:
                    progress.trace(traceback.format_exc())
        result = JobResult(job.clip, outcome, time.monotonic() - start, reason, folder)
        progress.end(result)
        results.append(result)
    return results


def translate_clip(
    job: Job,
    prints: Fingerprints,
    settings: Settings,
    output: Path,
    stages: "Stages",
    progress: Progress,
) -> None:
    """One clip, from file to result folder, a window in memory at a time."""
    from io_pipeline.propagate import segments
    from io_pipeline.publish import Publisher

    clock = Clock()

    def tell(stage: str, done: float, total: int | None) -> None:
        progress.stage(stage, done, total, clock.seconds[stage])

    prompt = read_prompt(job.prompt_file)
    warnings = list(stages.inspect(prompt))
    with clock("prepare"):
        plan = stages.prepare.plan(job.clip, lambda number: tell("prepare", number + 1, None))
    warnings += plan.info.warnings
    for warning in warnings:
        progress.warn(f"{printable(job.clip.name)}: {warning}")

    with (
        Publisher(
            output,
            job.name,
            plan.info,
            working_size=plan.working_size,
            crf=settings.output.crf,
            comparison=settings.output.comparison,
            contact_sheet=settings.output.contact_sheet,
        ) as publisher,
        closing(stages.prepare.windows(plan)) as windows,
    ):
        carry = previous_key = None
        for window in clock.each("prepare", windows):
            tell("prepare", window.key_numbers[-1] + 1, plan.info.frame_count)

            def on_step(done: int, count: int, index: int = window.index) -> None:
                # A batch is done when its pictures are decoded, after the last step.
                tell("translate", index + done / (count + 1), len(plan.batches))

            with clock("translate"):
                translated = stages.translate(window, prompt, carry, on_step)
            tell("translate", window.index + 1, len(plan.batches))
            keys, carry = translated.keys_KHWC, translated.carry
            maps = () if window.controls_KHW is None else window.controls_KHW
            controls = dict(zip(window.key_numbers, maps, strict=False))
            with clock("publish"):
                for number, key in zip(window.key_numbers, keys, strict=True):
                    publisher.write_key(number, key)
                if previous_key is None:
                    publisher.write_frame(window.frames_THWC[0], controls.get(0), keys[0])
                    tell("propagate", 1, plan.info.frame_count)
            for segment in segments(window, keys, previous_key):
                with clock("propagate"):
                    between = stages.propagate(segment)
                with clock("publish"):
                    for i, frame in enumerate([*between, segment.second_key_HWC], 1):
                        control = controls.get(segment.first_frame + i)
                        publisher.write_frame(segment.frames_THWC[i], control, frame)
                done = segment.first_frame + len(segment.frames_THWC)
                tell("propagate", done, plan.info.frame_count)
            previous_key = keys[-1]
        with clock("publish"):
            publisher.finish(
                manifest(job, prints, prompt, settings, plan, stages.facts, clock.seconds, warnings)
            )
        tell("publish", plan.info.frame_count, plan.info.frame_count)
        for warning in publisher.warnings:
            progress.warn(f"{printable(job.clip.name)}: {warning}")


def _loaded(
    load: Callable[[Settings], "Stages"], settings: Settings, tracing: Progress | None
) -> "Stages":
    try:
        return load(settings)
    except FrescodError:
        raise
    except Exception as error:
        if tracing is not None:
            tracing.trace(traceback.format_exc())
        raise FrescodError(_unexpected(error)) from error


def _unexpected(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"unexpected {type(error).__name__}: {text[:300]} (run with --debug for details)"
