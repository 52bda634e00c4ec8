"""Attention over integer keys and values on tensor cores (numerics.md section 6.4); must not know models.

Three passes go over the keys that some queries see: for the maximum of the scores, for the sum of their exponentials,
for the weighted values. Weights depend on maximum and sum, and float sums may not be rescaled, so the scores are
computed three times; their products are cheap, and nothing of the size of scores is ever in memory. Keys are rows of
the products and queries columns, so few queries (a step) fill the instructions as well as many (prefill). The order
of the keys does not matter: sums are of integers and maxima are exact.

H, G, D, T and SLOTS are as in products.py. WINDOW is the number of positions that a query sees, itself included, or 0
for all; a program takes BQ queries, and BS keys at once.
"""

import triton
import triton.language as tl

from .primitives import divide, exp2_entry, nearest

WEIGHT_SUM = tl.constexpr(131072.0)
"""About the sum of the integer weights of one query: 2^17."""

_UNIT = tl.constexpr(2.0**-17)


@triton.jit
def _scores(
    high, low, query_scale,
    keys, key_scale,
    first, slot, position,
    WINDOW: tl.constexpr, D: tl.constexpr, BS: tl.constexpr,
):  # fmt: skip
    """Computes the scores z of (BS keys, queries) float32, -inf where a query does not see a key.

    The sum over two planes of the query, 256 high + low, is below 2^24 (numerics.md section 5), so in int32 and float32
    it is exact.
    """
    s, d = tl.arange(0, BS), tl.arange(0, D)
    k = tl.load(keys + (slot + s)[:, None] * D + d[None])
    total = tl.dot(k, high, out_dtype=tl.int32) * 256 + tl.dot(k, low, out_dtype=tl.int32)
    there = (first + s)[:, None]
    seen = there <= position[None]
    if WINDOW:
        seen = seen & (there > position[None] - WINDOW)
    z = total.to(tl.float32) * query_scale[None] * tl.load(key_scale + slot + s)[:, None]
    return tl.where(seen, z, float("-inf"))


@triton.jit(do_not_specialize=["T"])
def attend(  # one kernel, because its three passes share the queries, and the sums that are in registers
    query_high, query_low, query_scale,
    keys, key_scale,
    values, value_scale, peaks,
    out,
    octave,
    begin_at, T, SLOTS,
    H: tl.constexpr, G: tl.constexpr, D: tl.constexpr, WINDOW: tl.constexpr,
    BQ: tl.constexpr, BS: tl.constexpr,
    STAGES: tl.constexpr,
):  # fmt: skip
    """Computes attention of new tokens over the cached positions and their own, into out, (B, T, H, D) float32.

    Args:
        query_high, query_low, query_scale, keys, key_scale, values, value_scale, begin_at: as in `heads_product`, which
            has stored the new tokens' keys and values. SLOTS is a multiple of BS; all positions that are seen are in
            slots of their own.
        peaks: (B, G, T) float32, the largest value scale up to each new token.
        octave: as in `exp2_entry`.
        STAGES: tiles of keys that are loaded ahead in the first pass. The later passes look up a table between the
            products, and Triton 3.6 fails to compile such loops when they are pipelined; they find their keys in a
            cache anyway.
    """
    heads, queries = tl.program_id(0), tl.program_id(1) * BQ
    row, group = (heads // G).to(tl.int64), heads % G
    share: tl.constexpr = H // G
    begin = tl.load(begin_at)
    # Column c is head c modulo share of token c / share; those after the last token repeat its work and store nothing.
    c = queries + tl.arange(0, BQ)
    t = tl.minimum(c // share, T - 1)
    query = (row * T + t) * H + group * share + c % share
    position = begin + t
    d = tl.arange(0, D)
    high = tl.load(query_high + query[None] * D + d[:, None])
    low = tl.load(query_low + query[None] * D + d[:, None])
    scale = tl.load(query_scale + query)
    place = (row * G + group) * SLOTS
    keys, values = keys + place * D, values + place * D
    key_scale, value_scale = key_scale + place, value_scale + place

    end = begin + tl.minimum((queries + BQ - 1) // share, T - 1) + 1
    start = 0
    if WINDOW:
        start = tl.maximum(begin + queries // share - WINDOW + 1, 0) // BS * BS

    peaks_of_keys = tl.full((BS, BQ), float("-inf"), tl.float32)
    for first in tl.range(start, end, BS, num_stages=STAGES):
        z = _scores(high, low, scale, keys, key_scale, first, first % SLOTS, position, WINDOW, D, BS)
        peaks_of_keys = tl.maximum(peaks_of_keys, z)
    top = (tl.max(peaks_of_keys, 0) + 0.5)[None]

    # At most 2^31, unsigned: 2^20 for each of at most 2^17 / 64 tiles.
    parts = tl.zeros((BS, BQ), tl.int32)
    for first in range(start, end, BS):
        z = _scores(high, low, scale, keys, key_scale, first, first % SLOTS, position, WINDOW, D, BS)
        parts += exp2_entry(octave, top - z)
    total = tl.sum(parts.to(tl.uint32, bitcast=True).to(tl.int64), 0).to(tl.float32)
    peak = tl.load(peaks + (row * G + group) * T + t)
    unit = divide(WEIGHT_SUM, total * peak)[None]

    # p = low + 256 middle + 65536 upper, low and middle in int8; the whole is below 127 (2^17 + 1 + S / 2) < 2^31.
    s = tl.arange(0, BS)
    sums = tl.zeros((D, BQ), tl.int32)
    for first in range(start, end, BS):
        slot = first % SLOTS
        z = _scores(high, low, scale, keys, key_scale, first, slot, position, WINDOW, D, BS)
        # No query sees a slot that was never written: its weight is 0, whatever its scale.
        e = exp2_entry(octave, top - z)
        v_scale = tl.where(first + s < end, tl.load(value_scale + slot + s), 0.0)
        p = nearest(e.to(tl.float32) * v_scale[:, None] * unit)
        rest = (p + 128) >> 8
        upper = (rest + 128) >> 8
        v = tl.load(values + d[:, None] * SLOTS + (slot + s)[None])
        parts_upper = tl.dot(v, upper.to(tl.int8), out_dtype=tl.int32)
        parts_middle = tl.dot(v, (rest - (upper << 8)).to(tl.int8), out_dtype=tl.int32)
        parts_low = tl.dot(v, (p - (rest << 8)).to(tl.int8), out_dtype=tl.int32)
        sums += parts_low + parts_middle * 256 + parts_upper * 65536
    result = sums.to(tl.float32) * (peak * _UNIT)[None]
    tl.store(out + query[None] * D + d[:, None], result, mask=(c < T * share)[None])
