"""``manifest.json``: what a result was made from, how, and how long it took."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from daemon.settings import Settings
from daemon.work import ClipWork


def manifest(clip: ClipWork, settings: Settings, facts: Mapping[str, Any]) -> dict[str, Any]:
    """A result's manifest; everything in it is JSON.

    Sizes are (width, height) in pixels; ``scale`` is working size over clip size, for x and y. The
    whole picture is scaled, nothing is cropped. Frame numbers count from 0. Seconds are those that
    workers were busy, summed over all of them. ``propagated`` counts the frames between key
    frames that this run made, on cores ("cpu") and on devices ("gpu").
    """
    plan, info = clip.plan, clip.plan.info
    height, width = plan.working_size
    return {
        "clip": {
            "file": clip.job.clip.name,
            "frames": info.frame_count,
            "rate": str(info.frame_rate),
            "codec": info.codec,
            "pixel_format": info.pixel_format,
            "rotation": info.rotation,
            "sound_tracks": info.sound_tracks,
            "decoder": info.engine,
        },
        "prompt": asdict(clip.prompt),
        "control_files": {file.path.name: file.kind for file in clip.job.control_files},
        "fingerprints": clip.prints.to_json(),
        "seed": settings.translation.seed,
        "sizes": {
            "clip": [info.width, info.height],
            "working": [width, height],
            "scale": [width / info.width, height / info.height],
            "crop": None,
        },
        "frames": settings.output.frames,
        "key_frames": list(plan.key_numbers),
        "batches": [
            {"carried": list(batch.carried), "new": list(batch.new)}
            for index, planned in enumerate(plan.batches)
            for batch in clip.batches.get(index) or (planned,)
        ],
        **facts,
        "devices": list(clip.devices),
        "propagated": dict(clip.propagated),
        "seconds": {stage: round(spent, 3) for stage, spent in clip.seconds.items()},
        "settings": settings.model_dump(mode="json"),
        "warnings": list(clip.warnings),
    }
