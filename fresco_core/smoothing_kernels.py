# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator"
# Triton's functions are compiled from their text; their arguments are pointers and numbers.
"""Background smoothing as a Triton kernel. Needs Triton; `smoothing` uses it.

Its plain twin is the warp and `lerp` of `smoothing`, which `tests/gpu` compares it with.

Shapes: K copies of the frames, P pixels, C channels. In a kernel: T pixels and D channels.
"""

import triton
import triton.language as tl
from torch import Tensor

from fresco_core.launching import OPTIONS

# Numbers of a program, and the most channels that it has.
TILE = 2048
WIDEST = 128


@triton.jit
def _blend(
    source, target, token, weight, mix,
    copy_stride, P, C, ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Blend the pixels of one frame with those that another shows in their place.

    One program for some pixels and channels of a copy. Only pixels that change are written.

    Args:
        source, target: (K,P,C) float32, rows without gaps; target is in and out.
        token, weight: (P,4), `warp_rows.bilinear_rows` of the warp from source to target.
        mix: (P) float32, how much of the source goes into the target.
    """
    t = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    c = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    copy = tl.program_id(2).to(tl.int64) * copy_stride
    mix_T = tl.load(mix + t, t < P, 0.0)
    changes_T = mix_T != 0
    inside_D = (c < C)[None]
    warped_TD = tl.zeros((ROWS, WIDTH), tl.float32)
    for corner in tl.static_range(4):
        share_T = tl.load(weight + t * 4 + corner, changes_T, 0.0)
        token_T = tl.load(token + t * 4 + corner, changes_T, 0)
        at_TD = copy + token_T.to(tl.int64)[:, None] * C + c[None]
        seen_TD = (share_T != 0)[:, None] & inside_D
        warped_TD += share_T[:, None] * tl.load(source + at_TD, seen_TD, 0.0)
    at_TD = copy + t.to(tl.int64)[:, None] * C + c[None]
    inside_TD = changes_T[:, None] & inside_D
    own_TD = tl.load(target + at_TD, inside_TD, 0.0)
    tl.store(target + at_TD, own_TD + mix_T[:, None] * (warped_TD - own_TD), inside_TD)


def blend_rows(
    source_KPC: Tensor, target_KPC: Tensor, token_P4: Tensor, weight_P4: Tensor, mix_P: Tensor
) -> None:
    """Put ``lerp(target, warped source, mix)`` into `target`.

    Args:
        source_KPC, target_KPC: float32, alike in their strides; pixels without gaps.
        token_P4, weight_P4: of `warp_rows.bilinear_rows`.
        mix_P: float32.
    """
    copies, pixels, channels = target_KPC.shape
    width = min(WIDEST, triton.next_power_of_2(channels))
    rows = TILE // width
    _blend[(triton.cdiv(pixels, rows), triton.cdiv(channels, width), copies)](
        source_KPC,
        target_KPC,
        token_P4,
        weight_P4,
        mix_P,
        target_KPC.stride(0),
        pixels,
        channels,
        ROWS=rows,
        WIDTH=width,
        **OPTIONS,
    )
