"""The range coder by the compiled library of native/coder.cpp, in constriction's place; must not know what is coded.

It is built with the mixer; its bits are those of docs/numerics.md section 9. Arrays are checked here: the library looks
nowhere.
"""

from __future__ import annotations

import ctypes
import functools
from typing import Any

import numpy as np

from ..errors import CorruptError
from ..system import libraries
from .library import FOLDER, LEVELS, Coder

_STATE_BITS = 64
_WORD_BITS = 32
_WORD_MAX = (1 << _WORD_BITS) - 1
_FULL = (1 << _STATE_BITS) - 1
_NO_TEXT = "damaged: the compressed data fits no text"
_NO_PROBABILITY = "a probability is no multiple of 2^-16 between 0 and 1"
_P, _N = ctypes.c_void_p, ctypes.c_int64


class _Encoder(ctypes.Structure):
    """`struct Encoder` of native/coder.cpp."""

    _fields_ = [("lower", ctypes.c_uint64), ("range", ctypes.c_uint64), ("word", _P), ("words", _N)]


class _Functions:
    """The functions of native/coder.cpp."""

    def __init__(self, loaded: ctypes.CDLL) -> None:
        def function(name: str, *arguments: type, result: type | None = ctypes.c_int) -> Any:
            found = getattr(loaded, f"llmzip_coder_{name}")
            found.argtypes, found.restype = (_P, *arguments), result
            return found

        self.encode = function("encode", _N, _P, _P, result=None)
        self.encode_bits = function("encode_bits", _N, _P, _P)
        self.begin = function("begin", result=None)
        self.decode = function("decode", _N, _N, _P, _P)
        self.decode_bits = function("decode_bits", _N, _P, _P)


@functools.cache
def _functions() -> _Functions | None:
    """Those of the mixer's library, which any processor has; LLMZIP_KERNELS chooses the mixer's code, not this."""
    found = libraries.find(FOLDER, "_mixer", LEVELS, LEVELS[0])
    return None if found is None else _Functions(found[0])


def built() -> bool:
    """Whether the library is there."""
    return _functions() is not None


def _loaded() -> _Functions:
    found = _functions()
    if found is None:
        raise RuntimeError("the library was not built: ask built() first")
    return found


def _pair(first: np.ndarray, first_type: type, second: np.ndarray, second_type: type) -> tuple[np.ndarray, np.ndarray]:
    """Two arrays of one length, as the library reads them."""
    if first.ndim != 1 or first.shape != second.shape:
        raise ValueError(f"arrays of shapes {first.shape} and {second.shape}")
    return np.ascontiguousarray(first, dtype=first_type), np.ascontiguousarray(second, dtype=second_type)


class RangeEncoder:
    """Encodes; the arguments are those of `coder.Encoder`."""

    def __init__(self) -> None:
        self._functions = _loaded()
        self._words = np.zeros(64, dtype=np.uint32)
        self._state = _Encoder(0, _FULL, self._words.ctypes.data, 0)
        self._here = ctypes.byref(self._state)

    def encode(self, left: np.ndarray, frequency: np.ndarray) -> None:
        """Encodes intervals that `coder.Encoder` has looked at.

        Args:
            left, frequency: (n,) integers.

        Raises:
            ValueError: the arrays have different shapes.
        """
        given = _pair(left, np.int64, frequency, np.int64)
        self._reserve(len(given[0]))
        self._functions.encode(self._here, len(given[0]), given[0].ctypes.data, given[1].ctypes.data)

    def encode_bits(self, bits: np.ndarray, probability: np.ndarray) -> None:
        """Encodes binary decisions.

        Raises:
            ValueError: a probability is no multiple of 2^-16 between 0 and 1, or the arrays have different shapes.
        """
        given = _pair(bits, np.int32, probability, np.float32)
        self._reserve(len(given[0]))
        if not self._functions.encode_bits(self._here, len(given[0]), given[0].ctypes.data, given[1].ctypes.data):
            raise ValueError(_NO_PROBABILITY)

    def _reserve(self, more: int) -> None:
        """A symbol puts out one word at most."""
        needed = self._state.words + more
        if needed > len(self._words):
            words = np.zeros(max(needed, 2 * len(self._words)), dtype=np.uint32)
            words[: self._state.words] = self._words[: self._state.words]
            self._words = words
            self._state.word = words.ctypes.data

    def position(self) -> tuple[int, int, int]:
        """How many words are out, and lower and range of the interval after them."""
        return self._state.words, self._state.lower, self._state.range

    def sealed(self) -> np.ndarray:
        """The words, as uint32, with those that end them in constriction's way."""
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
        self._functions = _loaded()
        self._state = Coder(0, 0, code, 0, len(code))
        self._here = ctypes.byref(self._state)
        self._functions.begin(self._here)

    def decode(self, bounds: np.ndarray) -> np.ndarray:
        """Decodes one symbol per row of cumulative frequencies.

        Raises:
            CorruptError: no encoder wrote this.
            ValueError: the array is no table.
        """
        if bounds.ndim != 2 or bounds.shape[1] < 2:
            raise ValueError(f"bounds of shape {bounds.shape}")
        given = np.ascontiguousarray(bounds, dtype=np.int64)
        found = np.empty(len(given), dtype=np.int32)
        arrays = (given.ctypes.data, found.ctypes.data)
        if not self._functions.decode(self._here, len(given), given.shape[1] - 1, *arrays):
            raise CorruptError(_NO_TEXT)
        return found

    def decode_bits(self, probability: np.ndarray) -> np.ndarray:
        """Decodes binary decisions.

        Raises:
            CorruptError: no encoder wrote this.
            ValueError: a probability is no multiple of 2^-16 between 0 and 1.
        """
        given = np.ascontiguousarray(probability, dtype=np.float32).reshape(-1)
        found = np.empty(len(given), dtype=np.int32)
        result = self._functions.decode_bits(self._here, len(given), given.ctypes.data, found.ctypes.data)
        if result < 0:
            raise ValueError(_NO_PROBABILITY)
        if not result:
            raise CorruptError(_NO_TEXT)
        return found
