"""CUDA devices: why there is none, how many rows fit on one, and copies to the processor; must not know frames."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ...system.memory import free_bytes
from ..base import Engine

_SHARE = 0.8
"""Share of the free memory that caches may take: the allocator leaves gaps between them."""

_MAX_ROWS = 1 << 20
"""Number of rows that is as good as no limit."""


def missing() -> str:
    """Says in one line why torch finds no CUDA device: no driver, one that is too old, a torch without CUDA."""
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except (RuntimeError, AssertionError) as error:
        text = str(error).strip() or type(error).__name__
        return text.splitlines()[0].split(". ")[0].rstrip(".")
    return "no device"


def most_rows(engine: Engine[Any], chunk: int, positions: int) -> int:
    """Returns how many rows fit into the free memory at once, at least 1; 2^20 if the system does not report it.

    Args:
        engine: on its device.
        chunk, positions: as in `Engine.new_cache`.
    """
    free = free_bytes(engine.device)
    if free is None:
        return _MAX_ROWS
    return max(1, min(_MAX_ROWS, int(free * _SHARE) // max(1, engine.step_bytes(1, chunk, positions))))


class HostCopies:
    """Copies tensors of one device to the processor, through pinned memory that the device writes on its own."""

    def __init__(self) -> None:
        self._buffer = torch.empty(0, dtype=torch.uint8)

    def fetch(self, tensor: torch.Tensor) -> np.ndarray:
        """Returns the values of a tensor, valid until the next call; waits for this thread's stream only."""
        if tensor.device.type != "cuda":
            return tensor.numpy()
        size = tensor.numel() * tensor.element_size()
        if self._buffer.numel() < size:
            self._buffer = torch.empty(2 * size, dtype=torch.uint8, pin_memory=True)
        host = self._buffer[:size].view(tensor.dtype).view(tensor.shape)
        host.copy_(tensor, non_blocking=True)
        torch.cuda.current_stream(tensor.device).synchronize()
        return host.numpy()
