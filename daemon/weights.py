"""``frescod models``: which weights the settings name, what is missing, and fetching it."""

from pathlib import Path
from typing import Any

import click

from daemon.jobs import printable
from daemon.settings import Settings
from fresco_core.errors import FrescodError, ModelsError
from fresco_core.flow.raft import cached_raft_weights, pull_raft_weights
from fresco_core.models import missing_models, pull_models
from io_pipeline.control_maps import DEFAULT_SOURCE, find_detector


def model_sources(settings: Settings) -> dict[str, Any]:
    """The arguments of the loaders that name models; None where a model is not wanted."""
    models, control = settings.models, settings.control
    controlnet = models.controlnet or f"lllyasviel/sd-controlnet-{control.type}"
    return {
        "base": models.base,
        "vae": models.vae or None,
        "controlnet": controlnet if control.enabled else None,
        "base_config": models.base_config or None,
    }


def missing_weights(settings: Settings) -> list[str]:
    """What is not on this machine or damaged: one line each, with the remedy."""
    problems = missing_models(**model_sources(settings))
    if settings.control.enabled:
        try:
            find_detector(settings.control.type, settings.control.source or None, offline=True)
        except FrescodError as error:
            problems.append(str(error))
    if settings.flow.model == "raft":
        path = Path(settings.flow.weights or cached_raft_weights())
        if not path.is_file():
            remedy = "correct the path" if settings.flow.weights else "run `frescod models pull`"
            problems.append(f"RAFT weights {path} not found: {remedy}")
    return problems


def list_weights(settings: Settings) -> int:
    """Print what the settings name and what of it is missing; exit code 78 where something is."""
    control, flow = settings.control, settings.flow
    sources = model_sources(settings)
    detector = None
    if control.enabled and control.type != "canny":
        detector = control.source or DEFAULT_SOURCE
    for title, source in (
        ("base model", sources["base"]),
        ("VAE", sources["vae"] or "the base model's own"),
        ("ControlNet", sources["controlnet"]),
        (f"{control.type} detector", detector),
        ("raft", (flow.weights or "torchvision's own") if flow.model == "raft" else None),
    ):
        if source is not None:
            click.echo(f"{title:<16}{printable(source)}")
    problems = missing_weights(settings)
    for problem in problems:
        click.echo(f"missing: {printable(problem)}")
    if not problems:
        click.echo("all of it is on this machine")
    return ModelsError.exit_code if problems else 0


def pull_weights(settings: Settings) -> int:
    """Fetch what the hub has newer or this machine lacks, and print where it lies.

    Raises:
        ModelsError: it cannot be had.
    """
    places = pull_models(**model_sources(settings))
    if settings.control.enabled:
        detector = find_detector(settings.control.type, settings.control.source or None)
        places += [detector] if detector else []
    if settings.flow.model == "raft" and not settings.flow.weights:
        places.append(pull_raft_weights())
    for place in places:
        click.echo(printable(place))
    return 0
