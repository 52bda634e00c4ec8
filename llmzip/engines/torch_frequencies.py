"""Frequencies of masses that are tensors, by torch's operations on any device; must not know models or the coder."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from .frequencies import MAX_SUM_BITS, SUM_BITS, TOTAL, TOTAL_BITS, Frequencies

_ID_BITS = 19
"""Bits of an id; ids are below 300,000."""


class TorchFrequencies(Frequencies):
    """Frequencies of tensors; methods are documented in `Frequencies`. An array on the processor is taken as well."""

    def __init__(self, vocab_size: int, total_bits: int = TOTAL_BITS, floor_bits: int = 0) -> None:
        super().__init__(vocab_size, total_bits, floor_bits)
        self._padding = self.num_groups * self.group_size - vocab_size

    def host(self, array: torch.Tensor) -> np.ndarray:
        values: np.ndarray = array.cpu().numpy()
        return values

    def borders(self, masses: torch.Tensor, *, is_weighted: bool) -> tuple[torch.Tensor, torch.Tensor]:
        masses = _tensor(masses)
        sums = torch.zeros(masses.shape[0], self.num_groups + 1, dtype=torch.int64, device=masses.device)
        torch.cumsum(self._group_sums(masses), -1, dtype=torch.int64, out=sums[:, 1:])
        groups = torch.arange(self.num_groups + 1, device=masses.device)
        first = groups * self.group_size
        if is_weighted:
            weights = sums + first
            return sums, _table(weights, weights[:, -1:], groups, self.num_groups)
        return sums, self._scaled(sums, sums[:, -1:], first.clamp_(max=self.vocab_size))

    def symbol_bounds(
        self, masses: torch.Tensor, sums: torch.Tensor, bounds: torch.Tensor, groups: np.ndarray
    ) -> torch.Tensor:
        masses = _tensor(masses)
        which = torch.from_numpy(groups).to(masses.device)
        if self.floor_bits:
            places = torch.arange(self.group_size + 1, device=masses.device)
            weights = self._sums_in(masses, which) + places
            return _table(weights, weights[:, -1:], places, self.group_size)
        inner = self._bounds_in(masses, sums, which) - bounds.gather(1, which[:, None])
        return torch.div(inner << TOTAL_BITS, inner[:, -1:], rounding_mode="floor")

    def inner_bounds(self, masses: torch.Tensor, sums: torch.Tensor, groups: np.ndarray) -> torch.Tensor:
        masses = _tensor(masses)
        return self._bounds_in(masses, sums, torch.from_numpy(groups).to(masses.device))

    def sums(self, masses: torch.Tensor, tokens: np.ndarray, ranks: bool = False) -> np.ndarray:
        masses = _tensor(masses)
        if len(tokens) and not 0 <= int(tokens.min()) <= int(tokens.max()) < self.vocab_size:
            raise IndexError(f"tokens outside a vocabulary of {self.vocab_size}")
        return self.host(self._sums_around(masses, torch.from_numpy(tokens).to(masses.device), ranks))

    def likeliest(self, masses: torch.Tensor, count: int) -> tuple[np.ndarray, np.ndarray]:
        masses = _tensor(masses)
        last_id = (1 << _ID_BITS) - 1
        reversed_ids = torch.arange(last_id, last_id - masses.shape[1], -1, device=masses.device)
        keys = self.host(((masses.to(torch.int64) << _ID_BITS) + reversed_ids).topk(count).values)
        return last_id - (keys & last_id), keys >> _ID_BITS

    def _sums_around(self, masses: torch.Tensor, tokens: torch.Tensor, ranks: bool) -> torch.Tensor:
        """Computes `sums`, (n, 6) int64, on the masses' device."""
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

    def _bounds_in(self, masses: torch.Tensor, sums: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
        """Computes `inner_bounds`, (n, S + 1) int64."""
        inner = self._sums_in(masses, groups).add_(sums.gather(1, groups[:, None]))
        place = torch.arange(self.group_size + 1, device=masses.device)
        first = groups[:, None] * self.group_size + place
        inside = first.clamp(max=self.vocab_size)
        return self._scaled(inner, sums[:, -1:], inside).add_(first - inside)

    def _sums_in(self, masses: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
        """Sums the masses before each place of one group per row, (n, S + 1) int64; padding has mass 0."""
        rows = torch.arange(masses.shape[0], device=masses.device)
        inner = torch.zeros(masses.shape[0], self.group_size + 1, dtype=torch.int64, device=masses.device)
        torch.cumsum(self._grouped(masses)[rows, groups], -1, dtype=torch.int64, out=inner[:, 1:])
        return inner

    def _group_sums(self, masses: torch.Tensor) -> torch.Tensor:
        # 1,024 masses of 2^20 stay in int32, and torch adds int32 faster than int64
        return self._grouped(masses).sum(-1, dtype=torch.int64 if self.floor_bits else torch.int32)

    def _grouped(self, masses: torch.Tensor) -> torch.Tensor:
        if self._padding:
            masses = torch.nn.functional.pad(masses, (0, self._padding))
        return masses.view(masses.shape[0], self.num_groups, self.group_size)

    def _scaled(self, sums: torch.Tensor, total: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """Computes cumulative frequencies, as `Frequencies._cumulative` does for numpy arrays."""
        if self.floor_bits:
            sums, total = _shortened(sums, total)
        return torch.div(sums * (self._total - self.vocab_size), total, rounding_mode="floor") + index


def _tensor(masses: Any) -> torch.Tensor:
    """Returns masses as a tensor; what a caller made torch's default device changes nothing."""
    return masses if isinstance(masses, torch.Tensor) else torch.from_numpy(masses)


def _shortened(sums: torch.Tensor, total: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Cuts sums, (n, m) int64, by as many bits as their total, (n, 1), has more than 39; it is below 2^47."""
    limits = torch.bitwise_left_shift(1, torch.arange(SUM_BITS, MAX_SUM_BITS, device=total.device))
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
