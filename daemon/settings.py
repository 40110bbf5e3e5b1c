"""Settings as frozen models. Every key has a default, a range and a description."""

import hashlib
import json
from typing import Literal

from pydantic import Field

from daemon.method_settings import (
    Constraints,
    Flow,
    FreeU,
    KeyFrames,
    Prompts,
    Propagation,
    Saliency,
    Translation,
)
from daemon.model_settings import Control, Models
from daemon.section import Section


class Clips(Section):
    """How clips are read."""

    decoder: Literal["auto", "pyav", "decord"] = Field(
        default="auto",
        description="auto is PyAV; decord is used where it delivers the same frames as PyAV.",
    )
    on_truncated: Literal["warn", "fail"] = Field(
        default="warn", description="A clip that was cut short: take what is there, or refuse it."
    )


class Limits(Section):
    """What is refused before it can do harm."""

    max_pixels: int = Field(
        default=8192 * 8192,
        ge=1,
        le=2**31 - 1,
        description="Clips of more pixels a frame are refused before any decoding.",
    )


class Prefetch(Section):
    """How far clips are prepared ahead of the devices."""

    memory: str = Field(
        default="auto",
        pattern=r"^(auto|\d+(\.\d+)?\s*[MGTmgt][Ii][Bb])$",
        description=(
            "Shared memory for all windows in work, never exceeded. auto is 1 GiB a device and 1 "
            "GiB, at most a quarter of the memory available."
        ),
        json_schema_extra={"allowed": "auto, or a size such as 2GiB or 512MiB"},
    )
    windows: int = Field(
        default=2, ge=1, le=100, description="Windows of a clip that are ready ahead of its device."
    )


class Cpu(Section):
    """The cores that the program may use."""

    cores: int = Field(
        default=0,
        ge=0,
        le=4096,
        description=(
            "Cores for all processes together; 0: all that this process may use. One for each GPU "
            "feeds that GPU, the others decode, draw control maps, propagate and encode."
        ),
    )


class Timeouts(Section):
    """Seconds without any progress after which a process is killed and its work done again."""

    load: float = Field(default=900, gt=0, le=86400, description="Loading models.")
    decode: float = Field(default=60, gt=0, le=86400, description="Decoding the next frames.")
    step: float = Field(default=600, gt=0, le=86400, description="One sampling step.")
    propagate: float = Field(default=900, gt=0, le=86400, description="One segment.")
    publish: float = Field(default=600, gt=0, le=86400, description="Writing one window's files.")
    space: float = Field(
        default=3600,
        ge=0,
        le=86400 * 30,
        description="Wait so long for space on a full disk before the clip fails.",
    )


class Inbox(Section):
    """The folder that `frescod serve` watches for clips and their prompt files."""

    folder: str = Field(default="inbox", min_length=1, description="Where clips are dropped.")
    recursive: bool = Field(default=False, description="Take clips from its sub-folders too.")
    quiet_seconds: float = Field(
        default=2.0,
        ge=0.1,
        le=3600,
        description="A file is complete when it has not changed for so long.",
    )
    rescan_seconds: float = Field(
        default=10.0,
        ge=0.5,
        le=3600,
        description="How often the folder is looked through, whatever its watcher says.",
    )
    watch: Literal["inotify", "polling"] = Field(
        default="inotify",
        description="How changes are noticed; polling for network shares, which do not tell.",
    )
    ignore: tuple[str, ...] = Field(
        default=("*.part", "*.partial", "*.tmp", "*.crdownload", "*~"),
        description="Names that are left alone, beside hidden ones; * and ? stand for anything.",
    )


class Output(Section):
    """The result folder."""

    folder: str = Field(
        default="output", min_length=1, description="Gets a folder of its own for each clip."
    )
    frames: Literal["all", "keys", "preview"] = Field(
        default="all",
        description=(
            "all: every frame. keys: key frames alone, neither propagation nor videos. preview: "
            "those of the first batch."
        ),
    )

    crf: int = Field(
        default=18, ge=0, le=51, description="H.264 quality of the videos; lower is better."
    )
    comparison: bool = Field(
        default=True,
        description="Write comparison.mp4: input, control map and output side by side.",
    )
    contact_sheet: bool = Field(default=True, description="Write contact_sheet.png.")


