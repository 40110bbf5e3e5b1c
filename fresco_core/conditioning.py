"""What a batch of key frames is translated under: prompts, control maps, correspondences.

Shapes: N frames of a batch (the two carried ones first, if any), B = 2N under classifier-free
guidance (all negative-prompt samples, then all positive), H x W pixels (multiples of 64), L tokens
of a prompt, D channels of the text encoder, M ControlNets.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fresco_core.attention import HOOKED_FACTORS
from fresco_core.batch import KeyFrameBatch, Matched
from fresco_core.correspondence import Correspondence, TokenGuides, correspond
from fresco_core.fallback import Fallback
from fresco_core.flow import FlowModel
from fresco_core.models import DiffusionModels
from fresco_core.options import TranslationOptions
from fresco_core.prompts import PromptEncoder, effective_prompts
from fresco_core.saliency import SaliencyModel
from fresco_core.saliency.motion import MotionSaliency, nearest_flows
from fresco_core.sampling import to_normalised
from fresco_core.smoothing import BackgroundSmoother, background_map


@dataclass(frozen=True, eq=False)
class Conditioning:
    """All about a batch that stays the same from step to step.

    Attributes:
        frames_N3HW: float32 in [-1, 1].
        prompts_BLD: embeddings.
        controls_B3HW: what each ControlNet sees, in [0, 1]; none where there is no ControlNet.
        correspondence: flows and occlusions of the ring pairs.
        guides: masks and trajectories by token grid.
        background_N1HW: background map at half size, or None for no smoothing.
        smoothing_kernels: see `BackgroundSmoother`.
    """

    frames_N3HW: Tensor
    prompts_BLD: Tensor
    controls_B3HW: tuple[Tensor, ...]
    correspondence: Correspondence
    guides: TokenGuides
    background_N1HW: Tensor | None
    smoothing_kernels: Fallback | None = None

    @cached_property
    def smooth(self) -> BackgroundSmoother | None:
        """Smooths the background of pictures and features; None where that is off."""
        if self.background_N1HW is None:
            return None
        return BackgroundSmoother(self.correspondence, self.background_N1HW, self.smoothing_kernels)


class Conditioner:
    """Makes the conditioning of batches; without a saliency model, background is told by motion."""

    def __init__(
        self,
        models: DiffusionModels,
        flow: FlowModel,
        saliency: SaliencyModel | None = None,
        *,
        kernels: bool = False,
    ) -> None:
        """Take what serves all batches.

        Args:
            kernels: use the project's own GPU kernels; the models are on a GPU.
        """
        self._smoothing_kernels = Fallback("background smoothing") if kernels else None
        self.models = models
        self.flow = flow
        self.saliency = saliency or MotionSaliency()
        self._encode = PromptEncoder(models.tokenizer, models.text_encoder)

    def condition(self, batch: KeyFrameBatch, options: TranslationOptions) -> Conditioning:
        """Embed prompts, find correspondences and background of a batch (carried frames in it).

        Flows and saliency that the batch brings along are taken as they are.
        """
        device = self.models.device
        frames_NHW3 = torch.from_numpy(np.ascontiguousarray(batch.frames)).to(device)
        frames_N3HW = frames_NHW3.permute(0, 3, 1, 2).contiguous()
        forward_N2HW, backward_N2HW = self._ring_flow(frames_N3HW, batch.matched)
        correspondence = correspond(
            frames_N3HW.float(), forward_N2HW, backward_N2HW, options.occlusion
        )
        normalised_N3HW = to_normalised(frames_NHW3)
        background_N1HW = None
        if options.background_smoothing:
            if batch.matched is not None and batch.matched.salient is not None:
                salient_N1HW = torch.from_numpy(batch.matched.salient)[:, None].to(device).float()
            else:
                flows_N2HW = nearest_flows(forward_N2HW, backward_N2HW)
                salient_N1HW = self.saliency(frames_N3HW, flows_N2HW)
            background_N1HW = background_map(salient_N1HW)
        guides = TokenGuides(normalised_N3HW, correspondence)
        if options.cross_frame_attention or options.temporal_attention:
            for factor in HOOKED_FACTORS:
                guides.make(factor)
        return Conditioning(
            normalised_N3HW,
            self.embed(batch.prompts, batch.negative, options),
            self.control(batch.controls),
            correspondence,
            guides,
            background_N1HW,
            self._smoothing_kernels,
        )

    def embed(
        self, prompts: tuple[str, ...], negative: str | None, options: TranslationOptions
    ) -> Tensor:
        """Embeddings (B,L,D) of one prompt a frame, with what is added to each."""
        texts = [
            effective_prompts(
                text,
                negative,
                self.models.base_name,
                added=options.added_prompt,
                default_negative=options.negative_prompt,
            )
            for text in prompts
        ]
        return self._encode(
            [positive for positive, _ in texts],
            [negative for _, negative in texts],
            weights=options.prompt_weights,
        )

    def control(self, controls_NMHW: NDArray[np.uint8] | None) -> tuple[Tensor, ...]:
        """What each ControlNet sees of its control maps, M times (B,3,H,W) in [0, 1].

        Raises:
            ValueError: not as many control maps a frame as there are ControlNets.
        """
        networks = self.models.controlnets
        if controls_NMHW is None or not networks:
            return ()
        if controls_NMHW.shape[1] != len(networks):
            raise ValueError(f"{controls_NMHW.shape} control maps for {len(networks)} ControlNets")
        maps_NMHW = torch.from_numpy(np.ascontiguousarray(controls_NMHW)).to(self.models.device)
        conditions_MN1HW = (
            (maps_NMHW.float() / 255).to(self.models.dtype).transpose(0, 1)[:, :, None]
        )
        return tuple(condition_N1HW.repeat(2, 3, 1, 1) for condition_N1HW in conditions_MN1HW)

    def _ring_flow(self, frames_N3HW: Tensor, matched: Matched | None) -> tuple[Tensor, Tensor]:
        if matched is not None:
            forward_N2HW, backward_N2HW = torch.from_numpy(matched.flows).to(self.models.device)
            return forward_N2HW, backward_N2HW
        if len(frames_N3HW) == 1:
            still = torch.zeros_like(frames_N3HW[:, :2], dtype=torch.float32)
            return still, still
        forward_N2HW, backward_N2HW = self.flow(frames_N3HW, frames_N3HW.roll(-1, 0))
        return forward_N2HW.to(self.models.device), backward_N2HW.to(self.models.device)
