"""Frequencies of masses in memory, by the compiled kernels; must not know models or the coder."""

from __future__ import annotations

import numpy as np

from ..frequencies import TOTAL_BITS, Frequencies
from .intervals import IntervalSource, SumSink, Tables
from .kernels import Library


class CpuFrequencies(Frequencies):
    """Frequencies by compiled kernels; methods are documented in `Frequencies`. A tensor in memory is taken as well.

    Args:
        library: the kernels of an instruction set.
        vocab_size, total_bits, floor_bits: as for `Frequencies`.
    """

    def __init__(self, library: Library, vocab_size: int, total_bits: int = TOTAL_BITS, floor_bits: int = 0) -> None:
        super().__init__(vocab_size, total_bits, floor_bits)
        self._library = library
        self._units = self._total - vocab_size

    def host(self, array: np.ndarray) -> np.ndarray:
        return np.asarray(array)

    def borders(self, masses: np.ndarray, *, is_weighted: bool) -> tuple[np.ndarray, np.ndarray]:
        return self._library.group_bounds(self._checked(masses), self.group_size, 0 if is_weighted else self._units)

    def symbol_bounds(self, masses: np.ndarray, sums: np.ndarray, bounds: np.ndarray, groups: np.ndarray) -> np.ndarray:
        units = 0 if self.floor_bits else self._units
        return self._library.symbol_bounds(
            self._checked(masses), sums, groups, group_size=self.group_size, units=units, stretch=True
        )

    def inner_bounds(self, masses: np.ndarray, sums: np.ndarray, groups: np.ndarray) -> np.ndarray:
        return self._library.symbol_bounds(
            self._checked(masses), sums, groups, group_size=self.group_size, units=self._units, stretch=False
        )

    def sums(self, masses: np.ndarray, tokens: np.ndarray, ranks: bool = False) -> np.ndarray:
        return self._library.sums_around(self._checked(masses), tokens, self.group_size)  # ranks included

    def likeliest(self, masses: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        masses = self._checked(masses)
        ids = np.arange(masses.shape[1], dtype=np.int64)
        keys = (masses.astype(np.int64) << 32) - ids  # all different; of equal masses the lower id has the larger one
        if count < masses.shape[1]:
            ids = np.argpartition(keys, masses.shape[1] - count, axis=1)[:, masses.shape[1] - count :]
            keys = np.take_along_axis(keys, ids, 1)
        keys = -np.sort(-keys, axis=1)
        largest = -(-keys >> 32)
        return (largest << 32) - keys, largest

    def compiled_sums(self, tokens: np.ndarray) -> SumSink:
        return SumSink(self._library, self.vocab_size, self.group_size, tokens)

    def compiled_source(self, rows: int, decode: int, range_coder: int) -> IntervalSource:
        tables = Tables(self.vocab_size, self.group_size, self.num_groups, 0 if self.floor_bits else self._units)
        return IntervalSource(self._library, tables, rows, decode, range_coder)

    def _checked(self, masses: np.ndarray) -> np.ndarray:
        """Returns masses as the kernels read them.

        Raises:
            ValueError: they are not (n, V) int32.
        """
        masses = np.asarray(masses)
        if masses.ndim != 2 or masses.shape[1] != self.vocab_size or masses.dtype != np.int32:
            raise ValueError(f"masses of shape {masses.shape} and type {masses.dtype} for {self.vocab_size} tokens")
        return masses
