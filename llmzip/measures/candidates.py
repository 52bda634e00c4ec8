"""What a file would become by one method, and by those that need no model; must not know which one is chosen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from ..codec import methods
from ..codec.levels import PIECE_BYTES
from ..format.headers import METHODS
from .budget import now
from .extrapolation import Range, growth
from .places import Places

FRAME_BYTES = 18
"""About what a frame takes besides its payload."""

MIN_TIME_SPREAD = 0.15
"""Half of the range of a time at least, as a part of it."""

_PLAIN_BYTES = 1 << 20
"""Text that LZMA and Zstandard are tried on: 1 MiB."""

_ADAPTIVE_BYTES = 1 << 16
"""Text that the mixer without a model is tried on: 64 KiB."""

_PLAIN_SIZE_SPREAD = 0.1
_ADAPTIVE_SIZE_SPREAD = 0.1
"""Half of the range of a size from a part of the text, as a part of it."""


class Candidate(NamedTuple):
    """What one method would give for all text of a file; its times are for that text too.

    Attributes:
        name: of the method.
        size_bytes: of the frames, without the archive's header.
        encode_seconds, decode_seconds: the loading apart.
        sampled_bytes: that were coded and decoded.
        pieces: how many places they come from.
    """

    name: str
    size_bytes: Range
    encode_seconds: Range
    decode_seconds: Range
    sampled_bytes: int
    pieces: int


def plain(places: Places) -> Candidate:
    """Estimates LZMA or Zstandard; what is beyond the sample may be repeated, and is not seen."""
    data = places.run_of(_PLAIN_BYTES)
    begun = now()
    method, payload = methods.compress_plain(data)
    middle = now()
    methods.decompress_plain(method, payload, len(data))
    end = now()
    passes = 1 if places.size <= PIECE_BYTES else 2  # over all of it, and piece by piece
    factor = places.text_bytes / len(data)
    return Candidate(
        METHODS[method],
        Range.exactly(len(payload) * factor).spread(0.0 if factor == 1 else _PLAIN_SIZE_SPREAD),
        Range.exactly(passes * (middle - begun) * factor),
        Range.exactly((end - middle) * factor).spread(MIN_TIME_SPREAD),
        len(data),
        1,
    )


def adaptive(places: Places, seconds_per_byte: float) -> Candidate:
    """Estimates the mixer without a model.

    Args:
        seconds_per_byte: that encoding takes.
    """
    from ..mixing.mixer import decode_bytes, encode_bytes

    data = places.run_of(_ADAPTIVE_BYTES)
    rates, decode_seconds = [], 0.0
    for part in (len(data) // 4, len(data) // 2, len(data)):
        payload, bits = encode_bytes(data[:part])
        rates.append(bits / part)
        if not decode_seconds:  # of the shortest: it takes long
            begun = now()
            decode_bytes(payload, part)
            decode_seconds = (now() - begun) / part
    return Candidate(
        "adaptive",
        bytes_in_frames(places.text_bytes, rates, len(data)).spread(_ADAPTIVE_SIZE_SPREAD),
        Range.exactly(seconds_per_byte * places.text_bytes),
        Range.exactly(decode_seconds * places.text_bytes).spread(MIN_TIME_SPREAD),
        len(data),
        1,
    )


def bytes_in_frames(text_bytes: int, rates: Sequence[float], sampled_bytes: int) -> Range:
    """Estimates the bytes of all frames of a text, each of which learns from its beginning.

    Args:
        rates: bits per byte of a fourth of a sample, of half of it, and of all of it.
        sampled_bytes: of all of it.
    """
    full, rest = divmod(text_bytes, PIECE_BYTES)
    total = Range.exactly(0.0)
    for size, count in ((PIECE_BYTES, full), (rest, int(rest > 0))):
        if count:
            bits = growth(rates, max(-4.0, math.log2(size / sampled_bytes))).scaled(count * size * rates[-1])
            total = Range(*(one + bit / 8 for one, bit in zip(total, bits, strict=True)))
    return total
