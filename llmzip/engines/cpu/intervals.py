"""Tokens coded by tables of frequencies alone, in compiled code (native/intervals.cpp); must not know the mixer.

What reads the bits comes as an address, as lanes.py takes what codes the tokens.
"""

from __future__ import annotations

import ctypes
from typing import NamedTuple

import numpy as np

from ..compiled import TokenSink, TokenSource
from .kernels import Library, address

_P, _N = ctypes.c_void_p, ctypes.c_int64


class _Intervals(ctypes.Structure):
    """`struct Intervals` of native/intervals.cpp."""

    _fields_ = [
        *((name, _P) for name in ("group_bounds", "symbol_bounds", "decode", "range_coder")),
        *((name, _N) for name in ("vocab", "group", "groups", "units")),
        *((name, _P) for name in ("masses", "sums", "bounds", "which", "inside")),
    ]  # fmt: skip


class _Sums(ctypes.Structure):
    """`struct Sums` of native/intervals.cpp."""

    _fields_ = [("sums", _P), ("vocab", _N), ("group", _N), ("tokens", _P), ("out", _P)]


class Tables(NamedTuple):
    """Sizes of the tables of frequencies.

    Attributes:
        vocab_size, group_size, num_groups: as in `Frequencies`.
        units: the sum of all frequencies, less V; 0 for tables by weights.
    """

    vocab_size: int
    group_size: int
    num_groups: int
    units: int


class IntervalSource:
    """Decodes tokens from masses by the tables of docs/numerics.md section 8, for compiled rows.

    Args:
        library: the kernels of an instruction set.
        tables: their sizes.
        rows: number of rows.
        decode, range_coder: addresses of what decodes symbols, and of its state.

    Attributes:
        source: for `CompiledRows.decoding`, as long as this object lives.
    """

    def __init__(self, library: Library, tables: Tables, rows: int, decode: int, range_coder: int) -> None:
        vocab_size, group, groups, units = tables
        self._keep: tuple[np.ndarray, ...] = (
            np.empty((rows, vocab_size), dtype=np.int32),
            np.empty((rows, groups + 1), dtype=np.int64),
            np.empty((rows, groups + 1), dtype=np.int64),
            np.empty(rows, dtype=np.int64),
            np.empty(group + 1, dtype=np.int64),
        )
        self._intervals = _Intervals(
            library.address("group_bounds"), library.address("symbol_bounds"), decode, range_coder, vocab_size, group,
            groups, units, *map(address, self._keep),
        )  # fmt: skip
        functions = (library.address_of(f"llmzip_intervals_{name}") for name in ("take", "decode", "begin"))
        self.source = TokenSource(ctypes.addressof(self._intervals), *functions)


class SumSink:
    """Collects the sums of masses around known tokens, from which `Frequencies.intervals_of` makes intervals.

    Args:
        library: the kernels of an instruction set.
        vocab_size, group_size: as in `Frequencies`.
        tokens: (N,) int64, of the frame.

    Attributes:
        sums: (N, 6) int64, as `Frequencies.sums` gives them.
        sink: for `CompiledRows.read`, as long as this object lives.
    """

    def __init__(self, library: Library, vocab_size: int, group_size: int, tokens: np.ndarray) -> None:
        self._tokens = np.ascontiguousarray(tokens, dtype=np.int64)
        self.sums = np.empty((len(tokens), 6), dtype=np.int64)
        self._sums = _Sums(
            library.address("sums"), vocab_size, group_size, address(self._tokens), address(self.sums)
        )  # fmt: skip
        self.sink = TokenSink(ctypes.addressof(self._sums), library.address_of("llmzip_intervals_add"))
