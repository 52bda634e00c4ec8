"""Triton kernels that turn masses into sums and cumulative frequencies; must not know models or the coder.

All values are integers (numerics.md section 8): masses are at most 2^20 and V is at most 300,000, so sums are below
2^38.2 and products with 2^24 below 2^63. With FLOOR, a model's floor_bits, masses are at most 2^(20 + FLOOR), and sums
are cut to 39 bits before a product.

Parameters: n rows of V masses in GROUPS groups of S <= 1,024 neighbouring ids, S a power of two. FREE is 2^b - V, the
part of all frequencies that the masses share. BLOCK is the number of values, or of groups, that a program reads at
once.
"""

import triton
import triton.language as tl


@triton.jit
def _table(sums, total, units, index):
    """Returns cumulative frequencies after sums, int64, whose total is below 2^47."""
    shift = total * 0
    for bits in tl.static_range(39, 47):
        shift += ((total >> bits) != 0).to(tl.int64)
    return (sums >> shift) * units // (total >> shift) + index


@triton.jit
def group_sums(masses, parts, V, GROUPS, S: tl.constexpr, FLOOR: tl.constexpr, BLOCK: tl.constexpr):
    """Sums the masses, (n, V) int32, of each group into parts, (n, GROUPS): int32 below 2^30, with FLOOR int64."""
    row, g = tl.program_id(0).to(tl.int64), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    ids = g[:, None] * S + tl.arange(0, S)[None]
    values = tl.load(masses + row * V + ids, mask=ids < V, other=0)
    if FLOOR > 0:
        values = values.to(tl.int64)
    group_sum = tl.sum(values, 1)
    tl.store(parts + row * GROUPS + g, group_sum, mask=g < GROUPS)


@triton.jit
def group_bounds(
    parts,
    sums,
    bounds,
    V,
    GROUPS,
    FREE,
    S: tl.constexpr,
    FLOOR: tl.constexpr,
    WEIGHTED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Computes cumulative masses and frequencies at the groups' borders: sums, bounds (n, GROUPS + 1) int64.

    BLOCK is at least GROUPS. WEIGHTED: by weights, with FREE = 2^24 - GROUPS.
    """
    row, g = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    after = tl.cumsum(tl.load(parts + row * GROUPS + g, mask=g < GROUPS, other=0).to(tl.int64), 0)
    total = tl.max(after, 0)
    at = row * (GROUPS + 1) + 1 + g
    tl.store(sums + at, after, mask=g < GROUPS)
    if WEIGHTED:
        upper = _table(after + (g + 1) * S, total + tl.zeros((BLOCK,), tl.int64) + GROUPS * S, FREE, g + 1)
    elif FLOOR > 0:
        upper = _table(after, total + tl.zeros((BLOCK,), tl.int64), FREE, tl.minimum((g + 1) * S, V))
    else:
        upper = after * FREE // total + tl.minimum((g + 1) * S, V)
    tl.store(bounds + at, upper, mask=g < GROUPS)
    tl.store(sums + at - 1, tl.zeros((BLOCK,), tl.int64), mask=g == 0)
    tl.store(bounds + at - 1, tl.zeros((BLOCK,), tl.int64), mask=g == 0)


@triton.jit
def symbol_bounds(
    masses,
    sums,
    bounds,
    groups,
    out,
    V,
    GROUPS,
    FREE,
    S: tl.constexpr,
    FLOOR: tl.constexpr,
    STRETCH: tl.constexpr,
):
    """Computes cumulative frequencies at the ids of one group per row into out, (n, S + 1) int64.

    Past the last id they rise by 1. With STRETCH they begin at 0 and are stretched to 2^24; with FLOOR as well they are
    the group's table by weights, and FREE is 2^24 - S. sums and bounds come from `group_bounds`; groups: (n,) int64.
    """
    row, s = tl.program_id(0).to(tl.int64), tl.arange(0, S)
    group = tl.minimum(tl.maximum(tl.load(groups + row), 0), GROUPS - 1)
    ids = group * S + s
    line = row * (GROUPS + 1)
    start, total = tl.load(sums + line + group), tl.load(sums + line + GROUPS)
    inside = tl.cumsum(tl.load(masses + row * V + ids, mask=ids < V, other=0).to(tl.int64), 0)
    after = start + inside
    if FLOOR > 0 and STRETCH:
        weights = inside + s + 1
        upper, first = _table(weights, tl.max(weights, 0), FREE, s + 1), start * 0
    elif FLOOR > 0:
        upper, first = _table(after, total, FREE, ids + 1), _table(start, total, FREE, group * S)
    else:
        upper = after * FREE // total + ids + 1
        first = start * FREE // total + group * S
        if STRETCH:
            begin = tl.load(bounds + line + group)
            upper, first = upper - begin, first - begin
            width = tl.max(upper, 0)
            upper, first = (upper << 24) // width, (first << 24) // width
    out += row * (S + 1)
    tl.store(out + 1 + s, upper)
    tl.store(out + s, tl.zeros((S,), tl.int64) + first, mask=s == 0)


@triton.jit
def sums_around(masses, tokens, out, V, S: tl.constexpr, RANKS: tl.constexpr, BLOCK: tl.constexpr):
    """Sums the masses around known tokens into out, (n, 6) int64.

    The columns: masses before the token's group, before the token, before the next token, before the next group, all
    masses; and with RANKS how many ids have a larger mass, or an equal one and a lower id, else 0. tokens: (n,) int64;
    ids outside the vocabulary are read as the nearest one inside.
    """
    row, v = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    token = tl.minimum(tl.maximum(tl.load(tokens + row), 0), V - 1)
    first = token // S * S
    masses += row * V
    token_mass = tl.load(masses + token)
    # Each lane adds up at most 300,000 / BLOCK masses of at most 2^20, far below 2^63.
    left = tl.zeros((BLOCK,), tl.int64)
    middle = tl.zeros((BLOCK,), tl.int64)
    inside = tl.zeros((BLOCK,), tl.int64)
    whole = tl.zeros((BLOCK,), tl.int64)
    rank = tl.zeros((BLOCK,), tl.int32)
    for at in range(0, V, BLOCK):
        ids = at + v
        m = tl.load(masses + ids, mask=ids < V, other=0)
        whole += m
        left += tl.where(ids < first, m, 0)
        middle += tl.where(ids < token, m, 0)
        inside += tl.where(ids < first + S, m, 0)
        if RANKS:
            ahead = (m > token_mass) | ((m == token_mass) & (ids < token))
            rank += tl.where(ids < V, ahead.to(tl.int32), 0)
    out += row * 6
    before = tl.sum(middle, 0)
    tl.store(out, tl.sum(left, 0))
    tl.store(out + 1, before)
    tl.store(out + 2, before + token_mass)
    tl.store(out + 3, tl.sum(inside, 0))
    tl.store(out + 4, tl.sum(whole, 0))
    tl.store(out + 5, tl.sum(rank, 0).to(tl.int64))
