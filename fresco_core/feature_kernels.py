# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator"
# Triton's functions are compiled from their text; their arguments are pointers and numbers.
"""Triton kernels of the feature optimisation. Needs Triton; `feature_optimizer` uses them.

Each computes what its plain twin in `optimization` gets from autograd; `tests/gpu` compares them.

Shapes: N frames, K copies of them, B = K * N samples, P tokens, C channels (contiguous, last).
"""

import triton
import triton.language as tl


@triton.jit
def gram_signs(
    tokens, reference, signs, P, C, TILES, BLOCK: tl.constexpr, DEPTH: tl.constexpr
):  # fmt: skip
    """Sign of the difference of two token correlations, in half precision.

    One program for a tile on or above the diagonal; it writes its mirror image too, since both
    correlations are symmetric. Neither of them reaches memory.

    Args:
        tokens, reference: (B,P,C) half precision, unit vectors.
        signs: (B,P,P) half precision, out: -1, 0, 1.
        TILES: tiles along an axis.
    """
    pair, sample = tl.program_id(0), tl.program_id(1).to(tl.int64)
    # The pair-th entry of the upper triangle, row by row.
    row = 0
    left = pair
    width = TILES
    while left >= width:
        left -= width
        width -= 1
        row += 1
    column = row + left
    i = row * BLOCK + tl.arange(0, BLOCK)
    j = column * BLOCK + tl.arange(0, BLOCK)
    c = tl.arange(0, DEPTH)
    base = sample * P * C
    sums = tl.zeros((BLOCK, BLOCK), tl.float32)
    for begin in range(0, C, DEPTH):
        inside = (begin + c) < C
        at_i = base + i[:, None] * C + begin + c[None]
        at_j = base + j[None] * C + begin + c[:, None]
        mask_i = (i < P)[:, None] & inside[None]
        mask_j = (j < P)[None] & inside[:, None]
        a = tl.load(tokens + at_i, mask_i, 0.0)
        b = tl.load(tokens + at_j, mask_j, 0.0)
        sums = tl.dot(a, b, sums)
        a = tl.load(reference + at_i, mask_i, 0.0)
        b = tl.load(reference + at_j, mask_j, 0.0)
        sums = tl.dot(-a, b, sums)
    sign = tl.where(sums > 0, 1.0, tl.where(sums < 0, -1.0, 0.0)).to(signs.dtype.element_ty)
    mask = (i < P)[:, None] & (j < P)[None]
    # Within a tile, since P * P is more than 32 bits hold from 1728 x 1728 pixels on.
    k = tl.arange(0, BLOCK)
    within = k[:, None] * P + k[None]
    here = signs + (sample * P + row * BLOCK) * P + column * BLOCK
    tl.store(here + within, sign, mask)
    if row != column:
        mirrored = signs + (sample * P + column * BLOCK) * P + row * BLOCK
        tl.store(mirrored + within, tl.trans(sign), tl.trans(mask))


@triton.jit
def _sampled(rows, token, weight, at, c, inside, C):
    """One row of a warp: four weighted rows of (P,C)."""
    sum_C = tl.zeros_like(c).to(tl.float32)
    for corner in tl.static_range(4):
        share = tl.load(weight + at * 4 + corner)
        source = tl.load(token + at * 4 + corner)
        sum_C += share * tl.load(rows + source * C + c, inside, 0.0)
    return sum_C


@triton.jit
def _sign_of_change(kept, moved, mask, token, weight, row, at, c, inside, C):
    """Sign of a row of `kept` less that of `moved` in its place; 0 where it does not count."""
    sign = tl.zeros_like(c)
    if tl.load(mask + at) != 0:
        difference = tl.load(kept + row * C + c, inside, 0.0)
        difference -= _sampled(moved, token, weight, at, c, inside, C)
        sign = (difference > 0).to(tl.int32) - (difference < 0).to(tl.int32)
    return sign.to(tl.int8)


@triton.jit
def warp_signs(
    feature,
    back_mask, back_token, back_weight,
    fore_mask, fore_token, fore_weight,
    back_signs, fore_signs,
    N, P, C, WIDTH: tl.constexpr,
):  # fmt: skip
    """Sign of how each ring pair's features differ from one another's warped.

    One program for a token of a sample.

    Args:
        feature: (B,P,C) float32.
        back_*, fore_*: `WarpRows` of the backward and forward warps.
        back_signs, fore_signs: (B,P,C) int8, out. Entry i of a copy belongs to ring pair i.
    """
    token, sample = tl.program_id(0), tl.program_id(1).to(tl.int64)
    pair = sample % N
    follower = sample - pair + (pair + 1) % N
    c = tl.arange(0, WIDTH)
    inside = c < C
    own, other = feature + sample * P * C, feature + follower * P * C
    at = pair * P + token
    out = (sample * P + token) * C + c

    sign = _sign_of_change(other, own, back_mask, back_token, back_weight, token, at, c, inside, C)
    tl.store(back_signs + out, sign, inside)
    sign = _sign_of_change(own, other, fore_mask, fore_token, fore_weight, token, at, c, inside, C)
    tl.store(fore_signs + out, sign, inside)


