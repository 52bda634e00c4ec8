"""The range coder of the mixer's compiled library (native/coder.cpp). Must not know what is coded.

It takes constriction's place where there is none, with the same bits (docs/numerics.md section 9). Arrays are checked
here: the library checks nothing.
"""

from __future__ import annotations

import ctypes
import functools
from typing import Any

import numpy as np

from ..errors import CorruptError
from ..system import libraries
from .library import LEVELS, Coder, load

_STATE_BITS = 64
_WORD_BITS = 32
_WORD_MAX = (1 << _WORD_BITS) - 1
_FULL = (1 << _STATE_BITS) - 1
_FITS_NO_TEXT = "damaged: the compressed data fits no text"
_BAD_PROBABILITY = "a probability is not a multiple of 2^-16 between 0 and 1"

# Types of the library's arguments.
_P = ctypes.c_void_p
_N = ctypes.c_int64


class _Encoder(ctypes.Structure):
    """`struct Encoder` of native/coder.cpp."""

    _fields_ = [("lower", ctypes.c_uint64), ("range", ctypes.c_uint64), ("word", _P), ("words", _N)]


class _Functions:
    """The functions of native/coder.cpp."""

    def __init__(self, handle: ctypes.CDLL) -> None:
        def function(name: str, *arguments: type, result: type | None = ctypes.c_int) -> Any:
            symbol = getattr(handle, f"llmzip_coder_{name}")
            symbol.argtypes, symbol.restype = (_P, *arguments), result
            return symbol

        self.encode = function("encode", _N, _P, _P, result=None)
        self.encode_bits = function("encode_bits", _N, _P, _P)
        self.begin = function("begin", result=None)
        self.decode = function("decode", _N, _N, _P, _P)
        self.decode_bits = function("decode_bits", _N, _P, _P)


@functools.cache
def functions() -> _Functions:
    """Returns the coder's functions, which are the same at every level of instructions.

    Raises:
        EngineError: there is no library that can be loaded here.
    """
    handle_and_level = load(LEVELS[0])
    assert handle_and_level is not None  # every processor has the portable level
    return _Functions(handle_and_level[0])


def _pair(first: np.ndarray, first_type: type, second: np.ndarray, second_type: type) -> tuple[np.ndarray, np.ndarray]:
    """Returns two arrays of one length as the library reads them."""
    if first.ndim != 1 or first.shape != second.shape:
        raise ValueError(f"arrays of shapes {first.shape} and {second.shape}")
    return np.ascontiguousarray(first, dtype=first_type), np.ascontiguousarray(second, dtype=second_type)


class RangeEncoder:
    """Encodes; the arguments are those of `coder.Encoder`."""

    def __init__(self) -> None:
        self._functions = functions()
        self._words = np.zeros(64, dtype=np.uint32)
        self._state = _Encoder(0, _FULL, self._words.ctypes.data, 0)
        self._reference = ctypes.byref(self._state)

    def encode(self, left: np.ndarray, frequency: np.ndarray) -> None:
        """Encodes intervals that `coder.Encoder` has checked.

        Args:
            left, frequency: (n,) integers.

        Raises:
            ValueError: the arrays have different shapes.
        """
        left, frequency = _pair(left, np.int64, frequency, np.int64)
        self._reserve(len(left))
        self._functions.encode(self._reference, len(left), left.ctypes.data, frequency.ctypes.data)

    def encode_bits(self, bits: np.ndarray, probability: np.ndarray) -> None:
        """Encodes binary decisions.

        Raises:
            ValueError: a probability is not a multiple of 2^-16 between 0 and 1, or the arrays have different shapes.
        """
        bits, probability = _pair(bits, np.int32, probability, np.float32)
        self._reserve(len(bits))
        if not self._functions.encode_bits(self._reference, len(bits), bits.ctypes.data, probability.ctypes.data):
            raise ValueError(_BAD_PROBABILITY)

    def _reserve(self, more: int) -> None:
        """Makes room for the words of more symbols: at most one for each."""
        needed = self._state.words + more
        if needed > len(self._words):
            words = np.zeros(max(needed, 2 * len(self._words)), dtype=np.uint32)
            words[: self._state.words] = self._words[: self._state.words]
            self._words = words
            self._state.word = words.ctypes.data

    def position(self) -> tuple[int, int, int]:
        """Returns the number of words that are out, and lower end and size of the interval after them."""
        return self._state.words, self._state.lower, self._state.range

    def sealed(self) -> np.ndarray:
        """Returns the words, as uint32, with those that constriction would end them with."""
        num_words, lower, size = self.position()
        if size == _FULL:  # nothing was encoded: every interval is smaller
            return np.zeros(0, dtype=np.uint32)
        words = self._words[:num_words].copy()
        ending = lower + (1 << _WORD_BITS) - 1
        if ending >> _STATE_BITS:  # a carry
            lowest = num_words - 1
            while words[lowest] == _WORD_MAX:
                words[lowest] = 0
                lowest -= 1
            words[lowest] += np.uint32(1)
        last = ending >> _WORD_BITS & _WORD_MAX
        upper = lower + size >> _WORD_BITS & _WORD_MAX
        return np.append(words, np.array([last, 0] if upper == last else [last], dtype=np.uint32))


class RangeDecoder:
    """Decodes; the arguments are those of `coder.Decoder`."""

    def __init__(self, code: bytes) -> None:
        self._functions = functions()
        self._state = Coder(0, 0, code, 0, len(code))
        self._reference = ctypes.byref(self._state)
        self._functions.begin(self._reference)

    @property
    def compiled(self) -> tuple[int, int]:
        """Addresses of the function that decodes symbols and of its state, for compiled code, while this lives."""
        return libraries.address_of(self._functions.decode), ctypes.addressof(self._state)

    def decode(self, bounds: np.ndarray) -> np.ndarray:
        """Decodes one symbol per row of cumulative frequencies.

        Raises:
            CorruptError: no encoder wrote this.
            ValueError: the array has another shape.
        """
        if bounds.ndim != 2 or bounds.shape[1] < 2:
            raise ValueError(f"bounds of shape {bounds.shape}")
        bounds = np.ascontiguousarray(bounds, dtype=np.int64)
        symbols = np.empty(len(bounds), dtype=np.int32)
        arrays = (bounds.ctypes.data, symbols.ctypes.data)
        if not self._functions.decode(self._reference, len(bounds), bounds.shape[1] - 1, *arrays):
            raise CorruptError(_FITS_NO_TEXT)
        return symbols

    def decode_bits(self, probability: np.ndarray) -> np.ndarray:
        """Decodes binary decisions.

        Raises:
            CorruptError: no encoder wrote this.
            ValueError: a probability is not a multiple of 2^-16 between 0 and 1.
        """
        probability = np.ascontiguousarray(probability, dtype=np.float32).reshape(-1)
        bits = np.empty(len(probability), dtype=np.int32)
        arrays = (probability.ctypes.data, bits.ctypes.data)
        result = self._functions.decode_bits(self._reference, len(bits), *arrays)
        if result < 0:
            raise ValueError(_BAD_PROBABILITY)
        if not result:
            raise CorruptError(_FITS_NO_TEXT)
        return bits
