"""``frescod drain``: tell the daemon to end, and see it out."""

import time
from contextlib import closing

import click

from daemon.control_client import ControlClient, ControlError, NotRunningError
from daemon.output_folder import BusyError

_LOOK_SECONDS = 1.0


def drain_daemon(client: ControlClient, timeout: float | None, wait: bool) -> None:
    """Drain; with ``wait`` return when the daemon's process has ended.

    Raises:
        ControlError: refused, or another daemon was started there meanwhile.
        NotRunningError: there is no daemon.
    """
    with closing(client.process()) as process:
        client.drain(timeout)
        click.echo("draining: " + _how(timeout))
        while wait:
            if process.visible:
                if process.ended(_LOOK_SECONDS):
                    return
            else:
                time.sleep(_LOOK_SECONDS)
            try:
                state = client.status()["state"]
            except (NotRunningError, BusyError):
                if not process.visible:  # the socket is all there is to go by
                    return
                continue
            if state not in ("draining", "stopping"):  # there is no way back from these
                raise ControlError("the daemon has ended and was started again")


def _how(timeout: float | None) -> str:
    if timeout is None:
        return "what runs is finished, then the daemon ends"
    if not timeout:
        return "what runs stops at its last checkpoint and goes on at the next start"
    return f"what runs is finished, or stops at its last checkpoint after {timeout:g} s"
