"""Settings as frozen models. Every key has a default, a range and a description."""

import hashlib
import json
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Scale = Annotated[float, Field(ge=0, le=10)]


class Section(BaseModel):
    """A table of ``config.toml``."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Models(Section):
    """Weights. Each is a hub id, a local folder in diffusers format or a .safetensors file."""

    base: str = Field(
        default="stable-diffusion-v1-5/stable-diffusion-v1-5",
        min_length=1,
        description="Base model, of the Stable Diffusion 1.5 kind.",
    )
    vae: str = Field(
        default="stabilityai/sd-vae-ft-mse",
        description='VAE that takes the place of the base model\'s own; "" keeps its own.',
    )
    controlnet: str = Field(
        default="", description='ControlNet; "" means lllyasviel/sd-controlnet-<control.type>.'
    )
    base_config: str = Field(
        default="",
        description=(
            "Folder or hub id with the configuration of a base model given as one file; "
            '"" means that of Stable Diffusion 1.5.'
        ),
    )
    dtype: Literal["auto", "float16", "bfloat16", "float32"] = Field(
        default="auto", description="Precision; auto is float16 on a GPU and float32 on the CPU."
    )
    offline: bool = Field(
        default=False, description="Never ask the hub: use only what is on this machine."
    )


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


class KeyFrames(Section):
    """Which frames are translated by diffusion, and how many at a time."""

    min_interval: int = Field(
        default=5, ge=1, le=100_000, description="Least distance of key frames."
    )
    max_interval: int = Field(
        default=5,
        ge=1,
        le=100_000,
        description=(
            "Largest distance aimed at. Equal to min_interval: every so many frames; "
            "larger: key frames go where the picture changes."
        ),
    )
    batch_size: int = Field(
        default=8,
        ge=3,
        le=16,
        description="Key frames translated together, the two carried ones included.",
    )
    resolution: int = Field(
        default=512,
        ge=64,
        le=2048,
        multiple_of=64,
        description="Short side of the working size in pixels.",
    )


class Translation(Section):
    """The diffusion itself."""

    steps: int = Field(default=20, ge=1, le=999, description="Length of the noise schedule.")
    warmup_steps: int = Field(
        default=5,
        ge=-1,
        le=999,
        description=(
            "Steps of the schedule skipped: the more, the closer to the input. "
            "-1 starts from pure noise."
        ),
    )
    guidance_scale: float = Field(default=7.5, ge=1, le=50, description="Classifier-free guidance.")
    seed: int = Field(default=0, ge=0, le=2**63 - 1, description="Start of all random numbers.")
    repeat_noise: bool = Field(
        default=True, description="All frames of a batch start from the same noise."
    )


class Control(Section):
    """The control map that ties the result to the structure of the input."""

    enabled: bool = Field(default=True, description="Use a ControlNet.")
    type: Literal["hed", "canny", "depth"] = Field(
        default="hed", description="Kind of control map."
    )
    scale: float = Field(default=0.7, ge=0, le=2, description="How strongly the control map binds.")
    canny_low: int = Field(default=50, ge=0, le=1000, description="Lower threshold of canny.")
    canny_high: int = Field(default=100, ge=0, le=1000, description="Upper threshold of canny.")
    device: Literal["auto", "cpu", "gpu"] = Field(
        default="auto",
        description=(
            "Who draws control maps: cpu: CPU processes, ahead of time; gpu: the GPU; auto: the "
            "CPU, and a GPU that would have to wait draws what is missing."
        ),
    )
    source: str = Field(
        default="",
        description='Weights of the hed or depth detector: hub id or local path; "" the usual one.',
    )


class Constraints(Section):
    """FRESCO's correspondence constraints; each can be switched off."""

    cross_frame_attention: bool = Field(
        default=True, description="Frames of a batch attend to a common set of tokens."
    )
    spatial_attention: bool = Field(
        default=True, description="Attention follows the self-similarity of the input frame."
    )
    temporal_attention: bool = Field(
        default=True, description="Attention along pixel trajectories."
    )
    feature_optimization: bool = Field(
        default=True,
        description="Optimise decoder features for spatial and temporal correspondence.",
    )
    background_smoothing: bool = Field(
        default=True,
        description="Smooth the background along the flow; what moves on its own is left alone.",
    )
    spatial_attention_steps: int = Field(
        default=1, ge=0, le=1000, description="Executed steps with spatial-guided attention."
    )
    temporal_attention_end: int = Field(
        default=350, ge=0, le=1000, description="Temporal-guided attention down to this timestep."
    )
    spatial_attention_scale: Scale = Field(
        default=0.2, description="Factor on the keys of spatial-guided attention."
    )
    temporal_attention_scale: Scale = Field(
        default=0.2, description="Factor on the keys of temporal-guided attention."
    )
    optimization_end: int = Field(
        default=15,
        ge=0,
        le=1000,
        description="Features are optimised in the first so many steps of the schedule.",
    )
    optimization_iterations: int = Field(
        default=20, ge=1, le=1000, description="Adam iterations per optimisation."
    )
    optimization_learning_rate: float = Field(
        default=0.2, gt=0, le=10, description="Adam's learning rate."
    )
    optimization_spatial_weight: float = Field(
        default=100.0,
        ge=0,
        le=1e6,
        description="Weight of the spatial loss against the temporal loss.",
    )
    optimized_levels: tuple[Annotated[int, Field(ge=0, le=3)], ...] = Field(
        default=(0, 1, 2, 3), description="Decoder levels whose input is optimised."
    )
    smoothing_begin: float = Field(
        default=0.8, ge=0, le=1, description="Share of the schedule at which smoothing begins."
    )
    smoothing_end: float = Field(
        default=0.9, ge=0, le=1, description="Share of the schedule at which smoothing ends."
    )


