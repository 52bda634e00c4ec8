"""What the codec expects of an engine; must not know text, files, frames or the coder."""

from __future__ import annotations

from typing import Protocol, TypeVar

import numpy as np
import torch

from .frequencies import Frequencies

CacheT = TypeVar("CacheT", bound="Cache")


class Cache(Protocol):
    """What an engine keeps of the tokens that rows were fed.

    Attributes:
        length: positions fed so far.
    """

    length: int

    def reset(self) -> None:
        """Forgets everything."""


class PartedCache(Cache, Protocol):
    """A cache that can be fed some rows after the others; only stepwise engines have none."""

    def rows(self: CacheT, rows: slice) -> CacheT:
        """A cache of some of the rows, sharing their storage."""

    def adopt(self: CacheT, part: CacheT) -> None:
        """Takes over the positions of a cache of some rows, when the other rows were fed alike."""


class Readout(Protocol):
    """What a coder takes from an engine's masses; for one thread at a time."""

    @property
    def frequencies(self) -> Frequencies:
        """Frequencies from masses on the engine's device."""

    def fetch(self, tensor: torch.Tensor) -> np.ndarray:
        """Returns the values of a tensor on the engine's device, valid until the next call."""


class Engine(Protocol[CacheT]):
    """A causal language model that turns token ids into integer masses, the same bits on every call pattern.

    Attributes:
        vocab_size: V, number of token ids.
        context: most input tokens that one position may see, itself included.
        start_token: the id fed before a row's first token.
        device: where tensors live.
        batch_tokens: tokens that one prefill call should hold.
        stepwise: only calls of one token of every row, with the same rows each time, give the same bits again.
        callers: threads that may use it at once. With more than 1, calls on threads of `workers.submit` stay on those,
            others are shared out to all.
    """

    vocab_size: int
    context: int
    start_token: int
    device: torch.device
    batch_tokens: int
    stepwise: bool

    @property
    def callers(self) -> int: ...

    def new_cache(self, rows: int, chunk: int, positions: int) -> CacheT:
        """An empty KV cache for `rows` rows, fed at most `chunk` tokens at once and `positions` in all."""

    def step_bytes(self, rows: int, chunk: int, positions: int) -> int:
        """About the memory of a cache and of one step of all rows with its masses and tables, in bytes."""

    def forward(self, ids: torch.Tensor, cache: CacheT | None = None) -> torch.Tensor:
        """Final hidden states of new input tokens; appends to the cache when there is one.

        Args:
            ids: (B, T) int64 on `device`, 0 <= id < V. Without a cache, positions start at 0.
            cache: a cache of B rows, or None.

        Returns:
            (B, T, hidden) float32.
        """

    def masses(self, hidden: torch.Tensor) -> torch.Tensor:
        """Unnormalised integer probabilities of the token that follows.

        Args:
            hidden: (n, hidden) float32 from `forward`.

        Returns:
            (n, V) int32, 0 <= mass <= 2^20, each row's largest is 2^20.
        """

    def readout(self) -> Readout:
        """Returns a new readout for the engine's masses."""
