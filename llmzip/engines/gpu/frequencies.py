"""Frequencies on CUDA devices: kernels give the integers of torch_frequencies.py; must not know models or the coder.

The tables of one step of many rows are megabytes; plain torch reads and writes its intermediate results a dozen times.
"""

from __future__ import annotations

import functools
from types import ModuleType

import numpy as np
import torch

from ..frequencies import TOTAL, TOTAL_BITS
from ..torch_frequencies import TorchFrequencies
from . import support

_OPTIONS = {"enable_fp_fusion": False}
"""Options of every launch. There are no floats here, but without the option Triton warns."""

_AT_ONCE = 4096
"""Number of masses that a program reads at once."""


def frequencies(
    vocab_size: int, device: torch.device, total_bits: int = TOTAL_BITS, floor_bits: int = 0
) -> TorchFrequencies:
    """Returns the fastest form of frequencies that a device has."""
    if device.type != "cuda" and not support.interpreted():
        return TorchFrequencies(vocab_size, total_bits, floor_bits)
    if support.unavailable(device) or _fails(vocab_size, device, total_bits, floor_bits):
        return TorchFrequencies(vocab_size, total_bits, floor_bits)
    return DeviceFrequencies(vocab_size, total_bits, floor_bits)


@functools.cache
def _fails(vocab_size: int, device: torch.device, total_bits: int, floor_bits: int = 0) -> bool:
    """Returns whether the kernels give other integers than plain torch for extreme masses, or do not compile."""
    plain = TorchFrequencies(vocab_size, total_bits, floor_bits)
    device_split = DeviceFrequencies(vocab_size, total_bits, floor_bits)
    rows = 6
    n = torch.arange(rows * vocab_size, dtype=torch.int64, device="cpu").view(rows, vocab_size)
    peak = 1 << 20 + floor_bits
    masses = ((n * n * 40503 + n * 2654435761) >> 9) % (peak + 1)
    masses[1], masses[2], masses[3] = peak, 0, masses[3] % 3
    masses[2:, vocab_size - 1] = peak
    masses = masses.to(torch.int32).to(device)
    tokens = np.array([0, vocab_size - 1, 1, vocab_size // 2, vocab_size - 2, 5], dtype=np.int64)
    try:
        pairs = []
        for split in (plain, device_split):
            sums, bounds = split.group_bounds(masses)
            inner = split.symbol_bounds(masses, sums, bounds, tokens // split.group_size)
            tables = [split.host(table) for table in (sums, bounds, inner)]
            pairs.append((*tables, split.sums(masses, tokens, ranks=True), *split.find(masses, tokens * 7)))
        return not all(np.array_equal(a, b) for a, b in zip(*pairs, strict=True))
    except torch.cuda.OutOfMemoryError:
        raise
    except Exception:  # a compiler that fails does so in many ways
        return True


@functools.cache
def _kernels() -> ModuleType:
    """Imports the kernels, and Triton with them."""
    from . import counts

    return counts


class DeviceFrequencies(TorchFrequencies):
    """Frequencies on a device where the kernels run; methods are documented in `TorchFrequencies`."""

    def borders(self, masses: torch.Tensor, *, is_weighted: bool) -> tuple[torch.Tensor, torch.Tensor]:
        n, groups, size = len(masses), self.num_groups, self.group_size
        masses = masses.contiguous()
        wide = torch.int64 if self.floor_bits else torch.int32
        parts = torch.empty(n, groups, dtype=wide, device=masses.device)
        sums, bounds = torch.empty(2, n, groups + 1, dtype=torch.int64, device=masses.device).unbind()
        if n:
            block = min(max(1, _AT_ONCE // size), _power(groups))
            units = TOTAL - groups if is_weighted else self._total - self.vocab_size
            with support.on(masses.device):
                _kernels().group_sums[(n, -(-groups // block))](
                    masses, parts, self.vocab_size, groups, S=size, FLOOR=self.floor_bits, BLOCK=block, **_OPTIONS
                )
                _kernels().group_bounds[(n,)](
                    parts, sums, bounds, self.vocab_size, groups, units, S=size, FLOOR=self.floor_bits,
                    WEIGHTED=is_weighted, BLOCK=_power(groups), num_warps=1, **_OPTIONS,
                )  # fmt: skip
        return sums, bounds

    def symbol_bounds(
        self, masses: torch.Tensor, sums: torch.Tensor, bounds: torch.Tensor, groups: np.ndarray
    ) -> torch.Tensor:
        return self._launched_bounds(masses, sums, bounds, groups, stretch=True)

    def inner_bounds(self, masses: torch.Tensor, sums: torch.Tensor, groups: np.ndarray) -> torch.Tensor:
        return self._launched_bounds(masses, sums, sums, groups, stretch=False)

    def _launched_bounds(
        self, masses: torch.Tensor, sums: torch.Tensor, bounds: torch.Tensor, groups: np.ndarray, *, stretch: bool
    ) -> torch.Tensor:
        out = torch.empty(len(masses), self.group_size + 1, dtype=torch.int64, device=masses.device)
        units = TOTAL - self.group_size if self.floor_bits and stretch else self._total - self.vocab_size
        if len(masses):
            with support.on(masses.device):
                which = torch.from_numpy(groups).to(masses.device)
                _kernels().symbol_bounds[(len(masses),)](
                    masses.contiguous(), sums.contiguous(), bounds.contiguous(), which, out,
                    self.vocab_size, self.num_groups, units, S=self.group_size, FLOOR=self.floor_bits,
                    STRETCH=stretch, num_warps=1, **_OPTIONS,
                )  # fmt: skip
        return out

    def _sums_around(self, masses: torch.Tensor, tokens: torch.Tensor, ranks: bool) -> torch.Tensor:
        out = torch.empty(len(masses), 6, dtype=torch.int64, device=masses.device)
        if len(masses):
            with support.on(masses.device):
                _kernels().sums_around[(len(masses),)](
                    masses.contiguous(), tokens.contiguous(), out, self.vocab_size, S=self.group_size, RANKS=ranks,
                    BLOCK=min(1024, _power(self.vocab_size)), **_OPTIONS,
                )  # fmt: skip
        return out


def _power(n: int) -> int:
    """Returns the smallest power of two that is at least n."""
    return 1 << max(0, n - 1).bit_length()
