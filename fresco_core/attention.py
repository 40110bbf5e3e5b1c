"""FRESCO attention: self-attention that looks across frames, along structure and along motion.

Source: FRESCO (Yang et al., CVPR 2024), section 3.2.

Shapes: N frames, K copies of them (2 under classifier-free guidance), B = K * N samples, P tokens,
C channels, A heads of D = C / A channels, M tokens gathered from all frames, T = P trajectories.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fresco_core.correspondence import KeyTokens, TokenGuides, Trajectories
from fresco_core.fallback import Fallback
from fresco_core.options import AttentionOptions

# Only the two finest levels of the decoder: coarser tokens are too large to correspond.
HOOKED_BLOCKS = ("up_blocks.2.", "up_blocks.3.")
HOOKED_FACTORS = 16, 8
"""Pixels a token along each axis, in these."""
_PUBLISHED = AttentionOptions()
# A padded key's product with every query: less than any other, finite in half precision, and small
# enough that differences of scores are exact to far less than 1.
_NO_WEIGHT = -6e4


def cross_frame(
    keys_BAPD: Tensor, values_BAPD: Tensor, key_tokens: KeyTokens
) -> tuple[Tensor, ...]:
    """Keys and values that all frames of a copy share: those of the key tokens.

    Returns:
        keys and values, each (K,A,M,D).
    """

    def gather(x_BAPD: Tensor) -> Tensor:
        x_KANPD = x_BAPD.unflatten(0, (-1, key_tokens.frames)).transpose(1, 2)
        return x_KANPD.flatten(2, 3)[:, :, key_tokens.index_M]

    return gather(keys_BAPD), gather(values_BAPD)


def attend(queries_BAPD: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Ordinary attention; keys (B,A,P,D), or (K,A,M,D) shared by the frames of a copy."""
    copies = len(keys)
    if copies == len(queries_BAPD):
        return F.scaled_dot_product_attention(queries_BAPD, keys, values)
    tokens = queries_BAPD.shape[2]
    queries_KANPD = queries_BAPD.unflatten(0, (copies, -1)).transpose(1, 2)
    out_KAXD = F.scaled_dot_product_attention(queries_KANPD.flatten(2, 3), keys, values)
    return out_KAXD.unflatten(2, (-1, tokens)).transpose(1, 2).flatten(0, 1)


def attend_padded(
    queries_BAPD: Tensor, keys_BAPD: Tensor, values_BAPD: Tensor, key_tokens: KeyTokens
) -> Tensor:
    """`attend` to the key tokens by `KeyTokens.padded`: the same numbers in few different shapes.

    Queries and keys get a channel more, by which padded keys have a weight of exactly 0; channels
    stay a multiple of 8, as attention kernels want them.
    """
    depth, tokens = queries_BAPD.shape[3], queries_BAPD.shape[2]
    index_M, padding_M = key_tokens.padded
    more = 8 - depth % 8

    def rows(x_BAPD: Tensor) -> Tensor:
        """(K,NP,A,D), usually a view: samples keep their tokens' heads side by side."""
        return x_BAPD.transpose(1, 2).unflatten(0, (-1, key_tokens.frames)).flatten(1, 2)

    queries_KXAE = F.pad(rows(queries_BAPD), (0, more))
    keys_KMAE = F.pad(rows(keys_BAPD).index_select(1, index_M), (0, more))
    values_KMAE = F.pad(rows(values_BAPD).index_select(1, index_M), (0, more))
    queries_KXAE[..., depth] = 1
    keys_KMAE[..., depth] = _NO_WEIGHT * padding_M[:, None]
    out_KAXE = F.scaled_dot_product_attention(
        queries_KXAE.transpose(1, 2),
        keys_KMAE.transpose(1, 2),
        values_KMAE.transpose(1, 2),
        scale=depth**-0.5,
    )
    out_KANPD = out_KAXE[..., :depth].unflatten(2, (-1, tokens))
    return out_KANPD.transpose(1, 2).flatten(0, 1)


