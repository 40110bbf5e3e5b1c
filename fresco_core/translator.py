"""FrescoTranslator: key frames in, translated key frames out.

Source: FRESCO (Yang et al., CVPR 2024), section 3 and algorithm 1 of the supplementary.

Shapes: N frames of a batch (the two carried ones first, if any), B = 2N under classifier-free
guidance (all negative-prompt samples, then all positive), S sampling steps, H x W pixels (multiples
of 64), h x w = H/8 x W/8 latent grid, L tokens of a prompt, P tokens of a feature grid.
"""

import copy
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fresco_core.attention import FrescoAttention
from fresco_core.batch import Carry, KeyFrameBatch, Translation, check, with_carried
from fresco_core.captured import CapturedBlocks
from fresco_core.colours import keep_colours
from fresco_core.conditioning import Conditioner, Conditioning
from fresco_core.decoder import DecoderLevels
from fresco_core.errors import NoPictureError
from fresco_core.flow import FlowModel
from fresco_core.freeu import FreeU
from fresco_core.fused_layers import fuse, restore
from fresco_core.fused_optimization import FusedOptimization
from fresco_core.layers import Layers
from fresco_core.models import DiffusionModels
from fresco_core.optimization import FeatureOptimization, normalise_tokens, optimize_features
from fresco_core.options import TranslationOptions
from fresco_core.saliency import SaliencyModel
from fresco_core.sampling import (
    Noise,
    PictureCodec,
    Schedule,
    SeededNoise,
    on_device,
    repeat_first,
    to_uint8,
)

_REMEDY = "try models.dtype = 'float32' or 'bfloat16'"


@dataclass(frozen=True, eq=False)
class Step:
    """One executed sampling step, for whoever watches.

    Attributes:
        index, count: which of how many.
        timestep: of the noise schedule.
        latents: (N,4,h,w) entering the step, the carried ones already put in place.
        noise: (N,4,h,w), the guided prediction.
        clean: (N,4,h,w), predicted latents without noise, after background smoothing.
    """

    index: int
    count: int
    timestep: int
    latents: Tensor
    noise: Tensor
    clean: Tensor


