"""The mixer for one frame: from tokens and masses to a payload and back; must not know engines, rows of text or files.

Rows share everything that is learnt. Encoder and decoder run the same walk (docs/numerics.md section 10).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..coder import Decoder, Encoder
from ..plan import Rows
from .compiled import announce_compiling
from .contexts import Texts, new_texts
from .masses import new_masses, path_logits, take_masses
from .predictor import Learned, new_decision, new_learned
from .vocabulary import Vocabulary
from .walk import GROUP_ROWS, Known, new_scratch, walk

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
    """Encodes one frame. First `add` for all tokens, if there is a model; then `finish`, or `learn`.

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
        announce_compiling()
        self._primed = primed
        self._vocabulary = vocabulary
        self._rows = Rows(len(tokens), num_rows)
        self._shape = vocabulary.shape(self._rows)
        self._leaf = vocabulary.tree.leaf[tokens]
        depth = np.diff(vocabulary.path_start)[self._leaf]
        self._decisions = int(depth.sum())
        self._known = Known(
            self._leaf.astype(np.int32),
            np.array(self._rows.row_starts(), dtype=np.int64),
            np.zeros(self._decisions if with_model else 1, dtype=np.int16),
            np.concatenate([[0], np.cumsum(depth)]).astype(np.int64),
            np.zeros(len(tokens), dtype=np.int32),
        )
        self._with_model = with_model
        self._masses = new_masses(1, vocabulary.size)

    def add(self, places: np.ndarray, masses: np.ndarray) -> None:
        """The model's masses of some of the tokens.

        Args:
            places: (n,) int64: which tokens; masses: (n, V) int32.
        """
        known, leaves = self._known, self._leaf[places]
        path_logits(masses, leaves, places, self._shape, self._masses, known.logit, known.logit_start, known.guess)

    def finish(self, progress: Callable[[int], None] | None = None) -> tuple[bytes, float]:
        """The payload, and the ideal length of its decisions in bits.

        Args:
            progress: called with the number of tokens of each step.
        """
        learned, texts = _state(self._vocabulary, self._rows, self._primed)
        probability, bits = self._walk(learned, texts, progress)
        encoder = Encoder()
        encoder.encode_bits(bits, probability)
        ideal = -float(np.log2(np.where(bits, probability, 1 - probability).astype(np.float64)).sum())
        return encoder.finish(), ideal

    def learn(self, more_tokens: int) -> Primed:
        """What the mixer knows after these tokens; nothing is coded.

        Args:
            more_tokens: of the frame that is to follow.
        """
        learned, texts = _state(self._vocabulary, self._rows, self._primed, more_tokens)
        self._walk(learned, texts, None)
        return Primed(learned, texts.follower)

    def _walk(
        self, learned: Learned, texts: Texts, progress: Callable[[int], None] | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities and bits of all decisions."""
        shape = self._shape
        probability = np.zeros(self._decisions, dtype=np.float32)
        bits = np.zeros(self._decisions, dtype=np.int32)
        arguments = (  # the compiled walk does not keep them alive
            learned,
            texts,
            new_scratch(shape.rows),
            new_decision(GROUP_ROWS),
            shape,
            self._known,
            self._masses,
            True,
            self._with_model,
            probability,
            bits,
        )
        for step, _ in enumerate(walk(*arguments)):
            if progress is not None:
                progress(self._rows.active_rows(step))
        return probability, bits


def _state(vocabulary: Vocabulary, rows: Rows, primed: Primed | None, more_tokens: int = 0) -> tuple[Learned, Texts]:
    """Where a frame begins: knowing nothing, or what it was primed with."""
    texts = new_texts(rows.num_rows, rows.steps, vocabulary.leaf_bytes)
    if primed is not None:
        texts.follower[:] = primed.follower
        return primed.learned, texts
    return new_learned(len(vocabulary.tree.slot), table_bits(rows.num_tokens + more_tokens)), texts


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
        announce_compiling()
        self._rows = Rows(num_tokens, num_rows)
        self._shape = shape = vocabulary.shape(self._rows)
        learned, self._texts = _state(vocabulary, self._rows, primed)
        self._token = vocabulary.tree.token
        self._decoder = Decoder(payload)
        self._masses = new_masses(num_rows if with_model else 1, vocabulary.size)
        self._probability = np.zeros(GROUP_ROWS, dtype=np.float32)
        self._bits = np.zeros(GROUP_ROWS, dtype=np.int32)
        nothing = np.zeros(1, dtype=np.int64)
        self._arguments = (  # the compiled walk does not keep them alive
            learned,
            self._texts,
            new_scratch(num_rows),
            new_decision(GROUP_ROWS),
            shape,
            Known(nothing.astype(np.int32), nothing, nothing.astype(np.int16), nothing, nothing.astype(np.int32)),
            self._masses,
            False,
            with_model,
            self._probability,
            self._bits,
        )
        self._walk = walk(*self._arguments)
        next(self._walk)
        self._step = 0

    def step(self, masses: np.ndarray | None) -> np.ndarray:
        """The next token of every row that takes part.

        Args:
            masses: (n, V) int32, n the number of these rows; None without a model.

        Returns:
            (n,) int64.

        Raises:
            CorruptError: the payload fits no text.
        """
        if masses is not None:
            take_masses(masses, self._shape, self._masses)
        probability, bits, decoder = self._probability, self._bits, self._decoder
        for asked in self._walk:
            if asked == 0:
                break
            bits[:asked] = decoder.decode_bits(probability[:asked])
        steps = self._shape.steps
        leaves = self._texts.history[self._step : self._rows.active_rows(self._step) * steps : steps]
        self._step += 1
        tokens: np.ndarray = self._token[leaves]
        return tokens
