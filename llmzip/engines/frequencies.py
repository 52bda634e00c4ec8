"""The exact conversion of integer masses to integer frequencies; must not know models or the coder.

For masses m_0 .. m_{V-1} with sum M the cumulative frequency is C_i = floor((m_0 + ... + m_{i-1}) (2^24 - V) / M) + i,
so every token has a frequency of at least 1 and their sum is 2^24 (docs/numerics.md section 8). A token is coded in two
steps: its group of S neighbouring ids, then its place in the group. Only the cumulative frequencies that a step needs
are computed.

Models with `floor_bits` k above 0, whose vocabularies are large, have masses of up to 2^(20 + k). A token's weight is
its mass plus 1, and each of the two steps has a table of its own over weights (section 8.2).
"""

from __future__ import annotations

import torch

from .cpu import kernels

TOTAL_BITS = 24
TOTAL = 1 << TOTAL_BITS
"""Sum of the frequencies in each coding step."""

_SUM_BITS = 39
"""Bits of the sums that tables divide: times 2^24 they stay below 2^63."""

_MAX_SUM_BITS = 47
"""Bound of the bits of all masses or weights together: 300,000 of 2^28."""


def group_size(vocab_size: int) -> int:
    """Returns S, the smallest power of two with S * S >= V; at least 4.

    Args:
        vocab_size: V, 16 to 300,000.
    """
    return 1 << ((vocab_size - 1).bit_length() + 1) // 2


def _library(masses: torch.Tensor) -> kernels.Library | None:
    """Returns the compiled form of the functions below, or None if it cannot take these masses."""
    return kernels.chosen()[0] if masses.device.type == "cpu" and masses.dtype == torch.int32 else None


