"""Rows that go through a model and to a coder in compiled code, without Python in between: what the two sides see.

Engines that have such code offer `CompiledRows`; what codes tokens offers addresses of compiled functions. Neither
knows the other. cpu/native/lanes.h says what the functions do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np

from ..format.plan import Rows

DecodingT = TypeVar("DecodingT", bound="CompiledDecoding")


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


@dataclass(frozen=True)
class FrameRows:
    """The rows of one frame among those that are decoded together.

    Attributes:
        counts: how many rows and steps there are.
        source: decodes their tokens from masses.
        unit: it takes rows in multiples of so many, or all that are left.
    """

    counts: Rows
    source: TokenSource
    unit: int


class CompiledDecoding(Protocol):
    """Decodes the tokens of all rows in compiled code; used as a context."""

    def advance(self, last_step: int) -> int:
        """Decodes up to a step, or as far as the cache has room; returns the step that was reached."""

    def has_failed(self, frame: int) -> bool:
        """Whether no encoder wrote a frame, as far as it was decoded."""

    def sound_steps(self, frame: int) -> int:
        """Returns how many steps of a frame had been decoded at least when it failed."""

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
        self, frames: Sequence[FrameRows], threads: int, guesser: TokenGuesser | None = None
    ) -> CompiledDecoding:
        """Returns what decodes the rows' tokens into the inputs.

        Args:
            frames: to which the rows belong, in their order.
            threads: to use at most.
            guesser: guesses tokens where there is a thread for each row of a single frame; None for no guesses.
        """