class Flow(Section):
    """Optical flow between frames."""

    model: Literal["dis", "raft"] = Field(
        default="dis", description="dis needs no weights; raft is better and slower."
    )
    weights: str = Field(default="", description='Local weights file of raft; "" the usual one.')

    @property
    def on_device(self) -> bool:
        """Whether a network computes it, where the models are."""
        return self.model != "dis"


class Prompts(Section):
    """Text added to every clip's prompt."""

    added: str = Field(
        default="auto",
        description='Appended to the positive prompt; auto: what suits the base model; "" nothing.',
    )
    negative: str = Field(
        default="auto",
        description=(
            "Negative prompt of clips whose prompt file has none; auto: what suits the base model."
        ),
    )


class Propagation(Section):
    """From key frames to all frames between them, by example-based synthesis."""

    votes: int = Field(default=12, ge=1, le=100, description="Search-vote rounds on each level.")
    sweeps: int = Field(default=6, ge=1, le=100, description="Search passes in each round.")
    uniformity: float = Field(
        default=3500.0, ge=0, le=1e6, description="Penalty on using a part of the key frame often."
    )
    still: int = Field(
        default=1,
        ge=-1,
        le=255,
        description="Pixels that change by less are not searched again; -1 searches all.",
    )
    colour: float = Field(default=6.0, ge=0, le=100, description="Weight of the colour guide.")
    edge: float = Field(default=0.5, ge=0, le=100, description="Weight of the edge guide.")
    temporal: float = Field(default=0.5, ge=0, le=100, description="Weight of the temporal guide.")
    positional: float = Field(
        default=2.0, ge=0, le=100, description="Weight of the positional guide."
    )
    inpaint_radius: int = Field(
        default=48, ge=1, le=500, description="Radius in pixels for filling guides at occlusions."
    )
    timing: Literal["symmetric", "published"] = Field(
        default="symmetric",
        description="How the second key frame's weight grows over a segment.",
    )
    blend: Literal["histogram", "selection"] = Field(
        default="histogram",
        description="Mix the colours of both key frames, or take each pixel from one of them.",
    )
    poisson: bool = Field(default=True, description="Remove the seams between the two.")


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
                "clips": {"on_truncated"},
                "limits": {"max_pixels"},
            },
        )
        sections = {name: value for name, value in values.items() if value}
        return hashlib.sha256(
            json.dumps(sections, sort_keys=True, separators=(",", ":")).encode()
        ).hexdigest()
