"""What shapes a translation, apart from models and pictures. Needs no torch.

Source of all defaults: FRESCO (Yang et al., CVPR 2024), as published.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class AttentionOptions:
    """Numbers of the two guided attentions; the defaults are the published ones.

    Attributes:
        spatial_scale, temporal_scale: factors on their keys.
        spatial_bias: added to the diagonal of spatial-guided attention's scores.
    """

    spatial_scale: float = 0.2
    temporal_scale: float = 0.2
    spatial_bias: float = 0.0


@dataclass(frozen=True)
class OptimizationOptions:
    """Numbers of the feature optimisation; the defaults are the published ones."""

    iterations: int = 20
    learning_rate: float = 0.2
    spatial_weight: float = 100.0


@dataclass(frozen=True)
class OcclusionOptions:
    """When a pixel has no counterpart in another frame; the defaults are the published ones.

    Attributes:
        slope, margin: its flow there and back misses by more than this share of both lengths plus
            so many pixels.
        colour: or its colour changes by more than this, mean of |RGB|, 0..255.
    """

    slope: float = 0.01
    margin: float = 0.5
    colour: float = 63.75


@dataclass(frozen=True)
class FreeUOptions:
    """Factors of FreeU (Si et al., CVPR 2024); the defaults are FRESCO's.

    Attributes:
        b1, b2: on the backbone features of the UNet's widest and second widest blocks.
        s1, s2: on the low frequencies of the skip connections beside them.
    """

    b1: float = 1.2
    b2: float = 1.5
    s1: float = 1.0
    s2: float = 1.0


@dataclass(frozen=True)
class TranslationOptions:
    """Everything that shapes a translation but models and pictures; defaults as published.

    Attributes:
        steps: length of the whole noise schedule.
        warmup_steps: steps skipped at its start, so that the input's layout stays (SDEdit);
            negative: start from pure noise.
        guidance_scale: of classifier-free guidance.
        control_scales: weight of each ControlNet; one alone counts for all.
        seed: of all random numbers.
        added_prompt: appended to every prompt; None: what suits the base model.
        negative_prompt: where a prompt has none of its own; None: what suits the base model.
        prompt_weights: (word:1.2) weighs words and prompts may be of any length; False: brackets
            are text and prompts are cut after 77 tokens, as published.
        repeat_noise: all frames start from the same noise.
        cross_frame_attention, spatial_attention, temporal_attention, feature_optimization,
            background_smoothing: the five constraints.
        spatial_attention_steps: executed steps, from the first, with spatial-guided attention.
        temporal_attention_end: smallest timestep with temporal-guided attention.
        optimization_end: schedule index at which feature optimisation ends.
        optimized_levels: decoder levels whose input is optimised.
        smoothing_begin, smoothing_end: share of the schedule at which pictures are smoothed.
        keep_colours: how much of the input's colours key frames keep, 0 to 1.
        freeu: FreeU's factors; None: without.
    """

    steps: int = 20
    warmup_steps: int = 5
    guidance_scale: float = 7.5
    control_scales: tuple[float, ...] = (0.7,)
    seed: int = 0
    added_prompt: str | None = None
    negative_prompt: str | None = None
    prompt_weights: bool = True
    repeat_noise: bool = True
    cross_frame_attention: bool = True
    spatial_attention: bool = True
    temporal_attention: bool = True
    feature_optimization: bool = True
    background_smoothing: bool = True
    spatial_attention_steps: int = 1
    temporal_attention_end: int = 350
    optimization_end: int = 15
    optimized_levels: tuple[int, ...] = (0, 1, 2, 3)
    smoothing_begin: float = 0.8
    smoothing_end: float = 0.9
    keep_colours: float = 0.0
    freeu: FreeUOptions | None = None
    attention: AttentionOptions = field(default_factory=AttentionOptions)
    optimization: OptimizationOptions = field(default_factory=OptimizationOptions)
    occlusion: OcclusionOptions = field(default_factory=OcclusionOptions)

    @property
    def executed_steps(self) -> int:
        """Sampling steps of a batch: the schedule without those skipped at its start."""
        return self.steps - max(self.warmup_steps, 0)

    def smooths(self, index: int) -> bool:
        """Whether the step at a schedule index smooths the background: 16 and 17 of 20."""
        # In integers of a thousandth, so that 0.8 * 20 is 16 and not a rounding error beside it.
        position = 1000 * index
        return (
            round(1000 * self.smoothing_begin) * self.steps
            <= position
            < round(1000 * self.smoothing_end) * self.steps
        )
