"""What the exact engine expects of a forward pass, however it computes; must not know any of the ways.

Three ways give the same bits: plain torch (reference.py), kernels compiled for the processor (cpu/forward.py), Triton
kernels for CUDA devices (gpu/forward.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np

from .arrays import Array
from .base import PartedCache

if TYPE_CHECKING:
    from ..models.model import Feature
    from .torch_arrays import TensorModel

CacheT = TypeVar("CacheT", bound=PartedCache)


class Forward(Protocol[CacheT]):
    """One way to compute an ExactModel on one device.

    Attributes:
        name: what computes, for messages: torch, triton or an instruction set.
        is_concurrent: whether several threads may compute at once, each with its own cache, and a fork need not wait
            for them. Otherwise the caller lets in one thread at a time.
    """

    @property
    def name(self) -> str: ...

    @property
    def is_concurrent(self) -> bool: ...

    def batch_tokens(self) -> int:
        """Returns how many tokens the device needs at once to be busy, as far as its free memory allows; 0 for any."""

    def new_cache(self, rows: int, slots: Sequence[int]) -> CacheT:
        """Returns an empty cache of B rows; `slots`: positions that each layer keeps at least."""

    def cache_bytes(self, slots: Sequence[int]) -> int:
        """Returns the size of one row of such a cache in bytes."""

    def forward(self, ids: np.ndarray, cache: CacheT | None) -> Array:
        """Computes final hidden states, as `Engine.forward`; rotary tables reach at least to the last position."""

    def masses(self, hidden: Array, byte_tokens: int = 0) -> Array:
        """Computes masses, as `Engine.masses`, and so many columns of zeros after them."""


def unsupported(model: TensorModel, lacking: frozenset[Feature], has_fitting_sizes: bool) -> str:
    """Says what kernels cannot compute of a model; empty if they can compute all of it.

    Args:
        model: the model.
        lacking: features that the kernels do not have.
        has_fitting_sizes: whether the kernels can divide the model's matrices and heads.
    """
    from ..models.model import Feature

    features = model.features() & lacking
    reasons = [feature.value for feature in Feature if feature in features]
    if not has_fitting_sizes:
        reasons.append("sizes that do not fit")
    return f"the model has {', '.join(reasons)}" if reasons else ""
