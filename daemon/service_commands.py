"""The commands of the daemon: `serve` is it, the others ask it or tell it what to do."""

import functools
import json
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from daemon.command_settings import (
    FILE,
    assigned,
    gather_settings,
    naming_pull,
    service_config,
    settings_options,
)
from daemon.control_client import ControlClient, NotRunningError
from daemon.job_lookup import find_job
from daemon.job_settings import PRIORITIES
from daemon.jobs import JobState
from daemon.left_behind import LeftBehind
from daemon.output_folder import BusyError
from daemon.places import Places
from daemon.presets import PRESETS
from daemon.printable import printable
from daemon.settings import Settings
from fresco_core.errors import FrescodError

if TYPE_CHECKING:
    from rich.console import RenderableType

ALL_JOBS = 100_000

T = TypeVar("T")
Command = Callable[..., Any]


class Daemon:
    """The daemon that a command is meant for, as its options say."""

    def __init__(self, config: Path | None, socket: Path | None) -> None:
        self._config = config
        self._socket = socket

    @cached_property
    def settings(self) -> Settings:
        """The settings that it would be started with from here."""
        return gather_settings(service_config(self._config))[0]

    @cached_property
    def places(self) -> Places:
        """Where its things are."""
        return Places.of(self.settings)

    @cached_property
    def client(self) -> ControlClient:
        """Asks it."""
        return ControlClient(self._socket or self.places.socket)

    def inbox_told(self) -> Path:
        """The inbox that it watches.

        Raises:
            NotRunningError: it does not run.
        """
        told = Path(self.client.status()["inbox"])
        # What it tells is printable; where that is not the path, the settings have it.
        return told if told.is_dir() else self.places.inbox

    def look(self, ask: Callable[[ControlClient | LeftBehind], T]) -> T:
        """Ask the daemon, or what it has left where it does not run."""
        try:
            return ask(self.client)
        except NotRunningError as error:
            return ask(LeftBehind(self.places.store, str(error)))


def daemon_options(command: Command) -> Command:
    """Options that say which daemon is meant; the command gets a `Daemon` first."""

    @click.option(
        "--socket",
        type=click.Path(path_type=Path),
        metavar="PATH",
        help="The daemon's control socket; without it, as the settings say.",
    )
    @click.option(
        "--config",
        type=FILE,
        metavar="TOML",
        help="The daemon's settings; without it ./config.toml or /etc/frescod/config.toml.",
    )
    @functools.wraps(command)
    def with_daemon(config: Path | None, socket: Path | None, **options: Any) -> Any:
        return command(Daemon(config, socket), **options)

    return with_daemon


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


@click.command()
@settings_options
@click.option("--debug", is_flag=True, help="Log the traceback of errors.")
def serve(debug: bool, **options: Any) -> int:
    """Watch the inbox and translate what is dropped there, until drained or stopped.

    Exit code: 0 drained, 2 wrong usage, 69 no usable device, 75 a run writes there, 78 wrong
    settings, missing weights, or another daemon has the state folder.
    """
    options["config"] = service_config(options["config"])
    settings, warnings = gather_settings(**options)
    from daemon.serving import serve

    with naming_pull(options):
        return serve(settings, warnings=warnings, debug=debug)


@click.command()
@daemon_options
@json_option
@click.option("--watch", "watched", is_flag=True, help="Show it again every second, until Ctrl-C.")
def status(daemon: Daemon, as_json: bool, watched: bool) -> None:
    """Show what the daemon does: devices, queue, progress, what waits and what has failed.

    Where it does not run, what it has left.
    """
    if as_json and not watched:
        return _print_json(daemon.look(lambda jobs: jobs.status()))
    from daemon.status_view import make_console, status_view, watch

    if not watched:
        return make_console().print(status_view(daemon.look(lambda jobs: jobs.status())))
    if as_json:
        return _watch_json(daemon)

    def view() -> "RenderableType":
        try:
            return status_view(daemon.client.status())
        except (NotRunningError, BusyError) as error:
            return f"not running, waiting ({printable(str(error))})"

    watch(view, make_console())


def _watch_json(daemon: Daemon) -> None:
    import time

    try:
        while True:
            try:
                values = daemon.client.status()
            except (NotRunningError, BusyError):
                values = {"state": "down"}
            click.echo(json.dumps(values))
            time.sleep(1)
    except KeyboardInterrupt:
        return


@click.command()
@daemon_options
@click.option(
    "--state", type=click.Choice([str(state) for state in JobState]), help="Only those in a state."
)
@click.option(
    "--limit",
    type=click.IntRange(1, ALL_JOBS),
    default=100,
    show_default=True,
    help="So many of the newest.",
)
@json_option
def jobs(daemon: Daemon, state: str | None, limit: int, as_json: bool) -> None:
    """List jobs, the newest first."""
    chosen = None if state is None else JobState(state)
    found = daemon.look(lambda jobs: jobs.jobs(chosen, limit))
    if as_json:
        return _print_json({"jobs": found})
    if not found:
        return click.echo("no jobs" if state is None else f"no jobs are {state}", err=True)
    from daemon.status_view import jobs_view, make_console

    make_console().print(jobs_view(found))


@click.command()
@daemon_options
@click.argument("job")
@json_option
def show(daemon: Daemon, job: str, as_json: bool) -> None:
    """Show one job. JOB is its number, or its clip's name: of several the newest."""
    found = daemon.look(lambda jobs: find_job(jobs, job, lambda text: click.echo(text, err=True)))
    if as_json:
        return _print_json(found)
    from daemon.status_view import job_view, make_console

    make_console().print(job_view(found))