def spatial_guided(
    queries_BAPD: Tensor,
    reference_queries_BAPD: Tensor,
    reference_keys_BAPD: Tensor,
    scale: float,
    bias: float = 0.0,
) -> Tensor:
    """Queries averaged over tokens that are alike in the reference pass (eq. 3).

    ``bias`` is added to each token's score with itself.
    """
    bias_PP = None
    if bias:  # none costs neither memory nor the fast kernels
        tokens = queries_BAPD.shape[2]
        bias_PP = bias * torch.eye(tokens, device=queries_BAPD.device, dtype=queries_BAPD.dtype)
    return F.scaled_dot_product_attention(
        reference_queries_BAPD, scale * reference_keys_BAPD, queries_BAPD, attn_mask=bias_PP
    )


def temporal_guided(
    out_BAPD: Tensor,
    queries_BAPD: Tensor,
    keys_BAPD: Tensor,
    trajectories: Trajectories,
    scale: float,
) -> Tensor:
    """Attention outputs averaged along each unbroken trajectory (eq. 4)."""
    count, _tokens = trajectories.forward.shape
    heads, depth = out_BAPD.shape[1], out_BAPD.shape[3]

    def along(x_BAPD: Tensor, index_NP: Tensor) -> Tensor:
        x_KNAPD = x_BAPD.unflatten(0, (-1, count))
        index = index_NP[None, :, None, :, None].expand(len(x_KNAPD), -1, heads, -1, depth)
        return x_KNAPD.gather(3, index)

    def paths(x_BAPD: Tensor) -> Tensor:
        return along(x_BAPD, trajectories.forward).permute(0, 3, 2, 1, 4)  # (K,T,A,N,D)

    mixed_KTAND = F.scaled_dot_product_attention(
        paths(queries_BAPD),
        scale * paths(keys_BAPD),
        paths(out_BAPD),
        attn_mask=trajectories.linked[None, :, None],
    )
    mixed_BAPD = mixed_KTAND.permute(0, 3, 2, 1, 4).flatten(0, 1)
    return along(mixed_BAPD, trajectories.backward).flatten(0, 1)


def _mixed_along_paths(*given: Any) -> Tensor:
    # Only here: what it needs is not on every machine.
    from fresco_core.attention_kernels import mix_along_paths

    return mix_along_paths(*given)


def _planned(queries_BAPD: Tensor) -> bool:
    """Whether attention is cuDNN's, which makes a plan for every new shape: 56 ms on an H200."""
    return (
        queries_BAPD.is_cuda
        and queries_BAPD.dtype in (torch.float16, torch.bfloat16)
        and torch.backends.cuda.cudnn_sdp_enabled()
        and torch.cuda.get_device_capability(queries_BAPD.device) >= (9, 0)
    )