class Service(Section):
    """The daemon itself."""

    state: str = Field(
        default="", description='Folder of the job store; "" is .frescod in the output folder.'
    )
    socket: str = Field(
        default="", description='Socket it is controlled by; "" is control.sock in that folder.'
    )
    attempts: int = Field(
        default=3, ge=1, le=100, description="A job fails when it was tried in vain so often."
    )
    drain_seconds: float = Field(
        default=300.0,
        ge=0,
        le=86400 * 7,
        description=(
            "At SIGTERM running jobs have so long to finish; then they stop at their last "
            "checkpoint and go on at the next start."
        ),
    )


class Metrics(Section):
    """Figures for Prometheus; the control socket always has them."""

    listen: str = Field(
        default="",
        pattern=r"^(|(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+):\d{1,5})$",
        description='TCP address to serve them at as well, such as 127.0.0.1:9464; "" is none.',
        json_schema_extra={"allowed": "host:port, or nothing"},
    )


class Log(Section):
    """What is written to standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="What is less is left out."
    )
    format: Literal["auto", "json", "text"] = Field(
        default="auto", description="auto is text on a terminal and JSON lines elsewhere."
    )


class Settings(Section):
    """All of ``config.toml``."""

    devices: str = Field(
        default="auto",
        pattern=r"^(auto|cuda|(cpu(\*[1-9]\d{0,2})?|cuda:\d+)(\s*,\s*(cpu(\*[1-9]\d{0,2})?|cuda:\d+))*)$",
        description=(
            "Where the models run, one process each: all visible GPUs (auto; the CPU where there "
            'is none), or a list such as "cuda:0,cuda:1", "cpu" or "cpu*3".'
        ),
        json_schema_extra={"allowed": "auto, cuda, or a list of cuda:N, cpu and cpu*N"},
    )
    devices_required: bool = Field(
        default=False,
        description=(
            "frescod serve ends where one of the devices named is missing; else it does with those "
            "that are there."
        ),
    )
    models: Models = Models()
    clips: Clips = Clips()
    limits: Limits = Limits()
    key_frames: KeyFrames = KeyFrames()
    translation: Translation = Translation()
    control: Control = Control()
    constraints: Constraints = Constraints()
    flow: Flow = Flow()
    saliency: Saliency = Saliency()
    freeu: FreeU = FreeU()
    prompts: Prompts = Prompts()
    propagation: Propagation = Propagation()
    inbox: Inbox = Inbox()
    output: Output = Output()
    prefetch: Prefetch = Prefetch()
    cpu: Cpu = Cpu()
    timeouts: Timeouts = Timeouts()
    service: Service = Service()
    metrics: Metrics = Metrics()
    log: Log = Log()

    def fingerprint(self) -> str:
        """SHA-256 (hex) of every setting that changes the result and is not at its default.

        Not where it is computed, nor what is refused. Without the defaults, a key that a later
        version adds leaves the fingerprints of older results as they are.
        """
        values = self.model_dump(
            mode="json",
            exclude_defaults=True,
            exclude={
                "devices": True,
                "devices_required": True,
                "inbox": True,
                "prefetch": True,
                "cpu": True,
                "timeouts": True,
                "service": True,
                "metrics": True,
                "log": True,
                "output": {"folder"},
                "control": {"device"},
                "models": {"offline"},
                "propagation": {"processes", "device", "device_memory"},
                "clips": {"on_truncated"},
                "limits": {"max_pixels"},
            },
        )
        sections = {name: value for name, value in values.items() if value}
        return hashlib.sha256(
            json.dumps(sections, sort_keys=True, separators=(",", ":")).encode()
        ).hexdigest()
