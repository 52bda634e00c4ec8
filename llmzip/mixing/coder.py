"""The range coder: integer intervals to bytes and back. Must not know models, tokens or files.

constriction codes, and nothing else imports it. Where there is none (it has no wheel for Linux on ARM), the coder that
is compiled with the mixer takes its place, with the same bits: tests compare the two. A table holds frequencies >= 1
with sum 2^24.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from ..errors import CorruptError, EngineError
from . import rangecoder

TOTAL_BITS = 24
TOTAL = 1 << TOTAL_BITS
CODERS = ("constriction", "compiled")
_WORD_BYTES = 4
_STATE_BITS = 64

_wanted = ""


def use(name: str = "") -> None:
    """Chooses what codes from now on in this process, for comparisons; the bits are the same.

    Args:
        name: one of CODERS; "" for constriction if it is installed, as without a call.

    Raises:
        EngineError: the coder is not available here.
        ValueError: there is no such coder.
    """
    global _wanted  # noqa: PLW0603
    if name not in ("", *CODERS):
        raise ValueError(f"no coder {name!r}: {', '.join(CODERS)}")
    _pair(name)
    _wanted = name


@functools.cache
def _pair(name: str) -> tuple[type[Any], type[Any]]:
    """Returns encoder and decoder of a name, or of the first coder that is available.

    Raises:
        EngineError: there is none.
    """
    if name != "compiled":
        try:
            import constriction  # noqa: F401
        except ImportError:
            if name:
                raise EngineError("constriction is not installed") from None
        else:
            return _ConstrictionEncoder, _ConstrictionDecoder
    rangecoder.functions()
    return rangecoder.RangeEncoder, rangecoder.RangeDecoder


class Encoder:
    """Encodes intervals, first in first out.

    Raises:
        EngineError: no coder is available here.
    """

    def __init__(self) -> None:
        self._encoder = _pair(_wanted)[0]()

    def encode(self, left: np.ndarray, frequency: np.ndarray) -> None:
        """Encodes intervals [left, left + frequency) of 2^24, in order.

        Args:
            left: (n,) int64, at least 0.
            frequency: (n,) int64, 1 to 2^24 - 2; left + frequency <= 2^24.

        Raises:
            ValueError: an interval is outside these bounds.
        """
        if len(left) and (frequency.min() < 1 or frequency.max() > TOTAL - 2):
            raise ValueError("an interval is empty or fills the whole range")
        if len(left) and (left.min() < 0 or (left > TOTAL - frequency).any()):
            raise ValueError("an interval is not within the range")
        self._encoder.encode(left, frequency)

    def encode_bits(self, bits: np.ndarray, probability: np.ndarray) -> None:
        """Encodes binary decisions, in order; docs/numerics.md section 9 has their intervals.

        Args:
            bits: (n,) int32, 0 or 1.
            probability: (n,) float32: the probability of a one, k * 2^-16 with an integer k, 1 <= k < 2^16.
        """
        self._encoder.encode_bits(bits, probability)

    def finish(self) -> bytes:
        """Returns the shortest bytes that, followed by zero bytes, decode to what was encoded."""
        words = self._encoder.sealed().astype(">u4").tobytes()
        position, lower, size = self._encoder.position()
        return _shortest(words, position * _WORD_BYTES, lower, size)


def _shortest(code: bytes, position: int, lower: int, size: int) -> bytes:
    """Cuts a sealed code down, using the coder's last interval.

    The words before `position` are settled, up to a carry that the sealed code shows; what follows may be any 64-bit
    number in [lower, lower + size), modulo 2^64. On the sealed code's side of the wrap, the number with the most
    trailing zero bytes is taken.
    """
    head, tail = code[:position], code[position:]
    value = int.from_bytes(tail.ljust(_STATE_BITS // 8, b"\0"), "big")
    low, high = lower, lower + size
    if value < lower:  # the sealed code carried into the head
        low, high = 0, high - (1 << _STATE_BITS)
    high = min(high, 1 << _STATE_BITS)
    if not low <= value < high:
        return code  # not a state that can be cut down; the sealed code is always right
    for length in range(_STATE_BITS // 8 + 1):
        unit = 1 << _STATE_BITS - 8 * length
        candidate = -(-low // unit) * unit
        if candidate < high:
            tail = (candidate >> _STATE_BITS - 8 * length).to_bytes(length, "big") if length else b""
            break
    return (head + tail).rstrip(b"\0")


class Decoder:
    """Decodes symbols, given the tables they were encoded with.

    Args:
        code: from `Encoder.finish`, or anything.

    Raises:
        EngineError: no coder is available here.
    """

    def __init__(self, code: bytes) -> None:
        self._decoder = _pair(_wanted)[1](code)

    def decode_bits(self, probability: np.ndarray) -> np.ndarray:
        """Decodes binary decisions.

        Args:
            probability: (n,) float32, as for `Encoder.encode_bits`.

        Returns:
            (n,) int32, 0 or 1.

        Raises:
            CorruptError: no encoder wrote the code.
        """
        bits: np.ndarray = self._decoder.decode_bits(probability)
        return bits

    def decode(self, bounds: np.ndarray) -> np.ndarray:
        """Decodes one symbol per row.

        Args:
            bounds: (n, K + 1) int64 cumulative frequencies, each row rising strictly from 0 to 2^24.

        Returns:
            (n,) int32 symbols, 0 <= symbol < K.

        Raises:
            CorruptError: no encoder wrote the code.
        """
        symbols: np.ndarray = self._decoder.decode(bounds)
        return symbols


# `Categorical` with `perfect=False` gives each entry one of the 2^24 units and shares out the rest in proportion, so
# frequencies less one, as float32, come back as exactly these frequencies (tested against golden words and the compiled
# coder; docs/numerics.md section 9). Without `perfect=False` constriction prints a warning to standard output, where
# the archive goes. Binary decisions go through `Bernoulli`, the fastest for single calls; its rounding is stated there
# too, and tested for all 65,535 probabilities.


class _ConstrictionEncoder:
    """Encodes with constriction; the arguments are those of `Encoder`."""

    def __init__(self) -> None:
        import constriction

        self._encoder = constriction.stream.queue.RangeEncoder()
        self._family = constriction.stream.model.Categorical(perfect=False)
        self._bits_family = constriction.stream.model.Bernoulli(perfect=False)

    def encode(self, left: np.ndarray, frequency: np.ndarray) -> None:
        """Encodes intervals that `Encoder` has checked.

        Each becomes a table of three entries around the interval, whatever the size of the decoder's table: only the
        interval counts. At the borders, where one side is empty, the other side is cut in two.
        """
        rest = TOTAL - left - frequency
        symbol = np.where(left == 0, 0, np.where(rest == 0, 2, 1)).astype(np.int32)
        first = np.where(left == 0, frequency, np.where(rest == 0, 1, left))
        last = np.where(rest == 0, frequency, np.where(left == 0, rest - 1, rest))
        table = np.stack([first, TOTAL - first - last, last], axis=1)
        self._encoder.encode(symbol, self._family, (table - 1).astype(np.float32, order="C"))

    def encode_bits(self, bits: np.ndarray, probability: np.ndarray) -> None:
        self._encoder.encode(bits, self._bits_family, probability)

    def position(self) -> tuple[int, int, int]:
        """Returns the number of words that are out, and lower end and size of the interval after them."""
        words, (lower, size) = self._encoder.pos()
        return words, lower, size

    def sealed(self) -> np.ndarray:
        """Returns the words, as uint32, with those that end them."""
        words: np.ndarray = self._encoder.get_compressed()
        return words


class _ConstrictionDecoder:
    """Decodes with constriction; the arguments are those of `Decoder`."""

    def __init__(self, code: bytes) -> None:
        import constriction

        padded = code.ljust(-(-len(code) // _WORD_BYTES) * _WORD_BYTES, b"\0")
        self._decoder = constriction.stream.queue.RangeDecoder(np.frombuffer(padded, dtype=">u4").astype(np.uint32))
        self._family = constriction.stream.model.Categorical(perfect=False)
        self._bits_family = constriction.stream.model.Bernoulli(perfect=False)

    def decode_bits(self, probability: np.ndarray) -> np.ndarray:
        return self._decode(self._bits_family, probability)

    def decode(self, bounds: np.ndarray) -> np.ndarray:
        # constriction reads tables as C-contiguous, whatever their strides say.
        return self._decode(self._family, (np.diff(bounds, axis=1) - 1).astype(np.float32, order="C"))

    def _decode(self, family: object, parameters: np.ndarray) -> np.ndarray:
        try:
            symbols: np.ndarray = self._decoder.decode(family, parameters)
        except AssertionError as error:  # constriction's answer to an impossible state
            raise CorruptError(f"damaged: the compressed data fits no text ({error})") from None
        return symbols
