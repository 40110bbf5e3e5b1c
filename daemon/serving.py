"""``frescod serve``: the service with its folders, its store and its log, until it ends."""

import asyncio
import faulthandler
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

import structlog

from daemon import logs
from daemon.actions import Action
from daemon.intake import about
from daemon.job_store import JobStore
from daemon.output_folder import held
from daemon.places import Places
from daemon.service import Service
from daemon.settings import Settings
from daemon.stages import make_stages
from daemon.state_folder import owned
from daemon.weights import choose_models

if TYPE_CHECKING:
    from daemon.stages import Stages


def serve(
    settings: Settings,
    *,
    warnings: Sequence[str] = (),
    debug: bool = False,
    make: Callable[[Settings], "Stages"] | None = None,
) -> int:
    """Serve until drained; returns the exit code.

    ``make`` makes the stages that workers do; by default those that the settings name.

    Raises:
        FrescodError: it cannot start, or there is no device left.
    """
    faulthandler.enable()  # a watchdog's SIGABRT leaves a stack in the journal
    logs.configure(settings.log.format, settings.log.level)
    log = structlog.get_logger()
    for warning in warnings:
        log.warning(warning, action=Action.WARNING)
    places = Places.of(settings)
    places.check(settings.inbox.recursive)
    with ExitStack() as stack:
        stack.enter_context(owned(places.state))
        stack.enter_context(held(places.output))
        store = stack.enter_context(closing(JobStore(places.store)))
        settings, chosen = choose_models(settings)
        for choice in chosen:
            log.info(choice, action=Action.MODEL_CHOSEN)
        stages = (make or _make_stages)(settings)
        service = Service(settings, places, store, stages, debug=debug)
        try:
            asyncio.run(service.run())
        finally:
            for record in store.release_all():
                log.info("queued again", action=Action.JOB_REQUEUED, **about(record))
    log.info("ended", action=Action.SERVICE_ENDED)
    return 0


def _make_stages(settings: Settings) -> "Stages":
    """With the devices that are there, unless all are required."""
    return make_stages(settings, required=settings.devices_required)
