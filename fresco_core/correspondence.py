"""Which pixel of one frame is which pixel of another: warp, occlusion, trajectories.

The N frames of a batch form a ring: frame i is followed by frame (i + 1) mod N, which makes N
pairs. A flow on the grid of frame A towards frame B says that pixel p of A corresponds to
p + flow(p) of B.

Source: FRESCO (Yang et al., CVPR 2024), section 3.2 and supplementary; forward-backward consistency
as in Sundaram et al., ECCV 2010.

Shapes: N frames, C channels, H x W pixels, h x w a coarser grid, P = h * w tokens in raster order.
Flow channels: 0 = x, 1 = y, in pixels of the flow's own grid.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

from fresco_core.options import OcclusionOptions

_PUBLISHED = OcclusionOptions()


def warp(image_NCHW: Tensor, flow_N2HW: Tensor, *, mode: str = "bilinear") -> Tensor:
    """Sample `image` at p + flow(p); what lies outside the picture counts as 0.

    Args:
        image_NCHW: float pictures or features.
        flow_N2HW: float displacements in pixels; N may be 1 for all images.
        mode: "bilinear" or "nearest" (coordinates rounded half to even).
    """
    return sample(image_NCHW, sampling_grid(flow_N2HW), mode=mode)


def sampling_grid(flow_N2HW: Tensor) -> Tensor:
    """Where `warp` looks, (N,H,W,2): what of it belongs to the flow alone."""
    height, width = flow_N2HW.shape[-2:]
    rows_H = torch.arange(height, device=flow_N2HW.device, dtype=flow_N2HW.dtype)
    columns_W = torch.arange(width, device=flow_N2HW.device, dtype=flow_N2HW.dtype)
    x_NHW = columns_W + flow_N2HW[:, 0]
    y_NHW = rows_H[:, None] + flow_N2HW[:, 1]
    return torch.stack(
        (x_NHW * (2 / max(width - 1, 1)) - 1, y_NHW * (2 / max(height - 1, 1)) - 1), -1
    )


def sample(image_NCHW: Tensor, grid_NHW2: Tensor, *, mode: str = "bilinear") -> Tensor:
    """`warp` by its grid; the grid's N may be 1 for all images."""
    grid_NHW2 = grid_NHW2.expand(len(image_NCHW), -1, -1, -1).to(image_NCHW.dtype)
    return F.grid_sample(image_NCHW, grid_NHW2, mode=mode, padding_mode="zeros", align_corners=True)


def scale_down(image_NCHW: Tensor, scale: float) -> Tensor:
    """Bilinear resize by `scale` without antialiasing, half-pixel centres."""
    if scale == 1:
        return image_NCHW
    return F.interpolate(image_NCHW, scale_factor=scale, mode="bilinear", align_corners=False)


