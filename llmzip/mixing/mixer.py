"""The mixer for one frame, from tokens and masses to a payload and back. Must not know engines, texts or files.

Rows share everything that is learnt. Encoder and decoder run the same walk (docs/numerics.md section 10).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..format.plan import Rows
from ..system import libraries
from .coder import Encoder
from .library import Walk
from .state import Known, Learned, Texts, new_learned, new_texts
from .vocabulary import Vocabulary

_MIN_TABLE_BITS = 12
_MAX_TABLE_BITS = 22

_TOKENS_AT_ONCE = 4096
"""Tokens of an encoder that are walked and coded at once: their decisions take half a megabyte."""


_COST_BITS = 48
"""Costs are added up as integers, in units of 2^-48 bits, so that it does not matter how many are added at once."""


def table_bits(num_tokens: int) -> int:
    """Returns k: the table of statistics has 2^k blocks of 16 bytes (docs/numerics.md section 10.4)."""
    return min(max((64 * num_tokens - 1).bit_length(), _MIN_TABLE_BITS), _MAX_TABLE_BITS)


def encode_bytes(data: bytes, progress: Callable[[int], None] | None = None) -> tuple[bytes, float]:
    """Encodes bytes without a model, in one row; returns the payload and its ideal length in bits.

    Args:
        data: at least 1 byte.
        progress: called with the number of bytes that each step has encoded.

    Raises:
        EngineError: the mixer or the coder cannot be loaded here.
    """
    tokens = np.frombuffer(data, dtype=np.uint8).astype(np.int64)
    return MixEncoder(byte_vocabulary(), tokens, 1, with_model=False).finish(progress)


def decode_bytes(payload: bytes, num_bytes: int, progress: Callable[[int], None] | None = None) -> bytes:
    """Decodes what `encode_bytes` encoded.

    Raises:
        CorruptError: no encoder wrote the payload.
        EngineError: the mixer cannot be loaded here.
    """
    decoder = MixDecoder(byte_vocabulary(), payload, num_bytes, 1, with_model=False)
    data = bytearray()
    while len(data) < num_bytes:
        data += decoder.step(None).astype(np.uint8).tobytes()
        if progress is not None:
            progress(1)
    return bytes(data)


@functools.cache
def byte_vocabulary() -> Vocabulary:
    """Returns the vocabulary of frames without a model: the 256 single bytes."""
    return Vocabulary([bytes([byte]) for byte in range(256)])


def memory_bytes(num_tokens: int, num_rows: int, vocab_size: int) -> int:
    """Returns about the memory in bytes that encoding or decoding one frame needs, without the model's."""
    per_row = 13_000 + 5 * vocab_size
    return (16 << table_bits(num_tokens)) + 36_000_000 + per_row * num_rows + 560 * vocab_size + 40 * num_tokens


class Primed(NamedTuple):
    """What the mixer has learnt from a prompt (docs/numerics.md section 10.9); a frame that uses it changes it.

    Attributes:
        learned: statistics and weights.
        follower, pair_follower: as in `state.Texts`.
    """

    learned: Learned
    follower: np.ndarray
    pair_follower: np.ndarray