class FrescoTranslator:
    """Translates batches of key frames under FRESCO's constraints.

    Owns the models: their attention processors and hooks belong to this object from then on.

    >>> translator = FrescoTranslator(models, load_flow("dis", None, models.device))
    >>> first = translator.translate(KeyFrameBatch(frames, controls, prompts))
    >>> second = translator.translate(KeyFrameBatch(more, controls, prompts), first.carry)
    """

    def __init__(
        self,
        models: DiffusionModels,
        flow: FlowModel,
        options: TranslationOptions | None = None,
        saliency: SaliencyModel | None = None,
        *,
        kernels: bool = True,
    ) -> None:
        """Without a saliency model, background is told by its motion.

        Args:
            kernels: use the project's own GPU kernels where the device is a GPU.
        """
        fused = kernels and models.device.type == "cuda"
        self.models = models
        self.flow = flow
        self.conditioner = Conditioner(models, flow, saliency, kernels=fused)
        self.options = options or TranslationOptions()
        self.codec = PictureCodec(models.vae)
        self.schedule = Schedule.from_scheduler(models.scheduler, self.options.steps)
        self.attention = FrescoAttention(models.unet, self.options.attention, kernels=fused)
        self.decoder = DecoderLevels(models.unet)
        self.freeu = FreeU(models.unet)
        self.optimize: FeatureOptimization = optimize_features
        self.blocks = CapturedBlocks()
        for network in self._networks:
            restore(network)
        if fused:
            self.optimize = FusedOptimization()
            self._fuse()

    @property
    def _networks(self) -> tuple[nn.Module, ...]:
        return *self.models.controlnets, self.models.unet, self.models.vae

    def _fuse(self) -> None:
        """Speed the networks up. The UNet's decoder is not captured: constraints look into it."""
        layers = Layers()
        for network in self._networks:
            fuse(network, layers)
        for network in (*self.models.controlnets, self.models.unet):
            for block in (*network.down_blocks, network.mid_block):
                self.blocks.capture(block)

    def with_options(self, options: TranslationOptions) -> "FrescoTranslator":
        """A translator with other options, on the same models: one translates at a time."""
        other = copy.copy(self)
        other.options = options
        other.schedule = Schedule.from_scheduler(self.models.scheduler, options.steps)
        return other

    def release(self) -> bool:
        """Give back the memory that is kept for the next batch of the same size, on a GPU.

        Returns:
            whether there was more than one size: the last one may have room now where it had none.
        """
        several = self.blocks.sizes > 1
        self.blocks.clear()
        if isinstance(self.optimize, FusedOptimization):
            self.optimize.clear()
        if self.models.device.type == "cuda":
            torch.cuda.empty_cache()
        return several

    @torch.no_grad()
    def translate(
        self,
        batch: KeyFrameBatch,
        carry: Carry | None = None,
        on_step: Callable[[Step], None] | None = None,
    ) -> Translation:
        """Translate a batch; every batch of a clip but its first needs the carry of the one before.

        Raises:
            ValueError: shapes that do not fit together, or sizes that are no multiples of 64.
            NoPictureError: a result is no picture.
        """
        check(batch, carry)
        device = self.models.device
        # Kernels of Triton and CUDA graphs run on the current device, wherever their tensors are.
        with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
            return self._translate(batch, carry, on_step)

    def _translate(
        self, batch: KeyFrameBatch, carry: Carry | None, on_step: Callable[[Step], None] | None
    ) -> Translation:
        if carry is not None:
            batch = with_carried(batch, carry)
        new = slice(2 if carry else 0, None)
        try:
            conditioning = self.conditioner.condition(batch, self.options)
            noise = SeededNoise(self.options.seed)
            references = self.reference_pass(conditioning, noise)
            latents_N4hw, record_S24hw = self.sample(
                conditioning, references, noise, carry.latents if carry else None, on_step
            )
            pictures_N3HW = self.codec.decode(latents_N4hw[new])
        finally:
            self.attention.clear()
        if not bool(latents_N4hw.isfinite().all() and pictures_N3HW.isfinite().all()):
            raise NoPictureError(f"the networks produced NaN or infinity: {_REMEDY}")
        frames, inputs = to_uint8(pictures_N3HW).cpu().numpy(), batch.frames[new]
        if _black(frames)[~_black(inputs)].any():
            raise NoPictureError(f"the networks produced a black picture: {_REMEDY}")
        frames = keep_colours(frames, inputs, self.options.keep_colours)
        return Translation(
            frames,
            Carry(
                latents=record_S24hw.cpu(),
                frames=batch.frames[[0, -1]],
                controls=None if batch.controls is None else batch.controls[[0, -1]],
                prompts=(batch.prompts[0], batch.prompts[-1]),
            ),
        )

    def reference_pass(self, conditioning: Conditioning, noise: Noise) -> dict[int, Tensor]:
        """One UNet call on the almost noiseless input: what the input's structure looks like.

        Leaves the inputs of the guided attention layers in `self.attention`.

        Returns:
            by decoder level, token vectors of unit length of its input, float32 (B,P,C); empty
            where no constraint asks for a reference.
        """
        options = self.options
        if not (options.spatial_attention or options.feature_optimization):
            self.attention.clear()
            return {}
        last = options.steps - 1
        shape = self._latent_shape(conditioning)
        noise_N4hw = on_device(noise.latent(shape), self.models.device)
        clean_N4hw = self.codec.encode(conditioning.frames_N3HW, noise.posterior)
        latents_N4hw = self.schedule.add_noise(clean_N4hw, noise_N4hw, last)
        with self.attention.recording(), self.decoder.recording() as inputs:
            self._unet(latents_N4hw, last, conditioning.prompts_BLD)
        if not options.feature_optimization:
            return {}
        return {level: normalise_tokens(inputs[level]) for level in options.optimized_levels}

    def sample(
        self,
        conditioning: Conditioning,
        references: dict[int, Tensor],
        noise: Noise,
        carried_S24hw: Tensor | None = None,
        on_step: Callable[[Step], None] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """From noise to clean latents.

        Args:
            references: of `reference_pass`.
            carried_S24hw: `Carry.latents`, or None in a clip's first batch.

        Returns:
            latents (N,4,h,w), float32, and the record (S,2,4,h,w) for the next batch. Nothing has
            been waited for until then.
        """
        options, schedule = self.options, self.schedule
        noise.restart()
        noise_N4hw = on_device(noise.latent(self._latent_shape(conditioning)), self.models.device)
        if options.repeat_noise:
            noise_N4hw = repeat_first(noise_N4hw)
        begin = max(options.warmup_steps, 0)
        latents_N4hw = noise_N4hw
        if options.warmup_steps >= 0:
            clean_N4hw = self.codec.encode(conditioning.frames_N3HW, noise.posterior)
            latents_N4hw = schedule.add_noise(clean_N4hw, noise_N4hw, begin)

        self.attention.guides = conditioning.guides
        if carried_S24hw is not None:
            carried_S24hw = on_device(carried_S24hw, self.models.device)
        record = []
        count = options.executed_steps
        for i, index in enumerate(range(begin, options.steps)):
            if carried_S24hw is not None:
                # Written into the latents' own memory layout, by which convolutions are chosen: a
                # carry that was kept on disk has lost its layout, and must give the same bits.
                latents_N4hw = latents_N4hw.clone()
                latents_N4hw[:2] = carried_S24hw[i]
            record.append(torch.stack((latents_N4hw[0], latents_N4hw[-1])))
            predicted_N4hw = self.predict_noise(latents_N4hw, index, conditioning, references)
            clean_N4hw = schedule.predict_clean(latents_N4hw, predicted_N4hw, index)
            if options.smooths(index):
                clean_N4hw = self.smooth_pictures(clean_N4hw, conditioning, noise)
            if on_step is not None:
                timestep = schedule.timesteps[index]
                on_step(Step(i, count, timestep, latents_N4hw, predicted_N4hw, clean_N4hw))
            fresh_N4hw = on_device(noise.latent(tuple(latents_N4hw.shape)), self.models.device)
            latents_N4hw = schedule.previous(latents_N4hw, clean_N4hw, fresh_N4hw, index)
        return latents_N4hw, torch.stack(record)

    @torch.no_grad()
    def predict_noise(
        self,
        latents_N4hw: Tensor,
        index: int,
        conditioning: Conditioning,
        references: dict[int, Tensor],
    ) -> Tensor:
        """Noise (N,4,h,w) in latents at schedule index `index`, under guidance and constraints."""
        options = self.options
        begin = max(options.warmup_steps, 0)
        self.attention.options = options.attention
        self.attention.cross_frame = options.cross_frame_attention
        self.attention.spatial = (
            options.spatial_attention and index - begin < options.spatial_attention_steps
        )
        self.attention.temporal = (
            options.temporal_attention
            and self.schedule.timesteps[index] >= options.temporal_attention_end
        )
        with ExitStack() as stack:
            if options.feature_optimization and index < options.optimization_end:
                stack.enter_context(
                    self.decoder.passing_through(
                        lambda level, feature_BChw: self.constrain(
                            level, feature_BChw, conditioning, references
                        )
                    )
                )
            predicted_B4hw = self._unet(
                latents_N4hw, index, conditioning.prompts_BLD, conditioning.controls_B3HW
            )
        negative_N4hw, positive_N4hw = predicted_B4hw.chunk(2)
        return negative_N4hw + options.guidance_scale * (positive_N4hw - negative_N4hw)

    def constrain(
        self,
        level: int,
        feature_BChw: Tensor,
        conditioning: Conditioning,
        references: dict[int, Tensor],
    ) -> Tensor:
        """Optimise and smooth the input of a decoder level."""
        if level not in references:
            return feature_BChw
        feature_BChw = self.optimize(
            feature_BChw,
            reference_BPC=references[level],
            correspondence=conditioning.correspondence,
            options=self.options.optimization,
        )
        return self.smooth_feature(feature_BChw, conditioning)

    def smooth_feature(self, feature_BChw: Tensor, conditioning: Conditioning) -> Tensor:
        """Smooth a decoder feature's background, where that is on."""
        return conditioning.smooth(feature_BChw) if conditioning.smooth else feature_BChw

    def smooth_pictures(
        self, clean_N4hw: Tensor, conditioning: Conditioning, noise: Noise
    ) -> Tensor:
        """Smooth the background of the pictures of latents (N,4,h,w), where that is on."""
        if conditioning.smooth is None:
            return clean_N4hw
        pictures_N3HW = conditioning.smooth(self.codec.decode(clean_N4hw))
        return self.codec.encode(pictures_N3HW, noise.posterior)

    def _unet(
        self,
        latents_N4hw: Tensor,
        index: int,
        prompts_BLD: Tensor,
        controls_B3HW: tuple[Tensor, ...] = (),
    ) -> Tensor:
        models = self.models
        timestep = on_device(torch.tensor(self.schedule.timesteps[index]), models.device)
        latents_B4hw = latents_N4hw.repeat(2, 1, 1, 1).to(models.dtype)
        self.freeu.options = self.options.freeu
        self.blocks.choose((latents_B4hw.shape, prompts_BLD.shape))
        predicted_B4hw = models.unet(
            latents_B4hw,
            timestep,
            encoder_hidden_states=prompts_BLD,
            return_dict=False,
            **self._residuals(latents_B4hw, timestep, prompts_BLD, controls_B3HW),
        )[0]
        return predicted_B4hw.float()

    def _residuals(
        self,
        latents_B4hw: Tensor,
        timestep: Tensor,
        prompts_BLD: Tensor,
        controls_B3HW: tuple[Tensor, ...],
    ) -> dict[str, Any]:
        """What the ControlNets add to the UNet's skip connections and middle, each weighted."""
        if not controls_B3HW:
            return {}
        scales = self.options.control_scales
        if len(scales) == 1:
            scales *= len(controls_B3HW)
        sums: list[Tensor] = []
        for network, scale, control_B3HW in zip(
            self.models.controlnets, scales, controls_B3HW, strict=True
        ):
            down, middle = network(
                latents_B4hw,
                timestep,
                encoder_hidden_states=prompts_BLD,
                controlnet_cond=control_B3HW,
                conditioning_scale=scale,
                return_dict=False,
            )
            residuals = [*down, middle]
            sums = [a + b for a, b in zip(sums, residuals, strict=True)] if sums else residuals
        return {
            "down_block_additional_residuals": tuple(sums[:-1]),
            "mid_block_additional_residual": sums[-1],
        }

    @staticmethod
    def _latent_shape(conditioning: Conditioning) -> tuple[int, int, int, int]:
        count, _, height, width = conditioning.frames_N3HW.shape
        return count, 4, height // 8, width // 8


def _black(frames_NHW3: NDArray[np.uint8]) -> NDArray[np.bool_]:
    return np.asarray(~frames_NHW3.any((1, 2, 3)))
