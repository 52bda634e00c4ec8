"""The mixer for one frame: from tokens and masses to a payload and back; must not know engines, rows of text or files.

Rows share everything that is learnt. Encoder and decoder run the same walk (docs/numerics.md section 10).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..format.plan import Rows
from . import library
from .coder import Encoder
from .library import NativeWalk
from .state import Known, Learned, Texts, new_learned, new_texts
from .vocabulary import Vocabulary

if TYPE_CHECKING:
    from .jitted import JittedWalk

_LEAST_TABLE_BITS = 12
_MOST_TABLE_BITS = 22


def table_bits(num_tokens: int) -> int:
    """k: the table of statistics has 2^k blocks of 16 bytes (numerics section 10.4)."""
    return min(max((32 * num_tokens - 1).bit_length(), _LEAST_TABLE_BITS), _MOST_TABLE_BITS)


def encode_bytes(data: bytes, progress: Callable[[int], None] | None = None) -> tuple[bytes, float]:
    """Payload and ideal bits of bytes without a model, in one row.

    Args:
        data: at least 1 byte.
        progress: called with numbers of bytes done.
    """
    tokens = np.frombuffer(data, dtype=np.uint8).astype(np.int64)
    return MixEncoder(_byte_vocabulary(), tokens, 1, with_model=False).finish(progress)


def decode_bytes(payload: bytes, num_bytes: int, progress: Callable[[int], None] | None = None) -> bytes:
    """What `encode_bytes` encoded.

    Raises:
        CorruptError: the payload fits nothing.
    """
    decoder = MixDecoder(_byte_vocabulary(), payload, num_bytes, 1, with_model=False)
    data = bytearray()
    while len(data) < num_bytes:
        data += decoder.step(None).astype(np.uint8).tobytes()
        if progress is not None:
            progress(1)
    return bytes(data)


@functools.cache
def _byte_vocabulary() -> Vocabulary:
    return Vocabulary([bytes([byte]) for byte in range(256)])


def memory_bytes(num_tokens: int, num_rows: int, vocab_size: int) -> int:
    """About the memory that one frame needs in either direction, without the model's."""
    per_row = 12_000 + 8 * vocab_size
    return (16 << table_bits(num_tokens)) + 28_000_000 + per_row * num_rows + 300 * vocab_size + 40 * num_tokens


@dataclass(frozen=True)
class Primed:
    """What the mixer has learnt from a text that both sides know (numerics section 10.9); good for one frame.

    Attributes:
        learned: statistics and weights.
        follower: as in `contexts.Texts`.
    """

    learned: Learned
    follower: np.ndarray