class MixEncoder:
    """Encodes one frame: with a model, `add` the masses of some steps and `walk` over these; at the end `finish`.

    Args:
        vocabulary: the tree of the tokens.
        tokens: (N,) int64, in the order of the text.
        num_rows: R, 1 to N.
        with_model: whether there is a language model.
        primed: what was learnt from a prompt, if there is one.

    Raises:
        EngineError: the mixer cannot be loaded here.
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
        depth = vocabulary.tree.depth[leaf]
        starts = np.array(self._rows.row_starts(), dtype=np.int64)
        ends = np.concatenate([[0], np.cumsum(depth, dtype=np.int64)])
        steps = np.arange(len(tokens), dtype=np.int32) - np.repeat(starts[:-1], np.diff(starts)).astype(np.int32)
        by_step = np.bincount(steps, weights=depth)  # below 2^53: exact
        self._decisions = np.concatenate([[0], np.cumsum(by_step)]).astype(np.int64)
        self._known = Known(
            leaf.astype(np.int32),
            starts,
            np.zeros(int(ends[-1]) if with_model else 1, dtype=np.int16),
            ends,
            np.zeros(len(tokens), dtype=np.int32),
        )
        self._walk = self._new_walk(0)
        self._encoder, self._cost, self._step = Encoder(), 0, 0

    def _new_walk(self, more_tokens: int) -> Walk:
        self._learned, self._texts = _state(self._vocabulary, self._rows, self._with_model, self._primed, more_tokens)
        return Walk(
            self._learned,
            self._texts,
            self._vocabulary.shape(self._rows),
            known=self._known,
            with_model=self._with_model,
            decisions=self._decisions,
        )

    def add(self, places: np.ndarray, masses: np.ndarray) -> None:
        """Adds the model's masses of some of the tokens; threads may share out the places.

        Args:
            places: (n,) int64: positions of the tokens in the frame.
            masses: (n, V) int32.
        """
        self._walk.paths(masses, places)

    def keep_samples(self, count: int, stride: int) -> np.ndarray:
        """Copies decisions while it walks; as `library.Walk.keep_samples`."""
        return self._walk.keep_samples(count, stride)

    def compiled_sink(self) -> tuple[int, int, Callable[[], tuple[Any, int]]]:
        """Returns what compiled code needs to add masses without Python, as long as this object lives.

        Returns:
            addresses of a context and of a function, `add`; and what makes something that each thread needs for it.
        """
        return self._walk.address, libraries.address_of(self._walk.functions.paths), self._walk.new_room

    def walk(self, last_step: int, progress: Callable[[int], None] | None = None) -> None:
        """Walks up to a step; the masses of all tokens before it must have been added.

        Args:
            progress: called with numbers of tokens that were just encoded.
        """
        # Decisions are coded at once: those of a whole frame would take twenty times as much memory as its tokens.
        stride = max(1, _TOKENS_AT_ONCE // self._rows.num_rows)
        while self._step < last_step:
            end = min(self._step + stride, last_step)
            bits, probability = self._walk.encode(end)
            self._encoder.encode_bits(bits, probability)
            chosen = np.where(bits, probability, 1 - probability).astype(np.float64)
            cost = np.rint(np.log2(chosen) * -(1 << _COST_BITS)).astype(np.int64)
            # In two halves: each is at most 2^52, and a sum of thousands may not fit.
            self._cost += (int((cost >> 24).sum()) << 24) + int((cost & 0xFFFFFF).sum())
            if progress is not None:
                progress(sum(self._rows.active_rows(step) for step in range(self._step, end)))
            self._step = end

    def finish(self, progress: Callable[[int], None] | None = None) -> tuple[bytes, float]:
        """Walks to the end; returns the payload and the ideal length of its decisions in bits.

        Args:
            progress: as for `walk`.
        """
        self.walk(self._rows.steps, progress)
        return self._encoder.finish(), self._cost / (1 << _COST_BITS)

    def learn(self, more_tokens: int) -> Primed:
        """Learns these tokens as a prompt without coding anything; returns what the mixer then knows.

        Args:
            more_tokens: number of tokens of the frame that will follow.
        """
        self._walk = self._new_walk(more_tokens)
        self._walk.encode(self._rows.steps)
        return Primed(self._learned, self._texts.follower, self._texts.pair_follower)


def _state(
    vocabulary: Vocabulary, rows: Rows, with_model: bool, primed: Primed | None, more_tokens: int = 0
) -> tuple[Learned, Texts]:
    """Returns what a frame begins with: nothing learnt, or what it is primed with."""
    texts = new_texts(rows.num_rows, rows.steps, vocabulary.tree.leaf_start, vocabulary.tree.leaf_bytes)
    if primed is not None:
        texts.follower[:] = primed.follower
        texts.pair_follower[:] = primed.pair_follower
        return primed.learned, texts
    return new_learned(vocabulary.tree.level, table_bits(rows.num_tokens + more_tokens), with_model), texts


class MixDecoder:
    """Decodes one frame step by step.

    Args:
        vocabulary: the tree of the tokens.
        payload: from `MixEncoder.finish`, or anything.
        num_tokens: N, the number of tokens.
        num_rows: R, as for the encoder.
        with_model: as for the encoder.
        primed: as for the encoder.

    Raises:
        EngineError: the mixer cannot be loaded here.
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
        self._learned, self._texts = _state(vocabulary, self._rows, with_model, primed)
        nothing = np.zeros(1, dtype=np.int64)
        known = Known(nothing.astype(np.int32), nothing, nothing.astype(np.int16), nothing, nothing.astype(np.int32))
        shape = vocabulary.shape(self._rows)
        self._walk = Walk(self._learned, self._texts, shape, known=known, with_model=with_model, payload=payload)
        self._step = 0

    def take(self, masses: np.ndarray, first_row: int = 0) -> None:
        """Takes the model's masses, (n, V) int32, of the next tokens of n rows; threads may share out the rows."""
        self._walk.take(masses, first_row)

    def decode(self, first_row: int, last_row: int) -> np.ndarray:
        """Decodes the next token of some rows whose masses were taken; all rows of a step, in their order.

        Args:
            first_row: first of the rows, a multiple of GROUP_ROWS.
            last_row: end of the rows, another multiple or the number of rows that take part in the step.

        Returns:
            (n,) int64 token ids.

        Raises:
            CorruptError: no encoder wrote the payload.
        """
        ids = self._walk.decode(first_row, last_row)
        if last_row == self._rows.active_rows(self._step):
            self._step += 1
        return ids

    def compiled_source(self) -> dict[str, int]:
        """Returns what compiled code needs to decode without Python, as long as this object lives.

        Returns:
            addresses of a `context` and of the functions `take` and `decode`.
        """
        functions = self._walk.functions
        take, decode = libraries.address_of(functions.take), libraries.address_of(functions.decode)
        return {"context": self._walk.address, "take": take, "decode": decode}

    def step(self, masses: np.ndarray | None) -> np.ndarray:
        """Decodes the next token of every row that takes part; `masses`: (rows, V) int32, None without a model."""
        if masses is not None:
            self.take(masses)
        return self.decode(0, self._rows.active_rows(self._step))
