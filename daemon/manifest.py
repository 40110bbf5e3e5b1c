"""``manifest.json``: what a result was made from, how, and how long it took."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from daemon.jobs import Fingerprints, Job
from daemon.settings import Settings
from io_pipeline.prompt import Prompt

if TYPE_CHECKING:
    from io_pipeline.prepare import ClipPlan


def manifest(
    job: Job,
    prints: Fingerprints,
    prompt: Prompt,
    settings: Settings,
    plan: "ClipPlan",
    facts: Mapping[str, Any],
    seconds: Mapping[str, float],
    warnings: Sequence[str],
) -> dict[str, Any]:
    """A result's manifest; everything in it is JSON.

    Sizes are (width, height) in pixels; ``scale`` is working size over clip size, for x and y. The
    whole picture is scaled, nothing is cropped. Frame numbers count from 0.
    """
    info = plan.info
    height, width = plan.working_size
    return {
        "clip": {
            "file": job.clip.name,
            "frames": info.frame_count,
            "rate": str(info.frame_rate),
            "codec": info.codec,
            "pixel_format": info.pixel_format,
            "rotation": info.rotation,
            "sound_tracks": info.sound_tracks,
            "decoder": info.engine,
        },
        "prompt": asdict(prompt),
        "fingerprints": asdict(prints),
        "seed": settings.translation.seed,
        "sizes": {
            "clip": [info.width, info.height],
            "working": [width, height],
            "scale": [width / info.width, height / info.height],
            "crop": None,
        },
        "key_frames": list(plan.key_numbers),
        "batches": [
            {"carried": list(batch.carried), "new": list(batch.new)} for batch in plan.batches
        ],
        **facts,
        "seconds": {stage: round(spent, 3) for stage, spent in seconds.items()},
        "settings": settings.model_dump(mode="json"),
        "warnings": list(warnings),
    }
