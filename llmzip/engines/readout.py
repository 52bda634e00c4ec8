"""What a coder takes from masses: frequencies, and the values of arrays, in the way of what computes them."""

from __future__ import annotations

import numpy as np

from .arrays import HOST, Array
from .base import Readout
from .cpu import kernels
from .cpu.frequencies import CpuFrequencies
from .frequencies import TOTAL_BITS
from .gpu import support


class HostReadout:
    """A readout of arrays and tensors in memory by the compiled kernels; `base.Readout` describes it.

    Args:
        frequencies: with the kernels.
    """

    def __init__(self, frequencies: CpuFrequencies) -> None:
        self.frequencies = frequencies

    def fetch(self, array: Array) -> np.ndarray:
        """Returns the values of an array."""
        return np.asarray(array)


def readout(vocab_size: int, device: str, floor_bits: int = 0, total_bits: int = TOTAL_BITS) -> Readout:
    """Returns the fastest readout of an engine's masses, for one thread at a time.

    Args:
        vocab_size: V, 16 to 300,000.
        device: where the masses are.
        floor_bits: those of the engine.
        total_bits: as for `Frequencies`.
    """
    library = kernels.chosen()[0] if device == HOST and not support.interpreted() else None
    if library is not None:
        return HostReadout(CpuFrequencies(library, vocab_size, total_bits, floor_bits))
    from .torch_readout import TorchReadout

    return TorchReadout(vocab_size, device, floor_bits, total_bits)
