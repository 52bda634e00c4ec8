"""Triton kernels that see whole rows: embedding, norms, quantisation, masses, value peaks; must not know models.

A program takes a few rows with all their values at once, so that each row is read once.

Parameters: n rows of C values; a program takes ROWS rows of BLOCK values, BLOCK a power of two that is at least C.
"""

import triton
import triton.language as tl

from .primitives import exp2_entry, quantise127, rms_factor


@triton.jit(do_not_specialize=["n"])
def embed(ids, weight, scale, gain, x, n, C, VOCAB, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    """Looks up embedding rows of ids, (n,) int64, times the gain, into x, (n, C) float32.

    weight: (VOCAB, C) int8; scale: (VOCAB,) float32. Ids outside the vocabulary are read as the nearest one inside, so
    that no memory outside the table is read.
    """
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    c = tl.arange(0, BLOCK)
    inside = (row < n)[:, None] & (c < C)[None]
    token = tl.load(ids + row, mask=row < n, other=0)
    token = tl.minimum(tl.maximum(token, 0), VOCAB - 1)
    values = tl.load(weight + token[:, None] * C + c[None], mask=inside, other=0).to(tl.float32)
    tl.store(x + row[:, None] * C + c[None], values * tl.load(scale + token)[:, None] * gain, mask=inside)


@triton.jit(do_not_specialize=["n"])
def norm_quantise(x, weight, q, scale, n, C, inverse, eps, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    """Computes Quantise(RMSNorm(x, weight), 127): x (n, C) float32 to q (n, C) int8 and scale (n,) float32."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    c = tl.arange(0, BLOCK)
    inside = (row < n)[:, None] & (c < C)[None]
    values = tl.load(x + row[:, None] * C + c[None], mask=inside, other=0.0)
    factor = rms_factor(values, inverse, eps)
    whole, unit = quantise127(values * factor * tl.load(weight + c, mask=c < C, other=0.0)[None])
    tl.store(q + row[:, None] * C + c[None], whole, mask=inside)
    tl.store(scale + row[:, None], unit, mask=(row < n)[:, None])


@triton.jit(do_not_specialize=["n"])
def quantise(x, q, scale, n, C, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    """Computes Quantise(x, 127): x (n, C) float32 to q (n, C) int8 and scale (n,) float32."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    c = tl.arange(0, BLOCK)
    inside = (row < n)[:, None] & (c < C)[None]
    whole, unit = quantise127(tl.load(x + row[:, None] * C + c[None], mask=inside, other=0.0))
    tl.store(q + row[:, None] * C + c[None], whole, mask=inside)
    tl.store(scale + row[:, None], unit, mask=(row < n)[:, None])


@triton.jit
def masses(steps, out, octave, VOCAB, FLOOR: tl.constexpr, BLOCK: tl.constexpr):
    """Computes E[max z + 1/2 - z] of rows of logits z in steps of the table into out, (n, VOCAB) int32.

    A program takes one row, BLOCK values at once. `out` may be the memory of `steps`: the thread that writes a value
    has read it before.
    """
    row = tl.program_id(0).to(tl.int64) * VOCAB
    v = tl.arange(0, BLOCK)
    peak = tl.full((BLOCK,), float("-inf"), tl.float32)
    for first in range(0, VOCAB, BLOCK):
        peak = tl.maximum(peak, tl.load(steps + row + first + v, mask=first + v < VOCAB, other=float("-inf")))
    top = tl.max(peak, 0) + 0.5
    for first in range(0, VOCAB, BLOCK):
        inside = first + v < VOCAB
        z = tl.load(steps + row + first + v, mask=inside, other=0.0)
        tl.store(out + row + first + v, exp2_entry(octave, top - z, FLOOR), mask=inside)


@triton.jit
def _larger(a, b):
    return tl.maximum(a, b)


@triton.jit(do_not_specialize=["T"])
def value_peaks(scales, peak, out, begin_at, T, G, BLOCK: tl.constexpr):
    """Computes running maxima of value scales since the context began; a program takes one head of one row.

    Args:
        scales: (B, T, G) float32, those of the new tokens.
        peak: (B, G) float32, the maximum before the new tokens, and after them on return. Not read where the context
            begins.
        out: (B, G, T) float32.
        begin_at: pointer to the position of the first new token, int32.
    """
    place = tl.program_id(0)
    scales += (place // G).to(tl.int64) * T * G + place % G
    out += place.to(tl.int64) * T
    last = tl.load(peak + place, mask=tl.load(begin_at) > 0, other=0.0)
    t = tl.arange(0, BLOCK)
    for first in range(0, T, BLOCK):
        inside = first + t < T
        values = tl.load(scales + (first + t) * G, mask=inside, other=0.0)
        running = tl.maximum(tl.associative_scan(values, 0, _larger), last)
        tl.store(out + first + t, running, mask=inside)
        last = tl.maximum(last, tl.max(values, 0))
    tl.store(peak + place, last)
