"""Settings of the method: what a result looks like. Every key has a default, a range, a meaning."""

from typing import Annotated, Literal

from pydantic import Field

from daemon.section import Section

Scale = Annotated[float, Field(ge=0, le=10)]


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
    strength: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description=(
            "Share of the schedule that is executed, in place of warmup_steps: the more, the "
            "farther from the input. 0: warmup_steps decides."
        ),
    )
    guidance_scale: float = Field(default=7.5, ge=1, le=50, description="Classifier-free guidance.")
    seed: int = Field(default=0, ge=0, le=2**63 - 1, description="Start of all random numbers.")
    repeat_noise: bool = Field(
        default=True, description="All frames of a batch start from the same noise."
    )
    keep_colours: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description=(
            "How much of the input's colours key frames keep: 0 none, 1 mean and spread of its "
            "channels."
        ),
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
    spatial_attention_bias: float = Field(
        default=0.0,
        ge=-100,
        le=100,
        description="Added to the diagonal of spatial-guided attention's scores.",
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
    occlusion_slope: float = Field(
        default=0.01,
        ge=0,
        le=10,
        description=(
            "A pixel counts as occluded where forward and backward flow disagree by more than this "
            "share of their lengths and occlusion_margin together."
        ),
    )
    occlusion_margin: float = Field(
        default=0.5, ge=0, le=1000, description="See occlusion_slope; in pixels."
    )
    occlusion_colour: float = Field(
        default=63.75,
        ge=0,
        le=255,
        description="A pixel is occluded, too, where its colour changes by more grey levels.",
    )


class Flow(Section):
    """Optical flow between frames."""

    model: Literal["auto", "gmflow", "raft", "dis"] = Field(
        default="auto",
        description=(
            "gmflow is FRESCO's own; raft is torchvision's; dis needs no weights. auto: the first "
            "of them whose weights are on this machine."
        ),
    )
    weights: str = Field(
        default="",
        description='Local weights file of gmflow or raft; "" the usual one in torch\'s hub cache.',
    )

    @property
    def on_device(self) -> bool:
        """Whether a network computes it, where the models are."""
        return self.model != "dis"


class Saliency(Section):
    """What is not background, for background smoothing."""

    model: Literal["auto", "egnet", "motion"] = Field(
        default="auto",
        description=(
            "egnet is FRESCO's own; motion needs no weights: what moves unlike the camera. auto: "
            "egnet where its weights are on this machine."
        ),
    )
    weights: str = Field(
        default="",
        description='Local weights file of egnet; "" the usual one in torch\'s hub cache.',
    )


class FreeU(Section):
    """FreeU: the decoder's backbone strengthened against its skip connections."""

    enabled: bool = Field(default=False, description="Use FreeU.")
    b1: Scale = Field(default=1.2, description="Factor on the widest backbone features.")
    b2: Scale = Field(default=1.5, description="Factor on those of half that width.")
    s1: Scale = Field(default=1.0, description="Factor on the widest skips' low frequencies.")
    s2: Scale = Field(default=1.0, description="Factor on those of half that width.")


class Prompts(Section):
    """How prompts are read, and the text added to every clip's."""

    syntax: Literal["weights", "literal"] = Field(
        default="weights",
        description=(
            "weights: (word:1.2) weighs words, and a prompt may be of any length. literal: "
            "brackets are text, and what is beyond 77 tokens is cut, as published."
        ),
    )

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

    engine: Literal["builtin", "ebsynth"] = Field(
        default="builtin", description="Ours, or the original ebsynth program."
    )
    program: str = Field(
        default="ebsynth",
        min_length=1,
        description="The ebsynth program: a name on the PATH, or a path.",
    )
    processes: int = Field(
        default=0,
        ge=0,
        le=4096,
        description="Segments propagated by cores at a time; 0: as many as there are cores.",
    )
    device: Literal["auto", "cpu", "gpu"] = Field(
        default="auto",
        description=(
            "Who propagates: the cores, the GPUs between their translations, or, with auto, "
            "whichever will be done sooner. What a GPU cannot do the cores always do."
        ),
    )
    device_memory: str = Field(
        default="4GiB",
        pattern=r"^\d+(\.\d+)?\s*[MGTmgt][Ii][Bb]$",
        description="Memory of a GPU that propagating may take.",
        json_schema_extra={"allowed": "a size such as 4GiB or 512MiB"},
    )
    quality: Literal["reference", "balanced", "fast"] = Field(
        default="balanced",
        description=(
            "How much is tried: reference is as good as the ebsynth program, balanced as good to "
            "the eye and quicker, ten times on cores and twice on a GPU; fast saves another third."
        ),
    )
    patch: int = Field(
        default=5, ge=1, le=15, description="Side of a patch in pixels; an odd number."
    )
    votes: int = Field(
        default=0,
        ge=0,
        le=100,
        description="Search-vote rounds on each level; 0: as many as the quality has.",
    )
    sweeps: int = Field(
        default=0,
        ge=0,
        le=100,
        description="Search passes in each round; 0: as many as the quality has.",
    )
    uniformity: float = Field(
        default=3500.0, ge=0, le=1e6, description="Penalty on using a part of the key frame often."
    )
    still: int = Field(
        default=-2,
        ge=-2,
        le=255,
        description=(
            "Pixels that change by no more are not searched again; -1 searches all, -2: as the "
            "quality has it."
        ),
    )
    colour: float = Field(default=6.0, ge=0, le=100, description="Weight of the colour guide.")
    edge: float = Field(default=0.5, ge=0, le=100, description="Weight of the edge guide.")
    temporal: float = Field(default=0.5, ge=0, le=100, description="Weight of the temporal guide.")
    positional: float = Field(
        default=2.0, ge=0, le=100, description="Weight of the positional guide."
    )
    inpaint_radius: int = Field(
        default=48,
        ge=1,
        le=500,
        description="Radius in pixels of inpainting; see inpaint_scale.",
    )
    inpaint_scale: int = Field(
        default=0,
        ge=0,
        le=16,
        description=(
            "How guides are filled at occlusions: 0: by averages of what is around; else inpainted "
            "at one so-many-th of the size, at a cost that grows with the occlusion."
        ),
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
    poisson_weights: tuple[Annotated[float, Field(ge=0, le=100)], ...] = Field(
        default=(0.5, 0.5, 0.5),
        min_length=3,
        max_length=3,
        description="Weights of the gradients of L, a and b against the colours.",
        json_schema_extra={"allowed": "a list of three numbers, each 0 to 100"},
    )
    poisson_clip: float = Field(
        default=0.0, ge=0, le=255, description="Gradients are limited to this; 0: they are not."
    )
    poisson_rounding: Literal["nearest", "down"] = Field(
        default="nearest", description="Rounding of the result; down darkens by half a level."
    )