def window_sum(image_NCHW: Tensor, size: int) -> Tensor:
    """Sum over a `size` x `size` window (odd, border replicated), clamped to [0, 1].

    Dilates 0/1 masks, and makes soft ones wider and harder.
    """
    channels = image_NCHW.shape[1]
    kernel = torch.ones(channels, 1, size, size, device=image_NCHW.device, dtype=image_NCHW.dtype)
    padded = F.pad(image_NCHW, (size // 2,) * 4, mode="replicate")
    return F.conv2d(padded, kernel, groups=channels).clamp(0, 1)


def consistency_occlusion(
    flow_N2HW: Tensor, back_N2HW: Tensor, options: OcclusionOptions = _PUBLISHED
) -> Tensor:
    """Where following `flow` and then `back` does not lead home; bool (N,H,W), True = occluded.

    Args:
        flow_N2HW: on the grid that the mask is wanted for.
        back_N2HW: on the other frame's grid.
    """
    lengths_NHW = flow_N2HW.norm(dim=1) + back_N2HW.norm(dim=1)
    miss_NHW = (flow_N2HW + warp(back_N2HW, flow_N2HW)).norm(dim=1)
    return miss_NHW > options.slope * lengths_NHW + options.margin


def photometric_occlusion(
    frame_NCHW: Tensor,
    other_NCHW: Tensor,
    flow_N2HW: Tensor,
    options: OcclusionOptions = _PUBLISHED,
) -> Tensor:
    """Where `frame` (0..255) looks unlike `other` warped to it by `flow`; bool (N,H,W)."""
    difference_NHW = (frame_NCHW - warp(other_NCHW, flow_N2HW)).abs().mean(dim=1)
    return difference_NHW > options.colour


@dataclass(frozen=True, eq=False)
class Correspondence:
    """Flow and occlusion of the N ring pairs of a batch, on one grid.

    Attributes:
        forward_flows: (N,2,H,W) float32, entry i on the grid of frame i towards its successor.
        backward_flows: (N,2,H,W) float32, entry i on the successor's grid towards frame i.
        forward_occlusions: (N,1,H,W) float32, 1 where frame i has no counterpart.
        backward_occlusions: (N,1,H,W) float32, 1 where the successor has none.
    """

    forward_flows: Tensor
    backward_flows: Tensor
    forward_occlusions: Tensor
    backward_occlusions: Tensor

    def on_grid(self, rows: int) -> "Correspondence":
        """The same on a coarser grid of `rows` rows: flows scaled, any occluded pixel counts."""
        height = self.forward_flows.shape[-2]
        if rows == height:
            return self
        scale, factor = rows / height, height // rows
        return Correspondence(
            scale_down(self.forward_flows * scale, scale),
            scale_down(self.backward_flows * scale, scale),
            F.max_pool2d(self.forward_occlusions, factor),
            F.max_pool2d(self.backward_occlusions, factor),
        )


def correspond(
    frames_N3HW: Tensor,
    forward_N2HW: Tensor,
    backward_N2HW: Tensor,
    options: OcclusionOptions = _PUBLISHED,
) -> Correspondence:
    """Occlusions by consistency and colour for the flows of a batch's ring pairs.

    Args:
        frames_N3HW: float RGB, 0..255.
        forward_N2HW: entry i on the grid of frame i towards frame (i + 1) mod N.
        backward_N2HW: entry i on the grid of frame (i + 1) mod N towards frame i.
    """
    next_N3HW = frames_N3HW.roll(-1, 0)
    forward_NHW = consistency_occlusion(forward_N2HW, backward_N2HW, options)
    forward_NHW |= photometric_occlusion(frames_N3HW, next_N3HW, forward_N2HW, options)
    backward_NHW = consistency_occlusion(backward_N2HW, forward_N2HW, options)
    backward_NHW |= photometric_occlusion(next_N3HW, frames_N3HW, backward_N2HW, options)
    return Correspondence(
        forward_N2HW, backward_N2HW, forward_NHW[:, None].float(), backward_NHW[:, None].float()
    )


def key_mask(correspondence: Correspondence, factor: int) -> Tensor:
    """Tokens that stand for the whole batch in cross-frame attention; bool (N,P).

    All tokens of frame 0, and those of later frames that are occluded in the frame before.

    Args:
        factor: pixels per token along each axis.
    """
    occluded_NP = scale_down(correspondence.backward_occlusions, 1 / factor).flatten(1) > 0.5
    mask_NP = occluded_NP.roll(1, 0)
    mask_NP[0] = True
    return mask_NP


@dataclass(frozen=True, eq=False)
class KeyTokens:
    """`key_mask` as indices, which attention gathers by in every layer and step.

    Attributes:
        index_M: int64, counted through all frames.
        frames: their number.
    """

    index_M: Tensor
    frames: int

    @classmethod
    def of(cls, mask_NP: Tensor) -> "KeyTokens":
        """The tokens where a mask is set."""
        return cls(mask_NP.flatten().nonzero()[:, 0], len(mask_NP))

    @cached_property
    def padded(self) -> tuple[Tensor, Tensor]:
        """`index_M` made longer, to one of 16 lengths in an octave, and what of it is padding.

        Returns:
            index: int64, with token 0 repeated behind the others.
            padding: bool, of the same length.
        """
        count = len(self.index_M)
        step = 1 << max(count.bit_length() - 5, 0)
        more = -count % step
        padding = torch.arange(count + more, device=self.index_M.device) >= count
        return F.pad(self.index_M, (0, more)), padding


@dataclass(frozen=True, eq=False)
class Trajectories:
    """Paths of tokens through a batch; path t is named by its token in frame 0.

    Attributes:
        forward: (N,P) int64, token at which path t is in frame f.
        backward: (N,P) int64, the inverse: the path on which token p of frame f lies.
        linked: (P,N,N) bool, whether path t is unbroken between two frames.
    """

    forward: Tensor
    backward: Tensor
    linked: Tensor


def link_pairs(
    frames_NCHW: Tensor, nexts_NCHW: Tensor, back_flows_N2HW: Tensor, occluded_NHW: Tensor
) -> tuple[Tensor, Tensor]:
    """Match the tokens of frames one to one with those of the frames after them.

    Every visible token of the next frame follows its flow back to a token; of several that meet,
    the one most alike in colour keeps it (the first of equals). Tokens left over on both sides are
    paired in ascending order and count as unlinked. All shapes follow from the arguments', so that
    nobody waits for a device to tell one.

    Args:
        frames_NCHW, nexts_NCHW: colours on the token grid.
        back_flows_N2HW: on the next frame's grid towards the frame, in tokens.
        occluded_NHW: bool, tokens of the next frame without a counterpart.

    Returns:
        mapping (N,P) int64, token of the frame -> token of the next; unlinked (N,P) bool.
    """
    height, width = occluded_NHW.shape[1:]
    count, device = height * width, occluded_NHW.device
    x_NHW = torch.arange(width, device=device) + back_flows_N2HW[:, 0]
    y_NHW = torch.arange(height, device=device)[:, None] + back_flows_N2HW[:, 1]
    target_x_NP, target_y_NP = x_NHW.round().long().flatten(1), y_NHW.round().long().flatten(1)
    inside_NP = (target_x_NP >= 0) & (target_x_NP < width)
    inside_NP &= (target_y_NP >= 0) & (target_y_NP < height)
    # What has no target shares one behind the picture, which is left away in the end.
    seen_NP = inside_NP & ~occluded_NHW.flatten(1)
    target_NP = torch.where(seen_NP, target_y_NP * width + target_x_NP, count)
    colours_NCP, next_colours_NCP = frames_NCHW.flatten(2), nexts_NCHW.flatten(2)
    at_NCP = target_NP.clamp_max(count - 1)[:, None].expand_as(colours_NCP)
    distance_NP = (next_colours_NCP - colours_NCP.gather(2, at_NCP)).square().mean(1)

    # Two stable sorts order by (target, distance, token): the first of each target is its owner.
    order_NP = distance_NP.argsort(dim=1, stable=True)
    order_NP = order_NP.gather(1, target_NP.gather(1, order_NP).argsort(dim=1, stable=True))
    sorted_target_NP = target_NP.gather(1, order_NP)
    owns_NP = sorted_target_NP < count
    owns_NP[:, 1:] &= sorted_target_NP[:, 1:] != sorted_target_NP[:, :-1]
    owned_NP = torch.where(owns_NP, sorted_target_NP, count)

    def by_target(value_NP: Tensor) -> Tensor:
        """Of each target's owner; 0 where there is none."""
        placed_NQ = value_NP.new_zeros(len(value_NP), count + 1)
        return placed_NQ.scatter_(1, owned_NP, value_NP)[:, :count]

    unlinked_NP = ~by_target(owns_NP)
    busy_NP = torch.zeros_like(owns_NP).scatter_(1, order_NP, owns_NP)
    free_NP = busy_NP.byte().argsort(dim=1, stable=True)  # those that own nothing come first
    rank_NP = unlinked_NP.long().cumsum(1).sub_(1).clamp_min_(0)
    mapping_NP = torch.where(unlinked_NP, free_NP.gather(1, rank_NP), by_target(order_NP))
    return mapping_NP, unlinked_NP


def trajectories(frames_N3HW: Tensor, correspondence: Correspondence, factor: int) -> Trajectories:
    """Chain the pairwise matches of a batch's frames (the ring's last pair is not used).

    Args:
        frames_N3HW: RGB normalised to [-1, 1].
        correspondence: at the frames' size.
        factor: pixels per token along each axis.
    """
    count = len(frames_N3HW)
    colours_N3hw = scale_down(frames_N3HW, 1 / factor)
    flows_N2hw = scale_down(correspondence.backward_flows, 1 / factor) / factor
    occluded_Nhw = scale_down(correspondence.backward_occlusions, 1 / factor)[:, 0] > 0.5
    mapping_NP, unlinked_NP = link_pairs(
        colours_N3hw[:-1], colours_N3hw[1:], flows_N2hw[:-1], occluded_Nhw[:-1]
    )
    forward = [torch.arange(occluded_Nhw[0].numel(), device=frames_N3HW.device)]
    breaks = [torch.zeros_like(forward[0])]  # of each path until each frame
    for i in range(count - 1):
        breaks.append(breaks[-1] + unlinked_NP[i][forward[-1]])
        forward.append(mapping_NP[i][forward[-1]])
    forward_NP, breaks_PN = torch.stack(forward), torch.stack(breaks, 1)
    linked_PNN = breaks_PN[:, :, None] == breaks_PN[:, None]
    return Trajectories(forward_NP, forward_NP.argsort(dim=1), linked_PNN)


class TokenGuides:
    """Key tokens and trajectories of a batch by token grid, each made once when first asked for."""

    def __init__(self, frames_N3HW: Tensor, correspondence: Correspondence) -> None:
        self._frames_N3HW = frames_N3HW
        self._correspondence = correspondence
        self._key_tokens: dict[int, KeyTokens] = {}
        self._trajectories: dict[int, Trajectories] = {}

    def make(self, factor: int) -> None:
        """Make those of a grid of so many pixels a token, along each axis, ahead.

        How many key tokens there are has to be waited for: better while a device has little to do.
        """
        height, width = self._frames_N3HW.shape[-2:]
        tokens = (height // factor) * (width // factor)
        self.key_tokens(tokens)
        self.trajectories(tokens)

    def _factor(self, tokens: int) -> int:
        height, width = self._frames_N3HW.shape[-2:]
        return round((height * width / tokens) ** 0.5)

    def key_tokens(self, tokens: int) -> KeyTokens:
        """Where `key_mask` is set, for a grid of that many tokens."""
        if tokens not in self._key_tokens:
            mask_NP = key_mask(self._correspondence, self._factor(tokens))
            self._key_tokens[tokens] = KeyTokens.of(mask_NP)
        return self._key_tokens[tokens]

    def trajectories(self, tokens: int) -> Trajectories:
        """`trajectories` for a grid of that many tokens."""
        if tokens not in self._trajectories:
            self._trajectories[tokens] = trajectories(
                self._frames_N3HW, self._correspondence, self._factor(tokens)
            )
        return self._trajectories[tokens]