class Frequencies:
    """Converts masses of a vocabulary to the tables and intervals of the two coding steps, or of a single step.

    Bounds: a mass is at most 2^20 and V at most 300,000, so sums are below 2^38.2 and products with
    2^24 below 2^63. With `floor_bits` sums are cut to 39 bits where they are longer.

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
        self._padding = self.num_groups * self.group_size - vocab_size

    def group_bounds(self, masses: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Computes cumulative masses and frequencies at the borders of the groups.

        Args:
            masses: (n, V) int32, 0 to 2^(20 + k), the largest of each row > 0.

        Returns:
            sums, bounds: (n, groups + 1) int64; bounds rise strictly from 0 to 2^24.
        """
        return self._borders(masses, self.floor_bits > 0)

    def _borders(self, masses: torch.Tensor, is_weighted: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Computes `group_bounds`, by weights or without."""
        if (library := _library(masses)) is not None:
            return library.group_bounds(masses, self.group_size, 0 if is_weighted else self._total - self.vocab_size)
        sums = torch.zeros(masses.shape[0], self.num_groups + 1, dtype=torch.int64, device=masses.device)
        torch.cumsum(self._group_sums(masses), -1, dtype=torch.int64, out=sums[:, 1:])
        groups = torch.arange(self.num_groups + 1, device=masses.device)
        first = groups * self.group_size
        if is_weighted:
            weights = sums + first
            return sums, _table(weights, weights[:, -1:], groups, self.num_groups)
        return sums, self._cumulative(sums, sums[:, -1:], first.clamp_(max=self.vocab_size))

    def symbol_bounds(
        self, masses: torch.Tensor, sums: torch.Tensor, bounds: torch.Tensor, groups: torch.Tensor
    ) -> torch.Tensor:
        """Computes cumulative frequencies within one group per row, stretched to 2^24.

        Ids past the end of the vocabulary pad the last group with frequency 1 each. The group's cumulative frequencies,
        c_0 = 0 to c_S = G, become floor(c_i 2^24 / G). With `floor_bits` the group's weights have a table of their own.

        Args:
            masses: as in `group_bounds`.
            sums, bounds: from `group_bounds`.
            groups: (n,) int64.

        Returns:
            (n, S + 1) int64, rising strictly from 0 to 2^24.
        """
        if (library := _library(masses)) is not None:
            units = 0 if self.floor_bits else self._total - self.vocab_size
            return library.symbol_bounds(masses, sums, groups, self.group_size, units, stretch=True)
        if self.floor_bits:
            places = torch.arange(self.group_size + 1, device=masses.device)
            weights = self._sums_in(masses, groups) + places
            return _table(weights, weights[:, -1:], places, self.group_size)
        inner = self._inner_bounds(masses, sums, groups) - bounds.gather(1, groups[:, None])
        return torch.div(inner << TOTAL_BITS, inner[:, -1:], rounding_mode="floor")

    def _inner_bounds(self, masses: torch.Tensor, sums: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
        """Computes cumulative frequencies at the ids of one group per row, (n, S + 1) int64; padding counts 1 each."""
        if (library := _library(masses)) is not None:
            return library.symbol_bounds(
                masses, sums, groups, self.group_size, self._total - self.vocab_size, stretch=False
            )
        inner = self._sums_in(masses, groups).add_(sums.gather(1, groups[:, None]))
        place = torch.arange(self.group_size + 1, device=masses.device)
        first = groups[:, None] * self.group_size + place
        inside = first.clamp(max=self.vocab_size)
        return self._cumulative(inner, sums[:, -1:], inside).add_(first - inside)

    def _sums_in(self, masses: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
        """Sums the masses before each place of one group per row, (n, S + 1) int64; padding has mass 0."""
        rows = torch.arange(masses.shape[0], device=masses.device)
        inner = torch.zeros(masses.shape[0], self.group_size + 1, dtype=torch.int64, device=masses.device)
        torch.cumsum(self._grouped(masses)[rows, groups], -1, dtype=torch.int64, out=inner[:, 1:])
        return inner

    def bounds(self, masses: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Computes the cumulative frequencies on both sides of known tokens, for a single step.

        Args:
            masses: (n, V) int32; tokens: (n,) int64.

        Returns:
            (n, 2) int64, 0 <= left < right <= 2^b.
        """
        sums = self.sums(masses, tokens)
        return self._cumulative(sums[:, 1:3], sums[:, 4:5], torch.stack([tokens, tokens + 1], 1))

    def find(self, masses: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Finds the tokens whose intervals contain given numbers, for a single step.

        Args:
            masses: (n, V) int32; targets: (n,) int64, 0 <= q < 2^b.

        Returns:
            tokens: (n,) int64; bounds: (n, 2) int64, the cumulative frequencies on both sides of them.
        """
        sums, borders = self._borders(masses, False)
        groups = torch.searchsorted(borders, targets[:, None], right=True).sub_(1)
        inner = self._inner_bounds(masses, sums, groups[:, 0])
        places = torch.searchsorted(inner, targets[:, None], right=True).sub_(1)
        return (groups * self.group_size + places)[:, 0], inner.gather(1, torch.cat([places, places + 1], 1))

    def intervals(self, masses: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Computes the intervals of known tokens in the tables of both steps.

        Args:
            masses: (n, V) int32; tokens: (n,) int64.

        Returns:
            (n, 4) int64: left and frequency of the group, left and frequency of the token within it.
        """
        return self.intervals_of(self.sums(masses, tokens), tokens)

    def intervals_of(self, sums: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Computes `intervals` from what `sums` returns: only four borders need a division."""
        if self.floor_bits:
            return self._weighted_intervals(sums, tokens)
        first = torch.div(tokens, self.group_size, rounding_mode="floor").mul_(self.group_size)
        past = (first + self.group_size - self.vocab_size).clamp_(min=0)  # ids that pad the last group
        places = torch.stack([first, tokens, tokens + 1, first + self.group_size - past], 1)
        borders = self._cumulative(sums[:, :4], sums[:, 4:5], places)
        left = borders[:, 0].clone()
        borders -= left[:, None]
        inner = torch.div(borders[:, 1:3] << TOTAL_BITS, (borders[:, 3] + past)[:, None], rounding_mode="floor")
        return torch.stack([left, borders[:, 3], inner[:, 0], inner[:, 1] - inner[:, 0]], 1)

    def _weighted_intervals(self, sums: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Computes `intervals_of` by weights: those before an id are the masses before it, and 1 for each."""
        size, groups = self.group_size, torch.div(tokens, self.group_size, rounding_mode="floor")
        group, place = torch.stack([groups, groups + 1], 1), (tokens - groups * size)[:, None]
        weights = sums[:, 0:4:3] + group * size
        outer = _table(weights, sums[:, 4:5] + self.num_groups * size, group, self.num_groups)
        place = torch.cat([place, place + 1], 1)
        inner = _table(sums[:, 1:3] - sums[:, :1] + place, sums[:, 3:4] - sums[:, :1] + size, place, size)
        return torch.stack([outer[:, 0], outer[:, 1] - outer[:, 0], inner[:, 0], inner[:, 1] - inner[:, 0]], 1)

    def sums(self, masses: torch.Tensor, tokens: torch.Tensor, ranks: bool = False) -> torch.Tensor:
        """Sums the masses around known tokens.

        Args:
            masses: (n, V) int32.
            tokens: (n,) int64.
            ranks: whether the caller needs the last column.

        Returns:
            (n, 6) int64: the sums of the masses before the token's group, before the token, before the next token,
            before the next group, and of all masses; and how many ids have a larger mass, or an equal one and a lower
            id.
        """
        if (library := _library(masses)) is not None:
            return library.sums_around(masses, tokens, self.group_size)
        size, device, token_masses = self.group_size, masses.device, masses.gather(1, tokens[:, None])
        groups = torch.div(tokens, size, rounding_mode="floor")
        grouped = self._grouped(masses)
        parts = self._group_sums(masses)
        before = torch.where(torch.arange(self.num_groups, device=device) < groups[:, None], parts, 0)
        left = before.sum(-1, dtype=torch.int64)
        chosen = grouped[torch.arange(len(tokens), device=device), groups]
        inside = torch.where(torch.arange(size, device=device) < (tokens - groups * size)[:, None], chosen, 0)
        middle = left + inside.sum(-1, dtype=torch.int64)
        end = left + parts.gather(1, groups[:, None])[:, 0]
        rank = torch.zeros_like(left)
        if ranks:
            lower = torch.arange(self.vocab_size, device=device) < tokens[:, None]
            rank = ((masses > token_masses) | ((masses == token_masses) & lower)).sum(-1)
        following = middle + token_masses[:, 0]
        return torch.stack([left, middle, following, end, parts.sum(-1, dtype=torch.int64), rank], 1)

    def _group_sums(self, masses: torch.Tensor) -> torch.Tensor:
        # 1,024 masses of 2^20 stay in int32, and torch adds int32 faster than int64
        return self._grouped(masses).sum(-1, dtype=torch.int64 if self.floor_bits else torch.int32)

    def _grouped(self, masses: torch.Tensor) -> torch.Tensor:
        if self._padding:
            masses = torch.nn.functional.pad(masses, (0, self._padding))
        return masses.view(masses.shape[0], self.num_groups, self.group_size)

    def _cumulative(self, sums: torch.Tensor, total: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        if self.floor_bits:
            sums, total = _shortened(sums, total)
        return torch.div(sums * (self._total - self.vocab_size), total, rounding_mode="floor") + index


def _shortened(sums: torch.Tensor, total: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Cuts sums, (n, m) int64, by as many bits as their total, (n, 1), has more than 39; it is below 2^47."""
    limits = torch.bitwise_left_shift(1, torch.arange(_SUM_BITS, _MAX_SUM_BITS, device=total.device))
    shift = (total >= limits).sum(-1, keepdim=True)
    return sums >> shift, total >> shift


def _table(weights: torch.Tensor, total: torch.Tensor, index: torch.Tensor, places: int) -> torch.Tensor:
    """Returns entries of a table of docs/numerics.md section 8.2.

    Args:
        weights: c_j, (n, m) int64.
        total: c_n, (n, 1) int64.
        index: j, (n, m) or (m,) int64.
        places: n of the document.
    """
    weights, total = _shortened(weights, total)
    return torch.div(weights * (TOTAL - places), total, rounding_mode="floor") + index
