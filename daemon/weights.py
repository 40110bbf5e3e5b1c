"""``frescod models``: which weights the settings name, what is missing, and fetching it."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from daemon.printable import printable
from daemon.settings import Settings
from fresco_core.errors import FrescodError, ModelsError
from fresco_core.flow.raft_weights import cached_raft_weights, pull_raft_weights
from fresco_core.hub import PULL, PULL_COMMAND, HubError
from fresco_core.model_files import fetch_models, missing_models, pull_models
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


def flow_weights(settings: Settings) -> str | None:
    """The weights file of the flow model; None for its own."""
    return os.path.expanduser(settings.flow.weights) or None


def missing_weights(settings: Settings) -> list[str]:
    """What is not on this machine or damaged: one line each, with the remedy."""
    problems = missing_models(**model_sources(settings))
    if settings.control.enabled:
        try:
            find_detector(settings.control.type, settings.control.source or None, offline=True)
        except FrescodError as error:
            problems.append(str(error))
    if settings.flow.model == "raft":
        own = flow_weights(settings)
        path = Path(own or cached_raft_weights())
        if not path.is_file():
            remedy = "correct the path" if own else PULL
            problems.append(f"RAFT weights {path} not found: {remedy}")
    return problems


def require_weights(settings: Settings) -> None:
    """See to it that all weights are on this machine, so that every process finds them there.

    What the hub's cache lacks is downloaded, unless ``models.offline``.

    Raises:
        ModelsError: with everything that is missing.
    """
    problems = missing_weights(settings)
    on_hub = all(problem.endswith(PULL) for problem in problems)
    if problems and on_hub and not settings.models.offline:
        control = settings.control
        try:
            fetch_models(**model_sources(settings))
            if control.enabled:
                find_detector(control.type, control.source or None)
        except HubError as error:  # it names the first that is missing: name them all
            problems = missing_weights(settings) or [str(error)]
            message = f"from the hub: {error.reason}; {missing_message(problems)}"
            raise ModelsError(message) from error
        problems = missing_weights(settings)
    if problems:
        raise ModelsError(missing_message(problems))


def missing_message(problems: Sequence[str]) -> str:
    """What `missing_weights` found, in one line with the remedy most have in common at its end."""
    remedy = f": {PULL}"
    here = [problem for problem in problems if not problem.endswith(remedy)]
    on_hub = [problem.removesuffix(remedy) for problem in problems if problem.endswith(remedy)]
    return "; ".join([*here, *on_hub]) + (remedy if on_hub else "")


def list_weights(settings: Settings, pull: str = PULL_COMMAND) -> int:
    """Print what the settings name and what of it is missing; exit code 78 where something is.

    ``pull`` is the command line that fetches it.
    """
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
        problem = problem.replace(f"run `{PULL_COMMAND}`", f"run `{pull}`")
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
