"""Integer products on tensor cores, each with the operations that follow it; must not know models.

y = fl(fl(fl(a) s) r) with a = sum of int8 by int8, exact in int32: |a| <= 127 * 127 * K < 2^31 for K <= 132,104, and so
is every partial sum (the tensor cores' instruction saturates, so none may exceed that). s is the scale of a row of
activations, r that of a row of weights.

Triton takes no structures, so kernels list all they need. Their groups of parameters, one on a line:

    q, scale              activations: (n, K) int8 and the scale of each row, (n,) float32
    weight, weight_scale  weights: (N, K) int8 and the scale of each output, (N,) float32. Terms are contiguous on both
                          sides, as the instructions for int8 need them.
    n, N, K               rows of activations, outputs, terms
    BM, BN, BK            tile of one program: rows and outputs, and the terms that it multiplies at once
    H, G, D               query heads, key/value heads, size of a head
    T, SLOTS              new tokens of each row of text, slots of the cache for each row and head
    BIAS, NORM, TURN, STEP  whether there is a bias, a norm, a rotary table; whether T = 1

Parameters in capitals, but for T and SLOTS, are compiled in: a kernel is compiled anew for each set of them.
"""

import triton
import triton.language as tl

from .primitives import INVERSE_127, divide, largest, nearest, rms_factor, silu_times

_GROUP = tl.constexpr(8)
"""Rows of tiles that run at the same time."""


