"""The interface of engines that the codec uses; must not know text, files, frames or the coder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

import numpy as np

if TYPE_CHECKING:
    from ..format.plan import Rows
    from .frequencies import Frequencies

Array: TypeAlias = Any
"""An array of an engine: numpy's where compiled kernels compute, else a tensor of torch on the engine's device.

Callers may take its length and shape, slice and reshape it, and index it by numpy arrays of booleans or of places. To
its values there is one way: the engine's readout.
"""

HOST = "cpu"
"""The device that is the processor itself."""

CacheT = TypeVar("CacheT", bound="Cache")
DecodingT = TypeVar("DecodingT", bound="CompiledDecoding")


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


@dataclass(frozen=True)
class TokenSink:
    """What takes the masses of known tokens from compiled passes, as `struct Sink` of cpu/native/lanes.h.

    Attributes:
        context, add: addresses of what it works on, and of its function, which threads may call at once.
        new_room: returns what a thread needs for it, and its address; None for nothing.
    """

    context: int
    add: int
    new_room: Callable[[], tuple[Any, int] | None] = lambda: None


@dataclass(frozen=True)
class TokenSource:
    """What decodes tokens from masses in compiled passes, as `struct TokenCoder` of cpu/native/lanes.h.

    Attributes:
        context: address of what it works on.
        take, decode, begin: addresses of its functions; None for no `begin`.
    """

    context: int
    take: int
    decode: int
    begin: int | None = None


@dataclass(frozen=True)
class TokenGuesser:
    """What guesses the next tokens of a row in compiled code, as `struct Guesser` of cpu/native/lanes.h.

    Attributes:
        context, learn, guess, worth: addresses of what it works on, and of its functions.
    """

    context: int
    learn: int
    guess: int
    worth: int


class CompiledSums(Protocol):
    """Collects the sums of masses around known tokens, while it lives.

    Attributes:
        sums: (N, 6) int64, as `Frequencies.sums` gives them.
        sink: for `CompiledRows.read`.
    """

    sums: np.ndarray
    sink: TokenSink


class CompiledSource(Protocol):
    """Decodes tokens from masses, while it lives.

    Attributes:
        source: for `CompiledRows.decoding`.
    """

    source: TokenSource


class CompiledDecoding(Protocol):
    """Decodes the tokens of all rows in compiled code; used as a context."""

    def advance(self, last_step: int) -> int:
        """Decodes up to a step, or as far as the cache has room; returns the step that was reached.

        Raises:
            CorruptError: no encoder wrote this.
        """

    def __enter__(self: DecodingT) -> DecodingT: ...

    def __exit__(self, *details: object) -> None: ...


class CompiledRows(Protocol):
    """Rows of tokens that go through the model and to a coder in compiled code, without Python in between."""

    def room(self, step: int) -> int:
        """Returns how many inputs from a step's on can be read before the cache must be refilled; 0 for none."""

    def read(self, sink: TokenSink, first_step: int, last_step: int, first_place: int) -> None:
        """Reads the inputs of some steps, at most `room(first_step)`, and hands the masses of their tokens to a sink.

        Args:
            sink: takes them.
            first_step: the step whose input is next.
            last_step: end of the steps.
            first_place: of the first row's first token, among those that the sink knows.
        """

    def decoding(
        self, source: TokenSource, unit: int, threads: int, guesser: TokenGuesser | None = None
    ) -> CompiledDecoding:
        """Returns what decodes the rows' tokens into the inputs.

        Args:
            source: decodes tokens from masses.
            unit: it takes rows in multiples of so many.
            threads: to use at most.
            guesser: guesses tokens where there is a thread for each row; None for no guesses.
        """


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

    def readout(self, total_bits: int = 24) -> Readout:
        """Returns a new readout for the engine's masses; `total_bits`: as for `Frequencies`."""

    def compiled_rows(self, cache: CacheT, inputs: np.ndarray, rows: Rows, skipped: int) -> CompiledRows:
        """Returns rows that go through the model in compiled code; only for an engine that `is_compiled`.

        Args:
            cache: of all rows; its length is kept up to date.
            inputs: (R, n) int64, C-contiguous: what the model reads. Decoding writes into it.
            rows: how many rows and steps there are.
            skipped: inputs of a row before the one that its first token is predicted from.
        """