@click.command()
@daemon_options
@click.argument("jobs", metavar="[JOB]...", nargs=-1)
@click.option("--failed", is_flag=True, help="All jobs that have failed.")
def retry(daemon: Daemon, jobs: Sequence[str], failed: bool) -> int:
    """Queue jobs again that have failed or were cancelled."""
    if failed == bool(jobs):
        raise click.UsageError("give the jobs to do again, or --failed")
    if failed:
        jobs = [str(job["id"]) for job in daemon.client.jobs(JobState.FAILED, ALL_JOBS)]
        if not jobs:
            click.echo("no jobs have failed", err=True)
    return _each(daemon, jobs, daemon.client.retry)


@click.command()
@daemon_options
@click.argument("jobs", metavar="JOB...", nargs=-1, required=True)
def cancel(daemon: Daemon, jobs: Sequence[str]) -> int:
    """End jobs. JOB is a number, or a clip's name: of several the newest."""
    return _each(daemon, jobs, daemon.client.cancel)


def _each(daemon: Daemon, names: Sequence[str], act: Callable[[int], dict[str, Any]]) -> int:
    """One after the other; those that fail are named."""
    code = 0
    for name in names:
        try:
            _tell(act(find_job(daemon.client, name)["id"]))
        except FrescodError as error:
            if error.exit_code != FrescodError.exit_code:  # nothing would go better with the next
                raise
            click.echo(f"frescod: {printable(str(error))}", err=True)
            code = 1
    return code


@click.command()
@daemon_options
def pause(daemon: Daemon) -> None:
    """Let running jobs finish and take no more until `frescod resume`."""
    daemon.client.pause()
    click.echo("paused: running jobs finish; `frescod resume` goes on")


@click.command()
@daemon_options
def resume(daemon: Daemon) -> None:
    """Take jobs again after `frescod pause`."""
    daemon.client.resume()
    click.echo("jobs are taken again")


@click.command()
@daemon_options
@click.option("--wait", is_flag=True, help="Return when the daemon has ended.")
@click.option(
    "--timeout",
    type=click.FloatRange(0, 86400 * 7),
    metavar="S",
    help="Stop at the last checkpoints after so many seconds; 0 stops now.",
)
def drain(daemon: Daemon, wait: bool, timeout: float | None) -> None:
    """Finish what is running, start nothing new, then end the daemon."""
    from daemon.drain import drain_daemon

    drain_daemon(daemon.client, timeout, wait)


@click.command()
@daemon_options
@click.argument("clip", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--prompt", metavar="TEXT", help="What the clip is to look like.")
@click.option("--prompt-file", type=FILE, metavar="FILE", help="The same, from a file.")
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="KEY=VALUE",
    help="A setting for this clip only, as in --set translation.seed=5.",
)
@click.option(
    "--preset",
    "presets",
    multiple=True,
    type=click.Choice(list(PRESETS)),
    help="Settings that go together, for this clip only.",
)
@click.option(
    "--priority",
    type=click.IntRange(PRIORITIES[0], PRIORITIES[-1]),
    help="Jobs of a higher one are taken first.",
)
@click.option("--name", metavar="NAME", help="File name in the inbox; without it the clip's own.")
def submit(
    daemon: Daemon,
    clip: Path,
    prompt: str | None,
    prompt_file: Path | None,
    assignments: Sequence[str],
    presets: Sequence[str],
    priority: int | None,
    name: str | None,
) -> None:
    """Put a clip and its prompt into the inbox and have it taken at once.

    A clip that lies in the inbox stays where it is. Control maps of its own are to be in the inbox
    before it is submitted.
    """
    if prompt is not None and prompt_file is not None:
        raise click.UsageError("give --prompt or --prompt-file, not both")
    from daemon.submission import Submission, below, read_text

    try:
        inbox = daemon.inbox_told()
        running = True
    except NotRunningError:
        inbox, running = daemon.places.inbox, False
    if not inbox.is_dir():
        raise FrescodError(
            f"{printable(inbox)}: there is no such folder: start the daemon, or make it"
        )
    inside = below(inbox, clip)
    if inside is not None and name not in (None, clip.name):
        raise click.UsageError("--name: the clip lies in the inbox and stays where it is")
    text = None if prompt is None else prompt.encode(errors="surrogateescape")
    if prompt_file is not None:
        text = read_text(prompt_file)
    if text is None and not (inside and (inbox / inside).with_suffix(".txt").is_file()):
        raise click.UsageError("missing option --prompt or --prompt-file: what is it to look like?")
    submission = Submission(
        clip,
        name or clip.name,
        text,
        assigned(assignments),
        priority,
        presets,
    )
    submission.check(daemon.settings, inside)
    placed = submission.put(inbox)
    try:
        job = daemon.client.submit(placed, priority) if running else None
    except NotRunningError:  # it has ended meanwhile
        job = None
    if job is None:
        shown = printable(inbox / placed)
        click.echo(f"{shown}: frescod is not running: the job is taken at its next start")
    else:
        _tell(job)


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script that completes frescod's command lines.

    For bash, in ~/.bashrc: eval "$(frescod completion bash)"
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    root = context.find_root().command
    click.echo(kind(root, {}, "frescod", "_FRESCOD_COMPLETE").source())


def _tell(job: dict[str, Any]) -> None:
    name = Path(job["clip"]).name
    text = f"job {job['id']}: {name} {job['state'].replace('_', ' ')}"
    click.echo(printable(f"{text}: {job['reason']}" if job["reason"] else text))


def _print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2))


SERVICE_COMMANDS: tuple[click.Command, ...] = (
    serve, status, jobs, show, retry, cancel, pause, resume, drain, submit, completion,
)  # fmt: skip