@triton.jit
def _gathered(signs, start, row, row_weight, at, entries, c, inside, C):
    """One row of a transposed warp of (P,C) signs."""
    sum_C = tl.zeros_like(c).to(tl.float32)
    for entry in range(tl.load(start + at), tl.load(start + at + 1)):
        share = tl.load(row_weight + entries + entry)
        source = tl.load(row + entries + entry)
        sum_C += share * tl.load(signs + source * C + c, inside, 0).to(tl.float32)
    return sum_C


@triton.jit
def adam_step(
    feature, mean, square, tokens, length, gram,
    back_mask, back_start, back_row, back_row_weight, back_signs,
    fore_mask, fore_start, fore_row, fore_row_weight, fore_signs,
    gram_factor, temporal_factor, rate, mean_correction, square_correction,
    N, P, C, WIDTH: tl.constexpr,
    FIRST: tl.constexpr, SPATIAL: tl.constexpr, TEMPORAL: tl.constexpr,
):  # fmt: skip
    """Gradient of both losses and one step of Adam (Kingma & Ba, ICLR 2015, algorithm 1).

    One program for a token of a sample.

    Args:
        feature, mean, square: (B,P,C) float32, in and out: the variable and Adam's moments.
        tokens: (B,P,C) any float type, out: the variable's token vectors at unit length.
        length: (B,P) float32, in and out: their length before.
        gram: (B,P,C) any float type: the signs that `gram_signs` gives, times tokens.
        back_*, fore_*: `WarpRows` and `warp_signs`.
        gram_factor, temporal_factor: from the sums of signs to the losses' gradients.
        rate: Adam's step, with `mean_correction` and `square_correction` 1 - beta^t.
        FIRST: the moments are 0, whatever they hold.
    """
    token, sample = tl.program_id(0), tl.program_id(1).to(tl.int64)
    frame = sample % N
    before = (frame + N - 1) % N
    other = sample - frame + before
    c = tl.arange(0, WIDTH)
    inside = c < C
    at = (sample * P + token) * C + c
    x = tl.load(feature + at, inside, 0.0)
    gradient = tl.zeros_like(x)
    if SPATIAL:
        size = tl.load(length + sample * P + token)
        unit = x / size
        pull = tl.load(gram + at, inside, 0.0).to(tl.float32)
        gradient += gram_factor / size * (pull - unit * tl.sum(unit * pull))
    if TEMPORAL:
        own, of_other = sample * P * C, other * P * C
        here = token * C + c
        share = tl.load(back_mask + before * P + token)
        pull = share * tl.load(back_signs + of_other + here, inside, 0).to(tl.float32)
        share = tl.load(fore_mask + frame * P + token)
        pull += share * tl.load(fore_signs + own + here, inside, 0).to(tl.float32)
        pull -= _gathered(
            back_signs + own, back_start, back_row, back_row_weight,
            frame * (P + 1) + token, frame * 4 * P, c, inside, C,
        )  # fmt: skip
        pull -= _gathered(
            fore_signs + of_other, fore_start, fore_row, fore_row_weight,
            before * (P + 1) + token, before * 4 * P, c, inside, C,
        )  # fmt: skip
        gradient += temporal_factor * pull
    if FIRST:
        moment = 0.1 * gradient
        second = 0.001 * gradient * gradient
    else:
        moment = 0.9 * tl.load(mean + at, inside, 0.0) + 0.1 * gradient
        second = 0.999 * tl.load(square + at, inside, 0.0) + 0.001 * gradient * gradient
    x -= rate * (moment / mean_correction) / (tl.sqrt(second / square_correction) + 1e-8)
    tl.store(mean + at, moment, inside)
    tl.store(square + at, second, inside)
    tl.store(feature + at, x, inside)
    if SPATIAL:
        size = tl.maximum(tl.sqrt(tl.sum(x * x)), 1e-20)
        tl.store(tokens + at, (x / size).to(tokens.dtype.element_ty), inside)
        tl.store(length + sample * P + token, size)
