"""What a coder takes from masses: frequencies, and copies of tensors on the processor, in the way of the device."""

from __future__ import annotations

import numpy as np
import torch

from ..system import forks
from .frequencies import Frequencies
from .gpu import devices, frequencies


class DeviceReadout:
    """The readout of an engine on a device, for one thread at a time; `base.Readout` describes it.

    Args:
        vocab_size: V, 16 to 300,000.
        device: where the masses are.
        floor_bits: those of the engine.
    """

    def __init__(self, vocab_size: int, device: torch.device, floor_bits: int = 0) -> None:
        self._vocab_size, self._device, self._floor_bits = vocab_size, device, floor_bits
        self._copies = devices.HostCopies()

    @forks.cached_property
    def frequencies(self) -> Frequencies:
        """The fastest frequencies that the device has."""
        return frequencies.frequencies(self._vocab_size, self._device, floor_bits=self._floor_bits)

    def fetch(self, tensor: torch.Tensor) -> np.ndarray:
        """Returns the values of a tensor, valid until the next call."""
        return self._copies.fetch(tensor)
