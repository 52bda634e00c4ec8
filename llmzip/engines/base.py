"""The interface of engines that the codec uses; must not know text, files, frames or the coder."""

from __future__ import annotations

from typing import Protocol, TypeVar

import numpy as np

from ..format.plan import Rows
from .arrays import Array
from .compiled import CompiledRows
from .frequencies import TOTAL_BITS, Frequencies

CacheT = TypeVar("CacheT", bound="Cache")


class Cache(Protocol):
    """What an engine keeps of the tokens that its rows have read.

    Attributes:
        length: number of positions read so far.
    """

    length: int

    def reset(self) -> None:
        """Forgets everything."""


class PartedCache(Cache, Protocol):
    """A cache whose rows can be fed group by group; only stepwise engines lack it."""

    def rows(self: CacheT, rows: slice) -> CacheT:
        """Returns a cache of some of the rows, which shares their storage."""

    def adopt(self: CacheT, part: CacheT) -> None:
        """Takes over the length of a cache of some of the rows, once the other rows have read as many positions."""


class Readout(Protocol):
    """What a coder takes from an engine's masses; for one thread at a time."""

    @property
    def frequencies(self) -> Frequencies:
        """Frequencies from the engine's masses."""

    def fetch(self, array: Array) -> np.ndarray:
        """Returns the values of an engine's array, valid until the next call."""


class Engine(Protocol[CacheT]):
    """A causal language model that turns token ids into integer masses, the same bits on every call pattern.

    Attributes:
        vocab_size: V, number of token ids, those of byte tokens included.
        floor_bits: k, 0 to 8: masses are at most 2^(20 + k) (docs/numerics.md section 6.7).
        context: number of input tokens that one position may see at most, itself included.
        start_token: the id fed before a row's first token.
        device: where its arrays are: "cpu", "cuda" or "cuda:N".
        batch_tokens: number of tokens that one prefill call should hold.
        stepwise: whether only calls of one token of every row, with the same rows each time, give the same bits again.
        callers: number of threads that may use it at once. If there are more than 1, calls on threads of
            `workers.submit` stay on those threads, and others are distributed over all of them.
        is_compiled: whether `compiled_rows` can take whole rows through the model.
    """

    vocab_size: int
    floor_bits: int
    context: int
    start_token: int
    device: str
    batch_tokens: int
    stepwise: bool

    @property
    def callers(self) -> int: ...

    @property
    def is_compiled(self) -> bool: ...

    def new_cache(self, rows: int, chunk: int, positions: int) -> CacheT:
        """Returns an empty KV cache for `rows` rows that read at most `chunk` tokens at once and `positions` in all."""

    def step_bytes(self, rows: int, chunk: int, positions: int) -> int:
        """Estimates the memory of a cache and of one step of all rows with its masses and tables, in bytes."""

    def forward(self, ids: np.ndarray, cache: CacheT | None = None) -> Array:
        """Computes the final hidden states of new input tokens, and appends to the cache if there is one.

        Args:
            ids: (B, T) int64, 0 <= id < V. Without a cache, positions start at 0.
            cache: a cache of B rows, or None.

        Returns:
            (B, T, hidden) float32.
        """

    def masses(self, hidden: Array) -> Array:
        """Computes the masses of the next token: integer probabilities before normalisation.

        Args:
            hidden: (n, hidden) float32 from `forward`.

        Returns:
            (n, V) int32, 0 <= mass <= 2^(20 + k); the largest of each row is 2^(20 + k).
        """

    def readout(self, total_bits: int = TOTAL_BITS) -> Readout:
        """Returns a new readout for the engine's masses; `total_bits`: as for `Frequencies`."""

    def compiled_rows(self, cache: CacheT, inputs: np.ndarray, rows: Rows, skipped: int) -> CompiledRows:
        """Returns rows that go through the model in compiled code; only for an engine that `is_compiled`.

        Args:
            cache: of all rows; its length is kept up to date.
            inputs: (R, n) int64, C-contiguous: what the model reads. Decoding writes into it.
            rows: how many rows and steps there are.
            skipped: inputs of a row before the one that its first token is predicted from.
        """
