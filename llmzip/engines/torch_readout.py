"""The readout of masses that are tensors, on any device. Imports torch."""

from __future__ import annotations

import numpy as np
import torch

from ..system import forks
from .arrays import Array
from .frequencies import TOTAL_BITS
from .gpu import devices, frequencies
from .torch_frequencies import TorchFrequencies


class TorchReadout:
    """The readout of an engine's tensors, for one thread at a time; `base.Readout` describes it.

    Args:
        vocab_size, device, floor_bits, total_bits: as for `readout.readout`.
    """

    def __init__(self, vocab_size: int, device: str, floor_bits: int = 0, total_bits: int = TOTAL_BITS) -> None:
        self._vocab_size, self._floor_bits, self._total_bits = vocab_size, floor_bits, total_bits
        self._device = torch.device(device)
        self._copies = devices.HostCopies()

    @forks.cached_property
    def frequencies(self) -> TorchFrequencies:
        """The fastest frequencies that the device has."""
        return frequencies.frequencies(self._vocab_size, self._device, self._total_bits, self._floor_bits)

    def fetch(self, array: Array) -> np.ndarray:
        """Returns the values of a tensor, valid until the next call; an array in memory is returned as it is."""
        return array if isinstance(array, np.ndarray) else self._copies.fetch(array)