@triton.jit
def _place(n, N: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr):
    """Returns row and column of this program's tile; tiles that share weights run at the same time, for the cache."""
    wide: tl.constexpr = _GROUP * ((N + BN - 1) // BN)
    program = tl.program_id(0)
    first = program // wide * _GROUP
    size = tl.minimum(tl.cdiv(n, BM) - first, _GROUP)
    inside = program % wide
    return first + inside % size, inside // size


@triton.jit
def _sums(
    q, weight,
    rows, columns,
    n, N: tl.constexpr, K: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Sums products for some rows and columns, (BM, BN) int32; values outside the matrix are arbitrary."""
    k = tl.arange(0, BK)
    left = q + tl.minimum(rows, n - 1).to(tl.int64)[:, None] * K + k[None]
    right = weight + tl.minimum(columns, N - 1).to(tl.int64)[None] * K + k[:, None]
    total = tl.zeros((BM, BN), tl.int32)
    for first in range(0, K, BK):
        if K % BK == 0:
            a, b = tl.load(left + first), tl.load(right + first)
        else:
            a = tl.load(left + first, mask=(first + k < K)[None], other=0)
            b = tl.load(right + first, mask=(first + k < K)[:, None], other=0)
        total = tl.dot(a, b, total, out_dtype=tl.int32)
    return total


@triton.jit(do_not_specialize=["n"])
def add_product(
    q, scale,
    weight, weight_scale,
    x,
    n, N: tl.constexpr, K: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Adds the product to x, (n, N) float32, as attention and MLP add to the hidden states."""
    i, j = _place(n, N, BM, BN)
    rows, columns = i * BM + tl.arange(0, BM), j * BN + tl.arange(0, BN)
    total = _sums(q, weight, rows, columns, n, N, K, BM, BN, BK).to(tl.float32)
    s = tl.load(scale + rows, mask=rows < n, other=0.0)
    r = tl.load(weight_scale + columns, mask=columns < N, other=0.0)
    at = x + rows.to(tl.int64)[:, None] * N + columns[None]
    inside = (rows < n)[:, None] & (columns < N)[None]
    tl.store(at, tl.load(at, mask=inside, other=0.0) + total * s[:, None] * r[None], mask=inside)


@triton.jit(do_not_specialize=["n"])
def head_product(
    q, scale,
    weight, weight_scale,
    gain, out,
    n, N: tl.constexpr, K: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Computes the product with a gain, fl(fl(fl(a) fl(s gain)) r), into out, (n, N) float32."""
    i, j = _place(n, N, BM, BN)
    rows, columns = i * BM + tl.arange(0, BM), j * BN + tl.arange(0, BN)
    total = _sums(q, weight, rows, columns, n, N, K, BM, BN, BK).to(tl.float32)
    s = tl.load(scale + rows, mask=rows < n, other=0.0) * gain
    r = tl.load(weight_scale + columns, mask=columns < N, other=0.0)
    inside = (rows < n)[:, None] & (columns < N)[None]
    tl.store(out + rows.to(tl.int64)[:, None] * N + columns[None], total * s[:, None] * r[None], mask=inside)


@triton.jit(do_not_specialize=["n"])
def gate_product(
    q, scale,
    weight, weight_scale,
    out,
    octave, log2e,
    n, N: tl.constexpr, K: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Computes silu(gate) * up into out, (n, N) float32; the matrix holds N rows of gate, then N of up."""
    i, j = _place(n, N, BM, BN)
    rows, columns = i * BM + tl.arange(0, BM), j * BN + tl.arange(0, BN)
    k = tl.arange(0, BK)
    left = q + tl.minimum(rows, n - 1).to(tl.int64)[:, None] * K + k[None]
    right = weight + tl.minimum(columns, N - 1).to(tl.int64)[None] * K + k[:, None]
    gate, up = tl.zeros((BM, BN), tl.int32), tl.zeros((BM, BN), tl.int32)
    for first in range(0, K, BK):
        if K % BK == 0:
            a, b, c = tl.load(left + first), tl.load(right + first), tl.load(right + N * K + first)
        else:
            a = tl.load(left + first, mask=(first + k < K)[None], other=0)
            b = tl.load(right + first, mask=(first + k < K)[:, None], other=0)
            c = tl.load(right + N * K + first, mask=(first + k < K)[:, None], other=0)
        gate = tl.dot(a, b, gate, out_dtype=tl.int32)
        up = tl.dot(a, c, up, out_dtype=tl.int32)
    s = tl.load(scale + rows, mask=rows < n, other=0.0)[:, None]
    g = gate.to(tl.float32) * s * tl.load(weight_scale + columns, mask=columns < N, other=0.0)[None]
    u = up.to(tl.float32) * s * tl.load(weight_scale + N + columns, mask=columns < N, other=0.0)[None]
    inside = (rows < n)[:, None] & (columns < N)[None]
    tl.store(out + rows.to(tl.int64)[:, None] * N + columns[None], silu_times(g, u, octave, log2e), mask=inside)


@triton.jit(do_not_specialize=["n", "T"])
def heads_product(  # one kernel, because each split would write all sums to memory and read them again
    q, scale,
    weight, weight_scale, bias,
    norm,
    cosine, sine,
    query_high, query_low, query_scale,
    keys, key_scale,
    values, value_scale, new_scale, peak,
    begin_at,
    query_max, query_unit, attention_factor, inverse, eps,
    n, T, SLOTS,
    H: tl.constexpr, G: tl.constexpr, D: tl.constexpr, K: tl.constexpr,
    BIAS: tl.constexpr, NORM: tl.constexpr, TURN: tl.constexpr, STEP: tl.constexpr,
    BM: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Computes queries, keys and values of new tokens, rotated and quantised (numerics.md section 6.3).

    A program takes one head: a query's, a key's or a value's.

    Args:
        q, scale: (n, K) int8, (n,) float32, n = B * T tokens, row after row.
        weight, weight_scale, bias: ((H + 2 G) D, K) int8; ((H + 2 G) D,) float32 each.
        norm: (H + G, D) float32.
        cosine, sine: (positions, D / 2) float32.
        query_high, query_low: (n, H, D) int8, query = 256 high + low, |low| <= 128.
        query_scale: (n, H) float32, the attention factor included.
        keys: (B, G, SLOTS, D) int8; values: (B, G, D, SLOTS) int8; key_scale, value_scale: (B, G, SLOTS) float32.
            Position p is in slot p modulo SLOTS.
        new_scale: (B, T, G) float32, a copy of the new value scales; not written with STEP.
        peak: (B, G) float32, the largest value scale; updated with STEP only.
        begin_at: pointer to the position of the first new token, int32.
        query_max, query_unit: bound of a quantised query, and its inverse, float32.
        inverse, eps: 1 / D as float32, and the epsilon of the norm.
    """
    head, tokens = tl.program_id(0), tl.program_id(1) * BM + tl.arange(0, BM)
    d = tl.arange(0, D)
    columns = head * D + d
    total = _sums(q, weight, tokens, columns, n, (H + 2 * G) * D, K, BM, D, BK).to(tl.float32)
    is_token = tokens < n
    y = total * tl.load(scale + tokens, mask=is_token, other=0.0)[:, None] * tl.load(weight_scale + columns)[None]
    if BIAS:
        y = y + tl.load(bias + columns)[None]
    turned = head < H + G
    if NORM:
        # Values have no norm: theirs is computed and then dropped.
        factor = rms_factor(y, inverse, eps)
        gain = tl.load(norm + columns, mask=d < tl.where(turned, D, 0), other=0.0)
        y = tl.where(turned, y * factor * gain[None], y)
    begin, row = tl.load(begin_at), tokens // T
    position = begin + tokens % T
    if TURN:
        # Values are rotated by no angle, which changes none of them.
        half: tl.constexpr = D // 2
        pair = tl.arange(0, half)
        angle = position[:, None] * half + pair[None]
        has_angle = (tokens < tl.where(turned, n, 0))[:, None] & (pair < half)[None]
        c, s = tl.load(cosine + angle, mask=has_angle, other=1.0), tl.load(sine + angle, mask=has_angle, other=0.0)
        a, b = tl.split(tl.permute(tl.reshape(y, (BM, 2, half)), (0, 2, 1)))
        y = tl.reshape(tl.permute(tl.join(a * c - b * s, b * c + a * s), (0, 2, 1)), (BM, D))
    peaks = largest(y)
    maximum = tl.where(head < H, query_max, 127.0)
    whole = nearest(y * divide(maximum, peaks))
    unit = tl.reshape(peaks, (BM,)) * tl.where(head < H, query_unit, INVERSE_127)
    inside = is_token[:, None] & (d < D)[None]
    token = tokens.to(tl.int64)
    if head < H:
        at = (token * H + head)[:, None] * D + d[None]
        high = (whole + 128) >> 8
        tl.store(query_high + at, high.to(tl.int8), mask=inside)
        tl.store(query_low + at, (whole - (high << 8)).to(tl.int8), mask=inside)
        tl.store(query_scale + token * H + head, unit * attention_factor, mask=is_token)
    elif head < H + G:
        place = (row.to(tl.int64) * G + head - H) * SLOTS + position % SLOTS
        tl.store(keys + place[:, None] * D + d[None], whole.to(tl.int8), mask=inside)
        tl.store(key_scale + place, unit, mask=is_token)
    else:
        line = row.to(tl.int64) * G + head - H - G
        slot = position % SLOTS
        tl.store(values + (line[:, None] * D + d[None]) * SLOTS + slot[:, None], whole.to(tl.int8), mask=inside)
        tl.store(value_scale + line * SLOTS + slot, unit, mask=is_token)
        if STEP:
            before = tl.load(peak + line, mask=tokens < tl.where(begin > 0, n, 0), other=0.0)
            tl.store(peak + line, tl.maximum(before, unit), mask=is_token)
        else:
            tl.store(new_scale + token * G + head - H - G, unit, mask=is_token)
