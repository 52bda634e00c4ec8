"""Integer intervals to bytes and back, by a range coder; the only module that imports constriction.

Where constriction is not to be had (it has no wheel for Linux on ARM), the coder that is compiled with the mixer takes
its place: the same bits, by tests that compare the two. It must not know models, tokens or files. A table holds
frequencies >= 1 with sum 2^24.
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
        name: one of CODERS; "" for the first of them that is here, which is what is used without a call.

    Raises:
        EngineError: it is not here.
        ValueError: there is no such coder.
    """
    global _wanted  # noqa: PLW0603
    if name not in ("", *CODERS):
        raise ValueError(f"no coder {name!r}: {', '.join(CODERS)}")
    _pair(name)
    _wanted = name


@functools.cache
def _pair(name: str) -> tuple[type[Any], type[Any]]:
    """Encoder and decoder of that name, or of the first that is here."""
    if name != "compiled":
        try:
            import constriction  # noqa: F401
        except ImportError:
            if name:
                raise EngineError("constriction is not installed") from None
        else:
            return _ConstrictionEncoder, _ConstrictionDecoder
    if rangecoder.built():
        return rangecoder.RangeEncoder, rangecoder.RangeDecoder
    raise EngineError(
        "no coder: constriction is not installed (there is none for Linux on ARM), and llmzip's own was not built: "
        "install a C++ compiler, such as g++, then llmzip again"
    )


class Encoder:
    """Codes intervals, first in first out.

    Raises:
        EngineError: there is no coder here.
    """

    def __init__(self) -> None:
        self._encoder = _pair(_wanted)[0]()

    def encode(self, left: np.ndarray, frequency: np.ndarray) -> None:
        """Codes intervals [left, left + frequency) of 2^24, in order.

        Args:
            left, frequency: (n,) int64; left >= 0, frequency >= 1, left + frequency <= 2^24, frequency <= 2^24 - 2.

        Raises:
            ValueError: an interval is none of these.
        """
        if len(left) and (frequency.min() < 1 or frequency.max() > TOTAL - 2):
            raise ValueError("an interval is empty or fills the whole range")
        if len(left) and (left.min() < 0 or (left > TOTAL - frequency).any()):
            raise ValueError("an interval is not within the range")
        self._encoder.encode(left, frequency)

    def encode_bits(self, bits: np.ndarray, probability: np.ndarray) -> None:
        """Codes binary decisions, in order; their intervals are those of docs/numerics.md section 9.

        Args:
            bits: (n,) int32, 0 or 1.
            probability: (n,) float32: of a one, k * 2^-16 with an integer k, 1 <= k < 2^16.
        """
        self._encoder.encode_bits(bits, probability)

    def finish(self) -> bytes:
        """The shortest bytes that, followed by zero bytes, decode to what was encoded; words big-endian."""
        words = self._encoder.sealed().astype(">u4").tobytes()
        position, lower, size = self._encoder.position()
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
        return code  # not the state that this trick knows; the seal is always right
    for length in range(_STATE_BITS // 8 + 1):
        unit = 1 << _STATE_BITS - 8 * length
        candidate = -(-low // unit) * unit
        if candidate < high:
            tail = (candidate >> _STATE_BITS - 8 * length).to_bytes(length, "big") if length else b""
            break
    return (head + tail).rstrip(b"\0")


class Decoder:
    """Decodes symbols, given the tables they were coded with.

    Args:
        code: from `Encoder.finish`, or anything.

    Raises:
        EngineError: there is no coder here.
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
            CorruptError: the code is no output of the encoder.
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
            CorruptError: the code is no output of the encoder.
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
        """Encodes intervals that `Encoder` has looked at.

        Each becomes a table of three entries around the interval, whatever the size of the decoder's table: the coder
        only looks at the interval. At the borders, where one side is empty, the other side is cut in two.
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
        """How many words are out, and lower and range of the interval after them."""
        words, (lower, size) = self._encoder.pos()
        return words, lower, size

    def sealed(self) -> np.ndarray:
        """The words, as uint32, with those that end them."""
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
        # constriction takes tables for C-contiguous, whatever their strides say.
        return self._decode(self._family, (np.diff(bounds, axis=1) - 1).astype(np.float32, order="C"))

    def _decode(self, family: object, parameters: np.ndarray) -> np.ndarray:
        try:
            symbols: np.ndarray = self._decoder.decode(family, parameters)
        except AssertionError as error:  # what constriction raises for an impossible state
            raise CorruptError(f"damaged: the compressed data fits no text ({error})") from None
        return symbols
