"""Constants and tables of the mixer, computed from integers and `decimal` only. Must not know tokens or rows.

`decimal` is imported where a file with a table is missing (numerics/stored.py): small texts should not wait for it.

Logits are in units of 1/256 nat, probabilities in units of 2^-16 unless said otherwise (docs/numerics.md section 10).
A test asserts the SHA-256 of each table.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..numerics.stored import stored

if TYPE_CHECKING:
    from decimal import Decimal

MAX_LOGIT = 2815
"""Largest magnitude of a logit: 11 nats, where a probability is 1.1 units of 2^-16."""

STRETCH_BITS = 12
"""The logit table is indexed by probabilities of this many bits."""

_MAX_COUNTS = (40, 20, 12, 8, 6, 5)
"""Highest count of the more frequent bit, by the count of the other one."""

_DISCOUNT_ABOVE = 2
"""Count up to which a bit keeps what it has when the other one comes."""

_LN_2 = 6_931_471_805_599_453_094
"""The natural logarithm of 2 in units of 10^-19."""


def _round(value: Decimal) -> int:
    return int(value.to_integral_value())


@stored("1da117b0d12e5c6758eec684fa35826483ad874dc7757ccfeb93695ee386f7c6")
def squash_table() -> np.ndarray:
    """Returns (2 MAX_LOGIT + 1,) int32: entry z + MAX_LOGIT is 2^16 / (1 + e^(-z/256)), rounded, 1 to 2^16 - 1."""
    from decimal import Decimal, localcontext

    from ..numerics.tables import DECIMAL_CONTEXT

    with localcontext(DECIMAL_CONTEXT):
        values = [_round(65536 / (1 + (Decimal(-z) / 256).exp())) for z in range(-MAX_LOGIT, MAX_LOGIT + 1)]
    return np.clip(np.array(values, dtype=np.int32), 1, 65535)


@stored("d02a7159abcf00bd1919aa962531d0f80b9bcae6fc5b84756ff24f09d7a465c6")
def stretch_table() -> np.ndarray:
    """Returns (4096,) int32: entry i is 256 ln(q / (1 - q)) for q = (i + 1/2) / 4096, rounded, clamped to +-2047."""
    from decimal import Decimal, localcontext

    from ..numerics.tables import DECIMAL_CONTEXT

    with localcontext(DECIMAL_CONTEXT):
        values = [_round(256 * (Decimal(2 * i + 1) / (8191 - 2 * i)).ln()) for i in range(1 << STRETCH_BITS)]
    return np.clip(np.array(values, dtype=np.int32), -2047, 2047)


@stored("fe3af6409cd02b702e22eeb492a8d34e56fd8ab1e402aed4a9fccb57601bff1e")
def log_table() -> np.ndarray:
    """Returns (1024,) int32: entry i is 256 ln(1 + i / 1024), rounded."""
    from decimal import Decimal, localcontext

    from ..numerics.tables import DECIMAL_CONTEXT

    with localcontext(DECIMAL_CONTEXT):
        values = [_round(256 * (1 + Decimal(i) / 1024).ln()) for i in range(1024)]
    return np.array(values, dtype=np.int32)


@functools.cache
def octave_table() -> np.ndarray:
    """Returns (64,) int32: entry n is 256 n ln 2, rounded."""
    unit = 10**19
    return np.array([(2 * 256 * n * _LN_2 + unit) // (2 * unit) for n in range(64)], dtype=np.int32)


@functools.cache
def rate_table() -> np.ndarray:
    """Returns (1024,) int32: entry n is floor(2^16 / (n + 3/2)), the step of a probability that was updated n times."""
    return np.array([(2 << 16) // (2 * n + 3) for n in range(1024)], dtype=np.int32)


class States(NamedTuple):
    """What slots remember: bounded counts of both bits, and which came last.

    Attributes:
        successor: (2 S,) uint8: entry 2 s + y is the state after bit y.
        probability: (S,) int32: where the probability of a one starts from, in units of 2^-22.
        seen: (S,) uint8: bits remembered.
    """

    successor: np.ndarray
    probability: np.ndarray
    seen: np.ndarray


@functools.cache
def states() -> States:
    """Returns the states, numbered by count, then zeros, ones and last bit; state 0 has seen nothing."""
    pairs = {pair for less, most in enumerate(_MAX_COUNTS) for more in range(most + 1) for pair in _both(less, more)}
    # Once both bits were seen, the last one distinguishes two states; before, there is only one.
    all_states = [
        (zeros, ones, last) for zeros, ones in pairs for last in ((0, 1) if zeros and ones else (int(ones > 0),))
    ]
    all_states.sort(key=lambda state: (state[0] + state[1], *state))
    number = {state: index for index, state in enumerate(all_states)}
    successor = [number[_after(zeros, ones, bit)] for zeros, ones, _ in all_states for bit in (0, 1)]
    probability = [((5 * ones + 2) << 22) // (5 * (zeros + ones) + 4) for zeros, ones, _ in all_states]
    return States(
        np.array(successor, dtype=np.uint8),
        np.array(probability, dtype=np.int32),
        np.array([zeros + ones for zeros, ones, _ in all_states], dtype=np.uint8),
    )


@functools.cache
def seen_logits() -> np.ndarray:
    """Returns (256,) int16: entry s is 256 ln(1 + n), n the bits that state s remembers, as the walk has logarithms."""
    octave, log, seen = octave_table(), log_table(), states().seen
    values = [octave[n.bit_length() - 1] + log[(n << (11 - n.bit_length())) - 1024] for n in (int(s) + 1 for s in seen)]
    return np.pad(np.array(values, dtype=np.int16), (0, 256 - len(values)))


def _both(less: int, more: int) -> tuple[tuple[int, int], tuple[int, int]]:
    return (less, more), (more, less)


def _allowed(zeros: int, ones: int) -> bool:
    less, more = sorted((zeros, ones))
    return less < len(_MAX_COUNTS) and more <= _MAX_COUNTS[less]


def _after(zeros: int, ones: int, bit: int) -> tuple[int, int, int]:
    """Counts a bit; if the other one's count is above the limit, it loses half of what exceeds it."""
    count = [zeros, ones]
    count[bit] += 1
    other = 1 - bit
    if count[other] > _DISCOUNT_ABOVE:
        count[other] = _DISCOUNT_ABOVE + (count[other] - _DISCOUNT_ABOVE) // 2
    while not _allowed(*count):
        count[bit if count[bit] > count[other] else other] -= 1
    return count[0], count[1], bit if count[0] and count[1] else int(count[1] > 0)
