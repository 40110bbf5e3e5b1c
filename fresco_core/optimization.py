"""FRESCO feature optimisation: decoder features that agree over space and time.

Source: FRESCO (Yang et al., CVPR 2024), section 3.3.

Shapes: N frames, K copies of them (2 under classifier-free guidance), B = K * N samples,
C channels, h x w grid, P = h * w tokens.
"""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from fresco_core.correspondence import Correspondence, warp
from fresco_core.options import OptimizationOptions

# AdaIN's stabilisers differ by 5 orders of magnitude. The larger one belongs to the published
# results, so it stays: it damps channels of the original feature that hardly vary.
CONTENT_EPSILON = 1e-5
STYLE_EPSILON = 1.0
TEMPORAL_WEIGHT = 2.0
_PUBLISHED = OptimizationOptions()


class FeatureOptimization(Protocol):
    """What `optimize_features` is to the translator."""

    def __call__(
        self,
        feature_BChw: Tensor,
        *,
        reference_BPC: Tensor | None = None,
        correspondence: Correspondence | None = None,
        options: OptimizationOptions = ...,
    ) -> Tensor:
        """See `optimize_features`."""


def normalise_tokens(feature_BChw: Tensor) -> Tensor:
    """Token vectors of unit length; float32 (B,P,C)."""
    tokens_BPC = feature_BChw.float().flatten(2).transpose(1, 2)
    # A zero vector stays zero; the bound is far below any norm that occurs.
    return tokens_BPC / tokens_BPC.norm(dim=2, keepdim=True).clamp_min(1e-20)


def correlation(tokens_BPC: Tensor) -> Tensor:
    """Cosine similarity of all token pairs of a sample; (B,P,P)."""
    return tokens_BPC @ tokens_BPC.transpose(1, 2)


def spatial_loss(feature_BChw: Tensor, target_BPP: Tensor) -> Tensor:
    """Mean distance of the feature's token correlation from its target; scalar (eq. 5)."""
    return (correlation(normalise_tokens(feature_BChw)) - target_BPP).abs().mean()


def temporal_loss(feature_BChw: Tensor, correspondence: Correspondence) -> Tensor:
    """Mean distance of unoccluded features from those of the ring's neighbours; scalar (eq. 6)."""
    count = len(correspondence.forward_flows)
    frames_KNChw = feature_BChw.unflatten(0, (-1, count))
    next_KNChw = frames_KNChw.roll(-1, 1)
    copies = len(frames_KNChw)

    def per_copy(pairs: Tensor) -> Tensor:
        return pairs.repeat(copies, 1, 1, 1)

    seen_BChw = warp(feature_BChw, per_copy(correspondence.backward_flows))
    next_BChw = next_KNChw.flatten(0, 1)
    next_seen_BChw = warp(next_BChw, per_copy(correspondence.forward_flows))
    backward = (next_BChw - seen_BChw) * (1 - per_copy(correspondence.backward_occlusions))
    forward = (feature_BChw - next_seen_BChw) * (1 - per_copy(correspondence.forward_occlusions))
    return (backward.abs() + forward.abs()).mean()


def match_statistics(content_BChw: Tensor, style_BChw: Tensor) -> Tensor:
    """Adaptive instance normalisation: `content` with mean and spread of `style` per channel."""
    content_variance, content_mean = torch.var_mean(content_BChw, (2, 3), keepdim=True)
    style_variance, style_mean = torch.var_mean(style_BChw, (2, 3), keepdim=True)
    scale = (style_variance + STYLE_EPSILON).sqrt() / (content_variance + CONTENT_EPSILON).sqrt()
    return (content_BChw - content_mean) * scale + style_mean


def holding(
    feature_BChw: Tensor,
    reference_BPC: Tensor | None,
    correspondence: Correspondence | None,
    options: OptimizationOptions,
) -> tuple[Tensor | None, Correspondence | None]:
    """Those of the spatial and the temporal constraint of `optimize_features` that hold."""
    if feature_BChw[0, 0].numel() < 2:
        return None, None
    return (reference_BPC if options.spatial_weight else None), correspondence


def optimize_features(
    feature_BChw: Tensor,
    *,
    reference_BPC: Tensor | None = None,
    correspondence: Correspondence | None = None,
    options: OptimizationOptions = _PUBLISHED,
    on_iteration: Callable[[float, Tensor], None] | None = None,
) -> Tensor:
    """Move decoder features towards the constraints by a few steps of Adam.

    Args:
        feature_BChw: any float type; worked on in float32.
        reference_BPC: `normalise_tokens` of the reference pass, or None for no spatial constraint.
        correspondence: of the batch, at any size, or None for no temporal constraint.
        on_iteration: called after each step with the loss before it and the feature after it.

    Returns:
        a tensor like `feature`, with its channel statistics; `feature` itself where there is no
        constraint, or a single token (whose statistics do not exist).
    """
    rows = feature_BChw.shape[-2]
    reference_BPC, correspondence = holding(feature_BChw, reference_BPC, correspondence, options)
    if reference_BPC is None and correspondence is None:
        return feature_BChw
    target_BPP = correlation(reference_BPC) if reference_BPC is not None else None
    on_grid = correspondence.on_grid(rows) if correspondence is not None else None
    start_BChw = feature_BChw.float()
    with torch.enable_grad():
        variable_BChw = start_BChw.clone().requires_grad_()
        adam = torch.optim.Adam([variable_BChw], lr=options.learning_rate)
        for _ in range(options.iterations):
            loss = variable_BChw.new_zeros(())
            if target_BPP is not None:
                loss = loss + options.spatial_weight * spatial_loss(variable_BChw, target_BPP)
            if on_grid is not None:
                loss = loss + TEMPORAL_WEIGHT * temporal_loss(variable_BChw, on_grid)
            adam.zero_grad()
            loss.backward()
            adam.step()
            if on_iteration is not None:
                on_iteration(float(loss.detach()), variable_BChw.detach())
    return match_statistics(variable_BChw.detach(), start_BChw).to(feature_BChw.dtype)
