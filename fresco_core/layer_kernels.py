# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator"
# Triton's functions are compiled from their text; their arguments are pointers and numbers.
"""Triton kernels of what lies between a network's convolutions. Needs Triton; `layers` uses them.

Each has its plain twin in `layers`; `tests/gpu` compares them.

Shapes: B samples, P positions, C channels (contiguous, last), G groups of channels, K chunks of
positions. Any float type in and out; sums are float32.
"""

import triton
import triton.language as tl


@triton.jit
def chunk_moments(
    x, shift, means, squares, P, C, CHUNKS,
    SHIFTED: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr, STEPS: tl.constexpr,
):  # fmt: skip
    """Mean and summed squared deviation of a chunk of positions, by channel.

    Sums are of differences from the chunk's first position: no difference of large sums.

    Args:
        x: (B,P,C); shift: (B,C) float32, added to it where SHIFTED.
        means, squares: (B,K,C) float32, out.
        ROWS, STEPS: a chunk is STEPS times ROWS positions.
    """
    chunk, block, sample = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    c = block * WIDTH + tl.arange(0, WIDTH)
    known = c < C
    begin = chunk * STEPS * ROWS
    first = tl.load(x + (sample * P + begin) * C + c, known, 0.0).to(tl.float32)
    sums = tl.zeros((ROWS, WIDTH), tl.float32)
    squared = tl.zeros((ROWS, WIDTH), tl.float32)
    for step in range(STEPS):
        p = begin + step * ROWS + tl.arange(0, ROWS)
        inside = (p < P)[:, None] & known[None]
        value = tl.load(x + (sample * P + p)[:, None] * C + c[None], inside, 0.0).to(tl.float32)
        value = tl.where(inside, value - first[None], 0.0)
        sums += value
        squared += value * value
    count = tl.minimum(P - begin, STEPS * ROWS)
    mean = tl.sum(sums, 0) / count
    square = tl.maximum(tl.sum(squared, 0) - mean * mean * count, 0.0)
    mean += first
    if SHIFTED:
        mean += tl.load(shift + sample * C + c, known, 0.0)
    at = (sample * CHUNKS + chunk) * C + c
    tl.store(means + at, mean, known)
    tl.store(squares + at, square, known)


