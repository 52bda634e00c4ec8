"""Integer intervals to bytes and back, over constriction's range coder; the only module that imports constriction.

It must not know models, tokens or files. A table holds frequencies >= 1 with sum 2^24. `Categorical` with
`perfect=False` gives each entry one of the 2^24 units and shares out the rest in proportion, so frequencies less one,
as float32, come back as exactly these frequencies (tested against golden words; docs/numerics.md section 9). Binary
decisions go through `Bernoulli`, the fastest for single calls; its rounding is stated there too, and tested for all
65,535 probabilities.
"""

from __future__ import annotations

import constriction
import numpy as np

from .errors import CorruptError

TOTAL_BITS = 24
TOTAL = 1 << TOTAL_BITS
_WORD_BYTES = 4
_STATE_BITS = 64


def _bernoulli() -> object:
    return constriction.stream.model.Bernoulli(perfect=False)


def _categorical() -> object:
    # Without `perfect=False` constriction prints a warning to standard output, where the archive goes.
    return constriction.stream.model.Categorical(perfect=False)


class Encoder:
    """Codes intervals, first in first out."""

    def __init__(self) -> None:
        self._encoder = constriction.stream.queue.RangeEncoder()
        self._family = _categorical()
        self._bits_family = _bernoulli()

    def encode(self, left: np.ndarray, frequency: np.ndarray) -> None:
        """Codes intervals [left, left + frequency) of 2^24, in order.

        Each becomes a table of three entries around the interval, whatever the size of the decoder's table: the coder
        only looks at the interval. At the borders, where one side is empty, the other side is cut in two.

        Args:
            left, frequency: (n,) int64; left >= 0, frequency >= 1, left + frequency <= 2^24, frequency <= 2^24 - 2.
        """
        rest = TOTAL - left - frequency
        symbol = np.where(left == 0, 0, np.where(rest == 0, 2, 1)).astype(np.int32)
        first = np.where(left == 0, frequency, np.where(rest == 0, 1, left))
        last = np.where(rest == 0, frequency, np.where(left == 0, rest - 1, rest))
        table = np.stack([first, TOTAL - first - last, last], axis=1)
        if table.size and table.min() < 1:
            raise ValueError("an interval is empty or fills the whole range")
        self._encoder.encode(symbol, self._family, (table - 1).astype(np.float32))

    def encode_bits(self, bits: np.ndarray, probability: np.ndarray) -> None:
        """Codes binary decisions, in order; their intervals are those of docs/numerics.md section 9.

        Args:
            bits: (n,) int32, 0 or 1.
            probability: (n,) float32: of a one, k * 2^-16 with an integer k, 1 <= k < 2^16.
        """
        self._encoder.encode(bits, self._bits_family, probability)

    def finish(self) -> bytes:
        """The shortest bytes that, followed by zero bytes, decode to what was encoded; words big-endian."""
        words = self._encoder.get_compressed().astype(">u4").tobytes()
        position, (lower, size) = self._encoder.pos()
        return _shortest(words, position * _WORD_BYTES, lower, size)


def _shortest(code: bytes, position: int, lower: int, size: int) -> bytes:
    """Cuts a sealed code, using the coder's last interval.

    The words before `position` are settled, up to a carry that the sealed code shows; what follows may be any 64-bit
    number in [lower, lower + size), modulo 2^64. Of the side of the wrap that the sealed code lies on, the number with
    the most trailing zero bytes is taken.
    """
    head, tail = code[:position], code[position:]
    value = int.from_bytes(tail.ljust(_STATE_BITS // 8, b"\0"), "big")
    low, high = lower, lower + size
    if value < lower:  # the sealed code carried into the head
        low, high = 0, high - (1 << _STATE_BITS)
    high = min(high, 1 << _STATE_BITS)
    if not low <= value < high:
        return code  # constriction's state is not what this trick knows; its own seal is always right
    for length in range(_STATE_BITS // 8 + 1):
        unit = 1 << _STATE_BITS - 8 * length
        candidate = -(-low // unit) * unit
        if candidate < high:
            tail = (candidate >> _STATE_BITS - 8 * length).to_bytes(length, "big") if length else b""
            break
    return (head + tail).rstrip(b"\0")


class Decoder:
    """Decodes symbols, given the tables they were coded with."""

    def __init__(self, code: bytes) -> None:
        padded = code.ljust(-(-len(code) // _WORD_BYTES) * _WORD_BYTES, b"\0")
        self._decoder = constriction.stream.queue.RangeDecoder(np.frombuffer(padded, dtype=">u4").astype(np.uint32))
        self._family = _categorical()
        self._bits_family = _bernoulli()

    def decode_bits(self, probability: np.ndarray) -> np.ndarray:
        """Decodes binary decisions.

        Args:
            probability: (n,) float32, as for `Encoder.encode_bits`.

        Returns:
            (n,) int32, 0 or 1.

        Raises:
            CorruptError: the code is no output of the encoder.
        """
        return self._decode(self._bits_family, probability)

    def decode(self, bounds: np.ndarray) -> np.ndarray:
        """Decodes one symbol per row.

        Args:
            bounds: (n, K + 1) int64 cumulative frequencies, each row rising strictly from 0 to 2^24.

        Returns:
            (n,) int32 symbols, 0 <= symbol < K.

        Raises:
            CorruptError: the code is no output of the encoder.
        """
        return self._decode(self._family, (np.diff(bounds, axis=1) - 1).astype(np.float32))

    def _decode(self, family: object, parameters: np.ndarray) -> np.ndarray:
        try:
            symbols: np.ndarray = self._decoder.decode(family, parameters)
        except AssertionError as error:  # what constriction raises for an impossible state
            raise CorruptError(f"damaged: the compressed data fits no text ({error})") from None
        return symbols
