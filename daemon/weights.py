"""``frescod models``: which weights the settings name, what is missing, and fetching it."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from daemon.printable import printable
from daemon.settings import Settings
from fresco_core.errors import FrescodError, ModelsError
from fresco_core.flow.raft_weights import pull_raft_weights
from fresco_core.flow.weights import FLOW
from fresco_core.hub import PULL, PULL_COMMAND, HubError
from fresco_core.model_files import fetch_models, missing_models, pull_models
from fresco_core.model_set import check_models
from fresco_core.saliency.weights import SALIENCY
from io_pipeline.control_maps import DEFAULT_SOURCE, check_detector, find_detector


def model_sources(settings: Settings) -> dict[str, Any]:
    """The arguments of the loaders that name models; none where one is not wanted."""
    models, control = settings.models, settings.control
    own = models.controlnet
    if len(own) < len(control.type):
        own *= len(control.type)
    controlnets = tuple(
        source or f"lllyasviel/sd-controlnet-{kind}"
        for source, kind in zip(own, control.type, strict=True)
    )
    return {
        "base": models.base,
        "vae": models.vae or None,
        "controlnets": controlnets if control.enabled else (),
        "loras": models.loras,
        "embeddings": models.embeddings,
        "base_config": models.base_config or None,
    }


def detector_sources(settings: Settings) -> dict[str, Any]:
    """The arguments of `io_pipeline.control_maps.load_detectors` that name detectors."""
    control = settings.control
    if not control.enabled:
        return {"kinds": (), "sources": ()}
    sources = control.source
    if len(sources) < len(control.type):
        sources *= len(control.type)
    return {"kinds": control.type, "sources": tuple(source or None for source in sources)}


def local_file(name: str) -> str | None:
    """A weights file of the settings; None for the usual one."""
    return os.path.expanduser(name) or None


def choose_models(settings: Settings) -> tuple[Settings, tuple[str, ...]]:
    """The settings with the models that ``auto`` stands for here, and which these are.

    Raises:
        ModelsError: weights of none that could be chosen.
    """
    told = []
    for family in (FLOW, SALIENCY):
        title, section = family.purpose, getattr(settings, family.purpose)
        if section.model == "auto":
            try:
                choice = family.choose("auto", section.weights)
            except ModelsError as error:  # with everything else that is missing
                raise ModelsError(missing_message(missing_weights(settings))) from error
            told.append(f"{title}: {choice.model}, {choice.why}")
            chosen = section.model_copy(update={"model": choice.model})
            settings = settings.model_copy(update={title: chosen})
    return settings, tuple(told)


def missing_weights(settings: Settings) -> list[str]:
    """What is not on this machine, damaged, or does not fit: one line each, with the remedy."""
    sources = model_sources(settings)
    problems = missing_models(**sources)
    if not problems:  # all are there: do they go together?
        problems += _problem(check_models, **sources)
    for kind, source in zip(*detector_sources(settings).values(), strict=True):
        problems += _problem(check_detector, kind, source)
    problems += _problem(FLOW.choose, settings.flow.model, settings.flow.weights)
    problems += _problem(SALIENCY.choose, settings.saliency.model, settings.saliency.weights)
    return problems


def _problem(find: Callable[..., object], *arguments: Any, **options: Any) -> list[str]:
    try:
        find(*arguments, **options)
    except FrescodError as error:
        return [str(error)]
    return []


def require_weights(settings: Settings) -> None:
    """See to it that all weights are on this machine, so that every process finds them there.

    What the hub's cache lacks is downloaded, unless ``models.offline``.

    Raises:
        ModelsError: with everything that is missing.
    """
    problems = missing_weights(settings)
    on_hub = all(problem.endswith(PULL) for problem in problems)
    if problems and on_hub and not settings.models.offline:
        try:
            fetch_models(**model_sources(settings))
            _find_detectors(settings)
        except HubError as error:  # it names the first that is missing: name them all
            problems = missing_weights(settings) or [str(error)]
            message = f"from the hub: {error.reason}; {missing_message(problems)}"
            raise ModelsError(message) from error
        problems = missing_weights(settings)
    if problems:
        raise ModelsError(missing_message(problems))


def _find_detectors(settings: Settings) -> list[Path]:
    found = (
        find_detector(kind, source)
        for kind, source in zip(*detector_sources(settings).values(), strict=True)
    )
    return [place for place in found if place is not None]


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
    settings, chosen = choose_models(settings)
    sources, detectors = model_sources(settings), detector_sources(settings)
    named = [("base model", sources["base"]), ("VAE", sources["vae"] or "the base model's own")]
    named += [("ControlNet", source) for source in sources["controlnets"]]
    named += [("LoRA", source) for source in sources["loras"]]
    named += [("embedding", source) for source in sources["embeddings"]]
    named += [
        (f"{kind} detector", source or DEFAULT_SOURCE)
        for kind, source in zip(*detectors.values(), strict=True)
        if kind != "canny"
    ]
    for title, model, weights in (
        ("flow", settings.flow.model, settings.flow.weights),
        ("saliency", settings.saliency.model, settings.saliency.weights),
    ):
        named.append((title, f"{model} {weights}".rstrip()))
    for title, source in named:
        click.echo(f"{title:<16}{printable(source)}")
    for choice in chosen:
        click.echo(printable(choice))
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
    places = pull_models(**model_sources(settings)) + _find_detectors(settings)
    if settings.flow.model == "raft" and not settings.flow.weights:
        places.append(pull_raft_weights())
    for place in places:
        click.echo(printable(place))
    return 0
