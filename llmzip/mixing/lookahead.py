"""Guesses of the tokens that come next, by the compiled library (native/lookahead.cpp); must not know models or texts.

A model reads several tokens in little more time than one. So a decoder of a few rows lets it read tokens that it only
guesses, and keeps what was guessed rightly: the text is the same, after fewer passes.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..system import libraries
from .followers import Followers
from .library import LEVELS, load

MAX_GUESSES = 16
"""Guesses at one place."""

# As in native/lookahead.cpp.
_ORDERS = 6
_SOURCES = _ORDERS + 2
_STATES = 16
_COMPANY = 3
_RECENT = 10

_MIN_TABLE_BITS = 10
_MAX_TABLE_BITS = 19

_LEVEL_CHANCE = 0.85
"""What a chance in a corpus is worth in another text, about."""

_CASES_BEFORE = 20
"""Cases that a chance counts as having seen at the beginning."""

# Types of the library's arguments.
_P = ctypes.c_void_p
_N = ctypes.c_int64


class _Lookahead(ctypes.Structure):
    """`struct Lookahead` of native/lookahead.cpp."""

    _fields_ = [
        ("entry", _P), ("last_entry", _N), ("rows", _N), ("recent", _P), ("known", _P), ("by_source", _P),
        ("by_company", _P), ("after_one", _P), ("first", _P), ("before", _P), ("after_two", _P),
    ]  # fmt: skip


class Functions(NamedTuple):
    """The functions of native/lookahead.cpp, each with `Lookahead.address` as its first argument but for `worth`."""

    learn: Any
    guess: Any
    worth: Any


@functools.cache
def functions() -> Functions:
    """Returns the functions, which run without Python's global lock.

    Raises:
        EngineError: there is no library that can be loaded here.
    """
    handle_and_level = load(LEVELS[0])
    assert handle_and_level is not None  # every processor has the portable level
    found = Functions(*(getattr(handle_and_level[0], f"llmzip_lookahead_{name}") for name in Functions._fields))
    found.learn.argtypes, found.learn.restype = (_P, _N, _N), None
    found.guess.argtypes, found.guess.restype = (_P, _N, _N, _P, _P), _N
    found.worth.argtypes, found.worth.restype = (_N, _P, _P, ctypes.c_float), _N
    return found


class Lookahead:
    """Learns the tokens of a frame's rows one after the other, and guesses the next ones. For one thread at a time.

    Args:
        vocab_size: V.
        num_tokens: number of tokens of the frame, about.
        num_rows: R.
        followers: what is known of the vocabulary, if anything.

    Attributes:
        address: of the C++ structure, for compiled callers; valid as long as this object.

    Raises:
        EngineError: the mixer's library cannot be loaded here.
    """

    def __init__(self, vocab_size: int, num_tokens: int, num_rows: int, followers: Followers | None = None) -> None:
        self._functions, self._vocab_size, self._num_rows = functions(), vocab_size, num_rows
        bits = min(max((8 * num_tokens).bit_length(), _MIN_TABLE_BITS), _MAX_TABLE_BITS)
        arrays = [
            np.zeros(1 << bits, dtype=np.uint64),
            np.zeros((num_rows, _RECENT), dtype=np.int32),
            np.zeros(num_rows, dtype=np.int32),
            *(_chances()[part].copy() for part in (0, 1)),
        ]
        self._alive = (arrays, followers)
        entry, *others = (array.ctypes.data for array in arrays)
        known = (None,) * 4 if followers is None else tuple(array.ctypes.data for array in followers)
        self._lookahead = _Lookahead(entry, (1 << bits) - 1, num_rows, *others, *known)
        self.address = ctypes.addressof(self._lookahead)

    def compiled(self) -> dict[str, int]:
        """Returns what compiled code needs to guess without Python, as long as this object lives.

        Returns:
            addresses of a `context` and of the functions `learn`, `guess` and `worth`.
        """
        names = Functions._fields
        return {
            "context": self.address,
            **{name: libraries.address_of(getattr(self._functions, name)) for name in names},
        }

    def learn(self, row: int, ids: np.ndarray | Sequence[int]) -> None:
        """Learns the next tokens of a row.

        Raises:
            IndexError: there is no such row or token.
        """
        if not 0 <= row < self._num_rows or (len(ids) and not 0 <= min(ids) <= max(ids) < self._vocab_size):
            raise IndexError("no such row or token")
        for token in ids:
            self._functions.learn(self.address, row, int(token))

    def guess(self, row: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Guesses the next tokens of a row.

        Args:
            row: 0 to R - 1.
            count: how many guesses are wanted; there may be fewer, and there are at most MAX_GUESSES.

        Returns:
            (n,) int64 token ids, and (n,) float32: the chance of each to be right if those before it are.

        Raises:
            IndexError: there is no such row.
        """
        if not 0 <= row < self._num_rows:
            raise IndexError("no such row")
        ids, chance = np.empty(MAX_GUESSES, dtype=np.int64), np.empty(MAX_GUESSES, dtype=np.float32)
        guesses = self._functions.guess(self.address, row, count, ids.ctypes.data, chance.ctypes.data)
        return ids[:guesses], chance[:guesses]


def worth_reading(chance: np.ndarray, cost: np.ndarray, rate: float) -> int:
    """Returns how many guesses a pass should read for the most tokens in the whole time.

    Args:
        chance: (n,) float32, from `Lookahead.guess`.
        cost: (n + 1,) float32 or more: the time of passes that read 1, 2 ... tokens of a row, in any unit.
        rate: tokens per unit of time so far.

    Raises:
        ValueError: there are fewer costs.
    """
    chance, cost = np.ascontiguousarray(chance, np.float32), np.ascontiguousarray(cost, np.float32)
    if len(cost) <= len(chance):
        raise ValueError(f"{len(cost)} costs of up to {len(chance)} guesses")
    return int(functions().worth(len(chance), chance.ctypes.data, cost.ctypes.data, rate))


@functools.cache
def _chances() -> tuple[np.ndarray, np.ndarray]:
    """Returns the chances to begin with, by source and state, and by company as well: value and number of cases.

    Longer contexts are right more often, and so are entries that were right before; one that was wrong is right less
    often. These are cautious: a frame that is not like its beginning should lose nothing.
    """
    order = np.minimum(np.arange(_ORDERS), 4)[:, None]
    state = np.arange(_STATES)
    was_wrong = np.where(state < _STATES // 2, 1.0, 0.6)
    value = np.empty((_SOURCES, _STATES))
    value[:_ORDERS] = np.minimum((0.15 + 0.1 * order + 0.04 * (state % 8)) * was_wrong, 0.9)
    value[_ORDERS:] = (state + 0.5) / _STATES * _LEVEL_CHANCE
    chance = np.dtype([("value", np.float32), ("count", np.int32)])
    by_source = np.zeros((_SOURCES, _STATES), dtype=chance)
    by_source["value"], by_source["count"] = value, _CASES_BEFORE
    by_company = np.zeros((_SOURCES, _STATES, _COMPANY), dtype=chance)
    by_company["value"] = value[:, :, None]
    return by_source, by_company
