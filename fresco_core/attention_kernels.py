# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator"
# Triton's functions are compiled from their text; their arguments are pointers and numbers.
"""Temporal-guided attention as one Triton kernel. Needs Triton; `attention` uses it.

Its plain twin is `attention.temporal_guided`, which `tests/gpu` compares it with.

Shapes: N frames, K copies of them, B = K * N samples, P tokens and as many paths, A heads of D
channels. In a kernel: T paths of a program, I = N frames as queries, J as keys.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from fresco_core.correspondence import Trajectories
from fresco_core.launching import OPTIONS

# Numbers of a tile of queries, and warps that share it: as many as their registers hold.
TILE = 4096
WARPS = 4
# Keys and values are under way for so many frames at once.
STAGES = 3


@triton.jit
def _mix(
    queries, keys, values, mixed, forward, linked,
    query_sample, query_head, query_token,
    key_sample, key_head, key_token,
    value_sample, value_head, value_token,
    mixed_sample, mixed_head, mixed_token,
    N, P, factor, D: tl.constexpr, ALIGNED: tl.constexpr,
    PATHS: tl.constexpr, FRAMES: tl.constexpr, DEPTH: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Attention among the tokens of each path.

    One program for some paths of a head of a copy. Softmax goes along with the frames as keys,
    rescaling what it has (Milakov & Gimelshein, 2018).

    Args:
        queries, keys, values: (B,A,P,D), by their strides.
        mixed: (B,A,P,D), out.
        forward: (N,P) int64, `Trajectories.forward`.
        linked: (P,N,N) uint8, `Trajectories.linked`.
        factor: from products of queries and keys to exponents of 2.
        ALIGNED: every row of D begins at a multiple of so many numbers.
    """
    head, copy = tl.program_id(0), tl.program_id(2).to(tl.int64)
    t = tl.program_id(1) * PATHS + tl.arange(0, PATHS)
    i = tl.arange(0, FRAMES)
    d = tl.arange(0, DEPTH)
    inside_TI = (t < P)[:, None] & (i < N)[None]
    inside_TD = (t < P)[:, None] & (d < D)[None]
    inside_TID = inside_TI[:, :, None] & (d < D)[None, None]
    sample_I = copy * N + i
    token_TI = tl.load(forward + i[None] * P + t[:, None], inside_TI, 0)
    at_TI = (sample_I * query_sample)[None] + token_TI * query_token + head * query_head
    at_TI = tl.multiple_of(at_TI, (ALIGNED, ALIGNED))
    q_TID = tl.load(queries + at_TI[:, :, None] + d[None, None], inside_TID, 0.0).to(tl.float32)
    q_TID *= factor

    highest_TI = tl.full((PATHS, FRAMES), -1e38, tl.float32)
    total_TI = tl.zeros((PATHS, FRAMES), tl.float32)
    sum_TID = tl.zeros((PATHS, FRAMES, DEPTH), tl.float32)
    for j in tl.range(N, num_stages=STAGES):
        sample = copy * N + j
        token_T = tl.load(forward + j * P + t, t < P, 0)
        at_T = sample * key_sample + token_T * key_token + head * key_head
        at_T = tl.multiple_of(at_T, ALIGNED)
        k_TD = tl.load(keys + at_T[:, None] + d[None], inside_TD, 0.0).to(tl.float32)
        at_T = sample * value_sample + token_T * value_token + head * value_head
        at_T = tl.multiple_of(at_T, ALIGNED)
        v_TD = tl.load(values + at_T[:, None] + d[None], inside_TD, 0.0).to(tl.float32)
        link_TI = tl.load(linked + (t[:, None] * N + i[None]) * N + j, inside_TI, 0) != 0
        score_TI = tl.where(link_TI, tl.sum(q_TID * k_TD[:, None, :], 2), -float("inf"))
        higher_TI = tl.maximum(highest_TI, score_TI)
        keep_TI = tl.exp2(highest_TI - higher_TI)
        share_TI = tl.exp2(score_TI - higher_TI)
        total_TI = total_TI * keep_TI + share_TI
        sum_TID = sum_TID * keep_TI[:, :, None] + share_TI[:, :, None] * v_TD[:, None, :]
        highest_TI = higher_TI

    mean_TID = sum_TID / tl.where(total_TI > 0, total_TI, 1.0)[:, :, None]
    at_TI = (sample_I * mixed_sample)[None] + token_TI * mixed_token + head * mixed_head
    at_TI = tl.multiple_of(at_TI, (ALIGNED, ALIGNED))
    place_TID = mixed + at_TI[:, :, None] + d[None, None]
    tl.store(place_TID, mean_TID.to(mixed.dtype.element_ty), inside_TID)


def mix_along_paths(
    out_BAPD: Tensor,
    queries_BAPD: Tensor,
    keys_BAPD: Tensor,
    trajectories: Trajectories,
    scale: float,
    *,
    tile: int = TILE,
    warps: int = WARPS,
    stages: int = STAGES,
) -> Tensor:
    """What `attention.temporal_guided` computes; a view of memory of shape (B,P,A,D).

    Args:
        out_BAPD, queries_BAPD, keys_BAPD: any float type and strides.
    """
    samples, heads, tokens, depth = out_BAPD.shape
    frames = len(trajectories.forward)
    mixed_BAPD = out_BAPD.new_empty(samples, tokens, heads, depth).transpose(1, 2)
    inputs = [
        x_BAPD if x_BAPD.stride(3) == 1 else x_BAPD.contiguous()
        for x_BAPD in (queries_BAPD, keys_BAPD, out_BAPD)
    ]
    strides = [step for x_BAPD in (*inputs, mixed_BAPD) for step in x_BAPD.stride()[:3]]
    wide, deep = triton.next_power_of_2(frames), triton.next_power_of_2(depth)
    paths = max(1, tile // (wide * deep))
    _mix[(heads, triton.cdiv(tokens, paths), samples // frames)](
        *inputs,
        mixed_BAPD,
        trajectories.forward.contiguous(),
        trajectories.linked.contiguous().view(torch.uint8),
        *strides,
        frames,
        tokens,
        scale * depth**-0.5 * 1.4426950408889634,  # exp(x) is 2 to the power of x log2(e)
        D=depth,
        ALIGNED=8 if all(step % 8 == 0 for step in strides) else 1,
        PATHS=paths,
        FRAMES=wide,
        DEPTH=deep,
        STAGES=stages,
        num_warps=warps,
        **OPTIONS,
    )
    return mixed_BAPD
