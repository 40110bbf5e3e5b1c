"""Jobs: one clip, its prompt and the settings; in which state it is, and how it ended."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from daemon.printable import printable
from io_pipeline.control_source import ControlFile


@dataclass(frozen=True)
class Job:
    """A clip, its prompt file and the name of its result folder.

    Attributes:
        settings_file: ``<stem>.toml`` beside the clip, where there is one.
        id: in the store.
        attempts: how often it has been claimed, this time included.
        control_files: control maps beside the clip, in natural order of their names.
    """

    clip: Path
    prompt_file: Path
    name: str
    settings_file: Path | None = None
    id: int = 0
    attempts: int = 1
    control_files: tuple[ControlFile, ...] = ()

    @property
    def files(self) -> tuple[Path | None, ...]:
        """All of them: the clip, its prompt file, its settings file, its control files."""
        controls = (control.path for control in self.control_files)
        return self.clip, self.prompt_file, self.settings_file, *controls


class JobState(StrEnum):
    """Where a job is; the first two wait, the last four are ends."""

    WAITING_PROMPT = "waiting_prompt"
    QUEUED = "queued"
    PREPARING = "preparing"
    TRANSLATING = "translating"
    PROPAGATING = "propagating"
    PUBLISHING = "publishing"
    DONE = "done"
    FAILED = "failed"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"


WAITING = frozenset({JobState.WAITING_PROMPT, JobState.QUEUED})
ENDED = frozenset({JobState.DONE, JobState.FAILED, JobState.SKIPPED, JobState.CANCELLED})
RUNNING = frozenset(JobState) - WAITING - ENDED


@dataclass(frozen=True)
class Arrival:
    """A clip as a folder has it now.

    Attributes:
        prompt_file: None while there is none.
        settings_file: ``<stem>.toml`` beside the clip, where there is one.
        seen: identity of all its files; another one when any of them was changed.
        refused: why it is not taken; empty where it is.
        priority: jobs of a higher one are taken first; None leaves it as it is.
        length: of equal priority the longer ones are taken first.
        name: of its result folder; empty where the store is to choose one.
        control_files: control maps beside the clip, in natural order of their names.
    """

    clip: Path
    prompt_file: Path | None
    settings_file: Path | None
    seen: str
    refused: str = ""
    priority: int | None = None
    length: int = 0
    name: str = ""
    control_files: tuple[ControlFile, ...] = ()

    @classmethod
    def of(cls, job: Job, length: int = 0) -> "Arrival":
        """A job that is there, whatever it looks like."""
        return cls(
            job.clip,
            job.prompt_file,
            job.settings_file,
            "",
            length=length,
            name=job.name,
            control_files=job.control_files,
        )


@dataclass(frozen=True)
class JobRecord:
    """A job as the store has it.

    Attributes:
        reason: why it failed, was skipped, cancelled, or waits.
        attempts: how often it was claimed without any window being finished since.
        windows_done, windows: of the clip, on disk and in all; 0 while not known.
        created, claimed, ended: Unix time, to be shown only.
        seconds: of work, over all attempts.
        propagated: frames, by who did them ("cpu", "gpu"), of a job in work; not in the store.
    """

    id: int
    clip: Path
    prompt_file: Path | None
    settings_file: Path | None
    name: str
    state: JobState
    reason: str
    priority: int
    attempts: int
    windows_done: int
    windows: int
    created: float
    claimed: float | None
    ended: float | None
    seconds: float
    control_files: tuple[ControlFile, ...] = ()
    propagated: Mapping[str, int] = field(default_factory=dict)

    def job(self) -> Job:
        """What the pipeline takes."""
        assert self.prompt_file is not None
        return Job(
            self.clip,
            self.prompt_file,
            self.name,
            self.settings_file,
            self.id,
            self.attempts,
            self.control_files,
        )

    def to_json(self) -> dict[str, Any]:
        """Everything in it is JSON; file names are printable."""
        values = {
            name: printable(value) if isinstance(value, Path) or name == "name" else value
            for name, value in vars(self).items()
        }
        controls = [
            {"kind": file.kind, "path": printable(file.path)} for file in self.control_files
        ]
        return values | {"control_files": controls}


class Outcome(StrEnum):
    """What became of a clip that was taken, or was not."""

    DONE = "done"
    ALREADY_DONE = "already done"
    NO_PROMPT = "no prompt"
    FAILED = "failed"
    QUEUED = "queued again"
    CANCELLED = "cancelled"


@dataclass(frozen=True)
class JobResult:
    """What became of one clip: ``reason`` tells why it has no result, ``folder`` is a result's."""

    clip: Path
    outcome: Outcome
    seconds: float = 0.0
    reason: str = ""
    folder: Path | None = None