def fresco_attention(
    attention: Any,
    hidden_BPC: Tensor,
    *,
    key_tokens: KeyTokens | None = None,
    reference_BPC: Tensor | None = None,
    trajectories: Trajectories | None = None,
    options: AttentionOptions = _PUBLISHED,
    kernels: Fallback | None = None,
) -> Tensor:
    """One self-attention layer under the constraints that are given; (B,P,C), before the residual.

    Args:
        attention: the layer: `to_q`, `to_k`, `to_v`, `to_out[0]`, `heads`, as in diffusers.
        hidden_BPC: input of the layer.
        key_tokens: cross-frame attention to these tokens, or None for each frame to itself.
        reference_BPC: input of the layer in the reference pass: spatial-guided attention.
        trajectories: temporal-guided attention along these.
        kernels: of temporal-guided attention, and shapes that suit the GPU's; None: plain forms.
    """

    def split(x_BPC: Tensor) -> Tensor:
        return x_BPC.unflatten(-1, (attention.heads, -1)).transpose(1, 2)

    queries_BAPD = split(attention.to_q(hidden_BPC))
    keys_BAPD = split(attention.to_k(hidden_BPC))
    values_BAPD = split(attention.to_v(hidden_BPC))
    guided_BAPD = queries_BAPD
    if reference_BPC is not None:
        guided_BAPD = spatial_guided(
            queries_BAPD,
            split(attention.to_q(reference_BPC)),
            split(attention.to_k(reference_BPC)),
            options.spatial_scale,
            options.spatial_bias,
        )
    if key_tokens is not None and kernels is not None and _planned(guided_BAPD):
        out_BAPD = attend_padded(guided_BAPD, keys_BAPD, values_BAPD, key_tokens)
    elif key_tokens is not None:
        out_BAPD = attend(guided_BAPD, *cross_frame(keys_BAPD, values_BAPD, key_tokens))
    else:
        out_BAPD = attend(guided_BAPD, keys_BAPD, values_BAPD)
    if trajectories is not None:
        given = out_BAPD, queries_BAPD, keys_BAPD, trajectories, options.temporal_scale
        if kernels is not None:
            out_BAPD = kernels(lambda: _mixed_along_paths(*given), lambda: temporal_guided(*given))
        else:
            out_BAPD = temporal_guided(*given)
    return attention.to_out[0](out_BAPD.transpose(1, 2).flatten(2))


class FrescoAttention:
    """The self-attention layers of a UNet's fine decoder levels, under FRESCO's constraints.

    Replaces the attention processors of those layers; all other layers stay as they are. Which
    constraints hold is set between UNet calls: `guides` and the three switches.
    """

    def __init__(
        self,
        unet: nn.Module,
        options: AttentionOptions | None = None,
        *,
        kernels: bool = False,
    ) -> None:
        """Hook the layers.

        Args:
            kernels: use the project's own GPU kernels; the networks are on a GPU.
        """
        self.kernels = Fallback("temporal attention") if kernels else None
        self.options = options or AttentionOptions()
        self.guides: TokenGuides | None = None
        self.cross_frame = self.spatial = self.temporal = False
        self._reference: dict[str, Tensor] = {}
        self._recording = False
        self.layers = tuple(
            name
            for name, _ in unet.named_modules()
            if name.startswith(HOOKED_BLOCKS) and name.endswith(".attn1")
        )
        for name in self.layers:
            unet.get_submodule(name).set_processor(_Processor(self, name))  # type: ignore[operator]

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Constraints off; each layer's input is kept as its reference."""
        self.clear()
        self._recording = True
        try:
            yield
        finally:
            self._recording = False

    @property
    def reference(self) -> dict[str, Tensor]:
        """Inputs (B,P,C) of the layers in the recorded pass, by layer name."""
        return self._reference

    def clear(self) -> None:
        """Drop everything that belongs to one batch."""
        self._reference = {}
        self.guides = None
        self.cross_frame = self.spatial = self.temporal = False

    def run(self, name: str, attention: Any, hidden_BPC: Tensor) -> Tensor:
        """Called by a layer's processor."""
        if self._recording:
            self._reference[name] = hidden_BPC.clone()
            return fresco_attention(attention, hidden_BPC)
        tokens, guides = hidden_BPC.shape[1], self.guides
        return fresco_attention(
            attention,
            hidden_BPC,
            key_tokens=guides.key_tokens(tokens) if guides and self.cross_frame else None,
            reference_BPC=self._reference[name] if self.spatial else None,
            trajectories=guides.trajectories(tokens) if guides and self.temporal else None,
            options=self.options,
            kernels=self.kernels,
        )


class _Processor:
    """What diffusers calls in place of a layer's own attention."""

    def __init__(self, owner: FrescoAttention, name: str) -> None:
        self._owner, self._name = owner, name

    def __call__(self, attn: Any, hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
        return self._owner.run(self._name, attn, hidden_states)