class MixEncoder:
    """Encodes one frame. `add` for the tokens of some steps, if there is a model, and `walk` over those; then `finish`.

    Args:
        vocabulary: of the tokens.
        tokens: (N,) int64, in the order of the text.
        num_rows: R, 1 to N.
        with_model: whether there is a language model.
        primed: by a text before.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        tokens: np.ndarray,
        num_rows: int,
        with_model: bool,
        primed: Primed | None = None,
    ) -> None:
        self._primed, self._vocabulary, self._with_model = primed, vocabulary, with_model
        self._rows = Rows(len(tokens), num_rows)
        leaf = vocabulary.tree.leaf[tokens]
        depth = np.diff(vocabulary.path_start)[leaf]
        self._decisions = int(depth.sum())
        self._known = Known(
            leaf.astype(np.int32),
            np.array(self._rows.row_starts(), dtype=np.int64),
            np.zeros(self._decisions if with_model else 1, dtype=np.int16),
            np.concatenate([[0], np.cumsum(depth)]).astype(np.int64),
            np.zeros(len(tokens), dtype=np.int32),
        )
        self._walk = self._new_walk(0)

    def _new_walk(self, more_tokens: int) -> NativeWalk | JittedWalk:
        self._learned, self._texts = _state(self._vocabulary, self._rows, self._primed, more_tokens)
        shape = self._vocabulary.shape(self._rows)
        return _walk_maker()(self._learned, self._texts, shape, self._known, self._with_model, self._decisions)

    def add(self, places: np.ndarray, masses: np.ndarray) -> None:
        """The model's masses of some of the tokens; any thread may, for its own places.

        Args:
            places: (n,) int64: which tokens; masses: (n, V) int32.
        """
        self._walk.paths(masses, places)

    def walk(self, last_step: int) -> None:
        """Goes on up to a step, the masses of whose tokens and of all before were added."""
        self._walk.encode(last_step)

    def finish(self, progress: Callable[[int], None] | None = None) -> tuple[bytes, float]:
        """The payload, and the ideal length of its decisions in bits.

        Args:
            progress: called with the number of tokens of each step.
        """
        steps = self._rows.steps
        if progress is None:
            self.walk(steps)
        else:
            for step in range(steps):
                self.walk(step + 1)
                progress(self._rows.active_rows(step))
        probability, bits = self._walk.probability, self._walk.bits
        encoder = Encoder()
        encoder.encode_bits(bits, probability)
        ideal = -float(np.log2(np.where(bits, probability, 1 - probability).astype(np.float64)).sum())
        return encoder.finish(), ideal

    def learn(self, more_tokens: int) -> Primed:
        """What the mixer knows after these tokens; nothing is coded.

        Args:
            more_tokens: of the frame that is to follow.
        """
        self._walk = self._new_walk(more_tokens)
        self.walk(self._rows.steps)
        return Primed(self._learned, self._texts.follower)


def _state(vocabulary: Vocabulary, rows: Rows, primed: Primed | None, more_tokens: int = 0) -> tuple[Learned, Texts]:
    """Where a frame begins: knowing nothing, or what it was primed with."""
    texts = new_texts(rows.num_rows, rows.steps, vocabulary.leaf_bytes)
    if primed is not None:
        texts.follower[:] = primed.follower
        return primed.learned, texts
    return new_learned(len(vocabulary.tree.slot), table_bits(rows.num_tokens + more_tokens)), texts


def _walk_maker() -> Callable[..., NativeWalk | JittedWalk]:
    """Makes walks by the compiled library, or by numba where there is none; the arguments are those of both."""
    found = library.chosen()
    if found is not None:
        return functools.partial(NativeWalk, found)
    from .jitted import JittedWalk

    return JittedWalk


class MixDecoder:
    """Decodes one frame step by step.

    Args:
        vocabulary: of the tokens.
        payload: from `MixEncoder.finish`.
        num_tokens: N; num_rows: R; with_model, primed: as they were for the encoder.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        payload: bytes,
        num_tokens: int,
        num_rows: int,
        with_model: bool,
        primed: Primed | None = None,
    ) -> None:
        self._rows = Rows(num_tokens, num_rows)
        learned, self._texts = _state(vocabulary, self._rows, primed)
        self._token = vocabulary.tree.token
        nothing = np.zeros(1, dtype=np.int64)
        known = Known(nothing.astype(np.int32), nothing, nothing.astype(np.int16), nothing, nothing.astype(np.int32))
        shape = vocabulary.shape(self._rows)
        self._walk = _walk_maker()(learned, self._texts, shape, known, with_model, payload=payload)
        self._step = 0

    def take(self, masses: np.ndarray, first_row: int = 0) -> None:
        """The model's masses of the next tokens of some rows, (n, V) int32; any thread may, for its own rows."""
        self._walk.take(masses, first_row)

    def decode(self, first_row: int, last_row: int) -> np.ndarray:
        """The next token of some rows, whose masses were taken: all rows of a step, some after the others.

        Args:
            first_row: a multiple of GROUP_ROWS; last_row: another one, or the number of rows that take part.

        Returns:
            (n,) int64.

        Raises:
            CorruptError: the payload fits no text.
        """
        self._walk.decode(first_row, last_row)
        steps = self._rows.steps
        leaves = self._texts.history[first_row * steps + self._step : last_row * steps : steps]
        if last_row == self._rows.active_rows(self._step):
            self._step += 1
        tokens: np.ndarray = self._token[leaves]
        return tokens

    def step(self, masses: np.ndarray | None) -> np.ndarray:
        """The next token of every row that takes part: `take`, if there is a model, and `decode`."""
        if masses is not None:
            self.take(masses)
        return self.decode(0, self._rows.active_rows(self._step))