@triton.jit
def group_factors(
    means, squares, weight, bias, shift, factor, offset, P, C, CHUNKS, LENGTH, epsilon,
    SHIFTED: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """What to multiply each channel by, and what to add then, to normalise its group.

    Args:
        means, squares: of `chunk_moments`, whose chunks are of LENGTH positions.
        weight, bias: (C,).
        factor, offset: (B,C) float32, out; the offset counts the shift in.
        WIDTH: at least the channels of a group, C / G, where G programs run along axis 0.
    """
    group, sample = tl.program_id(0), tl.program_id(1).to(tl.int64)
    size = C // tl.num_programs(0)
    j = tl.arange(0, WIDTH)
    known = j < size
    c = group * size + j
    total = (P * size) * 1.0
    sums = tl.zeros((WIDTH,), tl.float32)
    for begin in range(0, CHUNKS, ROWS):
        k = begin + tl.arange(0, ROWS)
        inside = (k < CHUNKS)[:, None] & known[None]
        at = (sample * CHUNKS + k)[:, None] * C + c[None]
        count = tl.minimum(P - k * LENGTH, LENGTH).to(tl.float32)
        sums += tl.sum(tl.load(means + at, inside, 0.0) * count[:, None], 0)
    mean = tl.sum(sums) / total
    sums = tl.zeros((WIDTH,), tl.float32)
    for begin in range(0, CHUNKS, ROWS):
        k = begin + tl.arange(0, ROWS)
        inside = (k < CHUNKS)[:, None] & known[None]
        at = (sample * CHUNKS + k)[:, None] * C + c[None]
        count = tl.minimum(P - k * LENGTH, LENGTH).to(tl.float32)
        difference = tl.where(inside, tl.load(means + at, inside, 0.0) - mean, 0.0)
        square = tl.load(squares + at, inside, 0.0) + difference * difference * count[:, None]
        sums += tl.sum(square, 0)
    deviation = tl.sqrt(tl.sum(sums) / total + epsilon)
    scale = tl.load(weight + c, known, 0.0).to(tl.float32) / deviation
    added = tl.load(bias + c, known, 0.0).to(tl.float32) - mean * scale
    if SHIFTED:
        added += tl.load(shift + sample * C + c, known, 0.0) * scale
    tl.store(factor + sample * C + c, scale, known)
    tl.store(offset + sample * C + c, added, known)


@triton.jit
def scaled(
    x, factor, offset, out, P, C, SILU: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr
):  # fmt: skip
    """Each channel of a sample times its factor plus its offset, then perhaps SiLU.

    Args:
        x, out: (B,P,C).
        factor, offset: (B,C) float32.
    """
    chunk, block, sample = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    p = chunk * ROWS + tl.arange(0, ROWS)
    c = block * WIDTH + tl.arange(0, WIDTH)
    known = c < C
    inside = (p < P)[:, None] & known[None]
    at = (sample * P + p)[:, None] * C + c[None]
    scale = tl.load(factor + sample * C + c, known, 0.0)
    added = tl.load(offset + sample * C + c, known, 0.0)
    value = tl.load(x + at, inside, 0.0).to(tl.float32) * scale[None] + added[None]
    if SILU:
        value = value / (1 + tl.exp(-value))
    tl.store(out + at, value.to(out.dtype.element_ty), inside)


@triton.jit
def normalised_rows(
    x, weight, bias, out, P, C, epsilon, ROWS: tl.constexpr, WIDTH: tl.constexpr
):  # fmt: skip
    """Each row with mean 0 and variance 1, then times a weight and plus a bias for each channel.

    Args:
        x, out: (P,C).
        weight, bias: (C,).
        WIDTH: at least C.
    """
    p = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    c = tl.arange(0, WIDTH)
    known = c < C
    inside = (p < P)[:, None] & known[None]
    at = p[:, None] * C + c[None]
    value = tl.load(x + at, inside, 0.0).to(tl.float32)
    mean = tl.sum(value, 1) / C
    value = tl.where(inside, value - mean[:, None], 0.0)
    deviation = tl.sqrt(tl.sum(value * value, 1) / C + epsilon)
    value = value / deviation[:, None] * tl.load(weight + c, known, 0.0).to(tl.float32)[None]
    value += tl.load(bias + c, known, 0.0).to(tl.float32)[None]
    tl.store(out + at, value.to(out.dtype.element_ty), inside)


@triton.jit
def added_rows(
    a, b, bias, out, P, C, ROWS: tl.constexpr, WIDTH: tl.constexpr
):  # fmt: skip
    """Sum of two tensors and of a number for each channel.

    Args:
        a, b, out: (P,C).
        bias: (C,).
    """
    p = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    c = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    known = c < C
    inside = (p < P)[:, None] & known[None]
    at = p[:, None] * C + c[None]
    value = tl.load(a + at, inside, 0.0).to(tl.float32)
    value += tl.load(b + at, inside, 0.0).to(tl.float32)
    value += tl.load(bias + c, known, 0.0).to(tl.float32)[None]
    tl.store(out + at, value.to(out.dtype.element_ty), inside)


@triton.jit
def gated(
    x, out, P, C, ROWS: tl.constexpr, WIDTH: tl.constexpr
):  # fmt: skip
    """First half of the channels times GELU of the second.

    Args:
        x: (P,2C).
        out: (P,C).
    """
    p = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    c = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    inside = (p < P)[:, None] & (c < C)[None]
    at = p[:, None] * (2 * C) + c[None]
    value = tl.load(x + at, inside, 0.0).to(tl.float32)
    gate = tl.load(x + at + C, inside, 0.0).to(tl.float32)
    value *= 0.5 * gate * (1 + tl.erf(gate * 0.7071067811865476))
    tl.store(out + p[:, None] * C + c[None], value.to(out.dtype.element_ty), inside)


@triton.jit
def doubled(x, out, H, W, C, WIDTH: tl.constexpr):  # fmt: skip
    """Every position four times: nearest enlargement by two. One program for a position.

    Args:
        x: (B,H,W,C).
        out: (B,2H,2W,C).
    """
    position = tl.program_id(0).to(tl.int64)
    c = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    known = c < C
    column, row = position % W, position // W  # rows of all samples, one after the other
    value = tl.load(x + position * C + c, known, 0.0)
    corner = out + (2 * row * 2 * W + 2 * column) * C + c
    tl.store(corner, value, known)
    tl.store(corner + C, value, known)
    tl.store(corner + 2 * W * C, value, known)
    tl.store(corner + 2 * W * C + C, value, known)
