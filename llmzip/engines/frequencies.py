"""The exact conversion of integer masses to integer frequencies; must not know models or the coder.

For masses m_0 .. m_{V-1} with sum M the cumulative frequency is C_i = floor((m_0 + ... + m_{i-1}) (2^24 - V) / M) + i,
so every token has a frequency of at least 1 and their sum is 2^24 (docs/numerics.md section 8). A token is coded in two
steps: its group of S neighbouring ids, then its place in the group. Only the cumulative frequencies that a step needs
are computed.

Models with `floor_bits` k above 0, whose vocabularies are large, have masses of up to 2^(20 + k). A token's weight is
its mass plus 1, and each of the two steps has a table of its own over weights (section 8.2).

Whatever reads whole rows of masses is computed where they are, by a subclass: cpu/frequencies.py has the compiled form,
torch_frequencies.py that of torch. The few numbers that are left are numpy arrays, and computed here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from .arrays import Array
from .compiled import CompiledSource, CompiledSums

TOTAL_BITS = 24
TOTAL = 1 << TOTAL_BITS
"""Sum of the frequencies in each coding step."""

SUMS = 6
"""Columns of `Frequencies.sums`."""

SUM_BITS = 39
"""Bits of the sums that tables divide: times 2^24 they stay below 2^63."""

MAX_SUM_BITS = 47
"""Bound of the bits of all masses or weights together: 300,000 of 2^28."""


def group_size(vocab_size: int) -> int:
    """Returns S, the smallest power of two with S * S >= V; at least 4.

    Args:
        vocab_size: V, 16 to 300,000.
    """
    return 1 << ((vocab_size - 1).bit_length() + 1) // 2


class Frequencies(ABC):
    """Converts masses of a vocabulary to the tables and intervals of the two coding steps, or of a single step.

    Bounds: a mass is at most 2^20 and V at most 300,000, so sums are below 2^38.2 and products with
    2^24 below 2^63. With `floor_bits` sums are cut to 39 bits where they are longer.

    Masses are an array of the engine, (n, V) int32, 0 to 2^(20 + k), the largest of each row above 0. What is called
    an engine's array below is of the same kind; `host` turns it into a numpy array.

    Args:
        vocab_size: V, 16 to 300,000.
        total_bits: b, at most 24: the sum of the frequencies of a single step is 2^b, which is at least 2 V.
        floor_bits: k, 0 to 8, the model's: its masses are at most 2^(20 + k).
    """

    def __init__(self, vocab_size: int, total_bits: int = TOTAL_BITS, floor_bits: int = 0) -> None:
        self.vocab_size = vocab_size
        self.floor_bits = floor_bits
        self._total = 1 << total_bits
        self.group_size = group_size(vocab_size)
        self.num_groups = -(-vocab_size // self.group_size)

    # -- where the masses are

    @abstractmethod
    def host(self, array: Array) -> np.ndarray:
        """Returns the values of an engine's array."""

    @abstractmethod
    def borders(self, masses: Array, *, is_weighted: bool) -> tuple[Array, Array]:
        """Computes `group_bounds`, by weights or without."""

    @abstractmethod
    def symbol_bounds(self, masses: Array, sums: Array, bounds: Array, groups: np.ndarray) -> Array:
        """Computes cumulative frequencies within one group per row, stretched to 2^24.

        Ids past the end of the vocabulary pad the last group with frequency 1 each. The group's cumulative frequencies,
        c_0 = 0 to c_S = G, become floor(c_i 2^24 / G). With `floor_bits` the group's weights have a table of their own.

        Args:
            masses: as in `group_bounds`.
            sums, bounds: from `group_bounds`.
            groups: (n,) int64.

        Returns:
            (n, S + 1) int64, an engine's array, rising strictly from 0 to 2^24.
        """

    @abstractmethod
    def inner_bounds(self, masses: Array, sums: Array, groups: np.ndarray) -> Array:
        """Computes cumulative frequencies of a single step at the ids of one group per row; padding counts 1 each.

        Args and returns as `symbol_bounds`, but (n, S + 1) int64 from the group's own cumulative frequency on.
        """

    @abstractmethod
    def sums(self, masses: Array, tokens: np.ndarray, ranks: bool = False) -> np.ndarray:
        """Sums the masses around known tokens.

        Args:
            masses: (n, V) int32.
            tokens: (n,) int64.
            ranks: whether the caller needs the last column.

        Returns:
            (n, 6) int64: the sums of the masses before the token's group, before the token, before the next token,
            before the next group, and of all masses; and how many ids have a larger mass, or an equal one and a lower
            id.

        Raises:
            IndexError: a token is outside the vocabulary.
        """

    @abstractmethod
    def likeliest(self, masses: Array, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Finds the ids with the largest masses.

        Returns:
            ids, masses: (n, count) int64, the largest mass first; of equal ones the lower id comes first.
        """

    # -- what follows from that

    def group_bounds(self, masses: Array) -> tuple[Array, Array]:
        """Computes cumulative masses and frequencies at the borders of the groups.

        Args:
            masses: (n, V) int32.

        Returns:
            sums, bounds: (n, groups + 1) int64, an engine's arrays; bounds rise strictly from 0 to 2^24.
        """
        return self.borders(masses, is_weighted=self.floor_bits > 0)

    def mass_and_total(self, masses: Array, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the masses of known tokens, and the sums of all masses: (n,) int64 each."""
        sums = self.sums(masses, tokens)
        return sums[:, 2] - sums[:, 1], sums[:, 4]

    def bounds(self, masses: Array, tokens: np.ndarray) -> np.ndarray:
        """Computes the cumulative frequencies on both sides of known tokens, for a single step.

        Args:
            masses: (n, V) int32; tokens: (n,) int64.

        Returns:
            (n, 2) int64, 0 <= left < right <= 2^b.
        """
        sums = self.sums(masses, tokens)
        return self._cumulative(sums[:, 1:3], sums[:, 4:5], np.stack([tokens, tokens + 1], 1))

    def find(self, masses: Array, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Finds the tokens whose intervals contain given numbers, for a single step.

        Args:
            masses: (n, V) int32; targets: (n,) int64, 0 <= q < 2^b.

        Returns:
            tokens: (n,) int64; bounds: (n, 2) int64, the cumulative frequencies on both sides of them.
        """
        sums, borders = self.borders(masses, is_weighted=False)
        groups = _place(self.host(borders), targets)
        inner = self.host(self.inner_bounds(masses, sums, groups))
        places = _place(inner, targets)
        pairs = np.take_along_axis(inner, np.stack([places, places + 1], 1), 1)
        return groups * self.group_size + places, pairs

    def compiled_sums(self, tokens: np.ndarray) -> CompiledSums:
        """Returns what collects the sums around the tokens of a frame, (N,) int64, from compiled rows."""
        raise TypeError(f"no compiled code collects the sums of {len(tokens)} tokens for these frequencies")

    def compiled_source(self, rows: int, decode: int, range_coder: int) -> CompiledSource:
        """Returns what decodes tokens by these frequencies for compiled rows.

        Args:
            rows: number of rows.
            decode, range_coder: addresses of what decodes symbols, and of its state.
        """
        del decode, range_coder
        raise TypeError(f"no compiled code decodes {rows} rows by these frequencies")

    def intervals(self, masses: Array, tokens: np.ndarray) -> np.ndarray:
        """Computes the intervals of known tokens in the tables of both steps.

        Args:
            masses: (n, V) int32; tokens: (n,) int64.

        Returns:
            (n, 4) int64: left and frequency of the group, left and frequency of the token within it.
        """
        return self.intervals_of(self.sums(masses, tokens), tokens)

    def intervals_of(self, sums: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """Computes `intervals` from what `sums` returns: only four borders need a division."""
        if self.floor_bits:
            return self._weighted_intervals(sums, tokens)
        first = tokens // self.group_size * self.group_size
        past = np.maximum(first + self.group_size - self.vocab_size, 0)  # ids that pad the last group
        places = np.stack([first, tokens, tokens + 1, first + self.group_size - past], 1)
        borders = self._cumulative(sums[:, :4], sums[:, 4:5], places)
        left = borders[:, 0].copy()
        borders -= left[:, None]
        inner = (borders[:, 1:3] << TOTAL_BITS) // (borders[:, 3] + past)[:, None]
        return np.stack([left, borders[:, 3], inner[:, 0], inner[:, 1] - inner[:, 0]], 1)

    def _weighted_intervals(self, sums: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """Computes `intervals_of` by weights: those before an id are the masses before it, and 1 for each."""
        size, groups = self.group_size, tokens // self.group_size
        group, place = np.stack([groups, groups + 1], 1), (tokens - groups * size)[:, None]
        weights = sums[:, 0:4:3] + group * size
        outer = _table(weights, sums[:, 4:5] + self.num_groups * size, group, self.num_groups)
        place = np.concatenate([place, place + 1], 1)
        inner = _table(sums[:, 1:3] - sums[:, :1] + place, sums[:, 3:4] - sums[:, :1] + size, place, size)
        return np.stack([outer[:, 0], outer[:, 1] - outer[:, 0], inner[:, 0], inner[:, 1] - inner[:, 0]], 1)

    def _cumulative(self, sums: np.ndarray, total: np.ndarray, index: np.ndarray) -> np.ndarray:
        if self.floor_bits:
            sums, total = _shortened(sums, total)
        cumulative: np.ndarray = sums * (self._total - self.vocab_size) // total + index
        return cumulative


def _place(bounds: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Returns the interval of each row that contains the row's target: (n,) int64 for (n, m) rising bounds from 0."""
    places: np.ndarray = (bounds <= targets[:, None]).sum(1) - 1
    return places


def _shortened(sums: np.ndarray, total: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cuts sums, (n, m) int64, by as many bits as their total, (n, 1), has more than 39; it is below 2^47."""
    limits = np.int64(1) << np.arange(SUM_BITS, MAX_SUM_BITS, dtype=np.int64)
    shift = (total >= limits).sum(1, keepdims=True)
    return sums >> shift, total >> shift


def _table(weights: np.ndarray, total: np.ndarray, index: np.ndarray, places: int) -> np.ndarray:
    """Returns entries of a table of docs/numerics.md section 8.2.

    Args:
        weights: c_j, (n, m) int64.
        total: c_n, (n, 1) int64.
        index: j, (n, m) int64.
        places: n of the document.
    """
    weights, total = _shortened(weights, total)
    table: np.ndarray = weights * (TOTAL - places) // total + index
    return table
