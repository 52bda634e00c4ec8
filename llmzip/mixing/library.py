"""The walk by the compiled library of native/mixer.h; must not know engines, rows of text or files."""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CorruptError
from ..system import libraries
from .state import MATCH_BITS, MATCHES, NUM_SCALARS, TOKENS, Known, Learned, Masses, Texts, new_masses
from .vocabulary import Shape

FOLDER = Path(__file__).parent / "native"
LEVELS = ("portable", "avx2", "avx512")

_P, _N = ctypes.c_void_p, ctypes.c_int64


class _Learned(ctypes.Structure):
    _fields_ = [
        *(
            (name, _P)
            for name in (
                "blocks", "state_map", "match_map", "weight", "updates", "final_weight", "node_map", "pair_map",
                "squash", "stretch", "rate", "successor", "seen",
            )
        ),
        ("last_block", _N),
    ]  # fmt: skip


class _Texts(ctypes.Structure):
    _fields_ = [(name, _P) for name in Texts._fields]


class _Tree(ctypes.Structure):
    _fields_ = [
        *(
            (name, _P)
            for name in (
                "child", "bounds", "treelet", "slot", "token", "leaf", "path_start", "path_step", "log", "octave",
            )
        ),
        *((name, _N) for name in ("rows", "full_steps", "long_rows", "steps", "vocab_size")),
    ]  # fmt: skip


class _Matches(ctypes.Structure):
    _fields_ = [("pointer", _P), ("length", _P), ("found", _P)]


class _Known(ctypes.Structure):
    _fields_ = [(name, _P) for name in Known._fields]


class _Masses(ctypes.Structure):
    _fields_ = [(name, _P) for name in Masses._fields]


class Coder(ctypes.Structure):
    """`struct Coder` of native/state.h."""

    _fields_ = [
        ("difference", ctypes.c_uint64), ("range", ctypes.c_uint64), ("code", ctypes.c_char_p),
        ("at", _N), ("size", _N),
    ]  # fmt: skip


class _Mixer(ctypes.Structure):
    """`struct Mixer` of native/state.h."""

    _fields_ = [
        ("learned", _Learned), ("texts", _Texts), ("tree", _Tree), ("matches", _Matches), ("known", _Known),
        ("masses", _Masses), ("coder", Coder), ("with_model", _N),
    ]  # fmt: skip


class Library:
    """The functions of native/mixer.h for one instruction set; they leave Python's lock to others."""

    def __init__(self, loaded: ctypes.CDLL, level: str) -> None:
        self.level = level

        def function(name: str, *arguments: type, result: type | None = None) -> Any:
            found = getattr(loaded, f"llmzip_mixer_{level}_{name}")
            found.argtypes, found.restype = (_P, *arguments), result
            return found

        self.take = function("take", _N, _P, _N)
        self.paths = function("paths", _N, _P, _P, _P)
        self.encode = function("encode", _N, _N, _P, _P, result=_N)
        self.begin = function("begin")
        self.decode = function("decode", _N, _N, result=ctypes.c_int)


@functools.cache
def library(level: str = "") -> Library | None:
    """The functions of a level, "" for the best that this processor has; None if there are none."""
    found = libraries.find(FOLDER, "_mixer", LEVELS, level)
    return None if found is None else Library(*found)


def chosen() -> Library | None:
    """The functions to use; LLMZIP_KERNELS is that of the engine's kernels."""
    wanted = libraries.wanted()
    if wanted == libraries.NONE:
        return None
    return library("avx512" if wanted == "amx" else wanted)


class NativeWalk:
    """One frame's walk.

    Args:
        found: the library's functions.
        learned, texts: where the frame begins; both change.
        shape: the vocabulary's tree and the frame's rows.
        known: what an encoder knows, a decoder's has (1,) zeros.
        with_model: whether there is a language model.
        decisions: of all tokens of an encoder's frame; None for a decoder.
        payload: a decoder's.

    Attributes:
        probability: (decisions,) float32 of ones, bits: (decisions,) int32: an encoder's, as far as `encode` went.
    """

    def __init__(
        self,
        found: Library,
        learned: Learned,
        texts: Texts,
        shape: Shape,
        known: Known,
        with_model: bool,
        decisions: int | None = None,
        payload: bytes = b"",
    ) -> None:
        self._library, self._rows, self._steps, self._with_model = found, shape.rows, shape.steps, with_model
        self._tokens = texts.scalar[TOKENS::NUM_SCALARS]
        self._vocab_size, self._num_tokens = shape.vocab_size, len(known.guess)
        decoding = decisions is None
        masses = new_masses(shape.rows if decoding and with_model else 1, shape.vocab_size)
        matches = (
            np.full((shape.rows, MATCHES), -1, dtype=np.int64),
            np.zeros((shape.rows, MATCHES), dtype=np.int64),
            np.zeros((MATCHES, 1 << MATCH_BITS), dtype=np.int32),
        )
        self._keep = (learned, texts, shape, known, masses, matches, payload)
        self._mixer = _Mixer(
            _Learned(*_addresses(learned), len(learned.blocks) - 1),
            _Texts(*_addresses(texts)),
            _Tree(*_addresses(shape[:10]), *shape[10:]),
            _Matches(*_addresses(matches)),
            _Known(*_addresses(known)),
            _Masses(*_addresses(masses)),
            Coder(0, 0, payload, 0, len(payload)),
            with_model,
        )
        self._here = ctypes.byref(self._mixer)
        if decoding:
            found.begin(self._here)
        self.probability = np.zeros(decisions or 0, dtype=np.float32)
        self.bits = np.zeros(decisions or 0, dtype=np.int32)
        self._step = self._done = 0

    def paths(self, masses: np.ndarray, places: np.ndarray) -> None:
        """Notes the model's logits on the paths of known tokens, and its guesses; any thread may, for its own places.

        Args:
            masses: (n, V) int32 by token id; places: (n,) int64: which tokens.
        """
        places = np.ascontiguousarray(places, dtype=np.int64)
        if len(places) and not 0 <= places.min() <= places.max() < self._num_tokens:
            raise IndexError("no such token")
        room = new_masses(1, self._vocab_size)
        given = self._checked(masses, len(places))
        self._library.paths(
            self._here, len(places), given.ctypes.data, places.ctypes.data, ctypes.byref(_Masses(*_addresses(room)))
        )

    def encode(self, last_step: int) -> None:
        """Walks on up to a step, but never back; the model's logits of the tokens before it must be there."""
        if last_step > self._steps:
            raise IndexError("no such step")
        if last_step <= self._step:
            return
        at = self._done
        self._done += self._library.encode(
            self._here, self._step, last_step, self.probability[at:].ctypes.data, self.bits[at:].ctypes.data
        )
        self._step = last_step

    def take(self, masses: np.ndarray, first_row: int) -> None:
        """Takes the masses, (n, V) int32, of the next tokens of n rows; any thread may, for its own rows."""
        if not 0 <= first_row <= first_row + len(masses) <= self._rows or not self._with_model:
            raise IndexError("no such rows")
        self._library.take(self._here, len(masses), self._checked(masses, len(masses)).ctypes.data, first_row)

    def decode(self, first_row: int, last_row: int) -> None:
        """Decodes the next token of some rows, whose masses must be there; all rows of a step, then those of the next.

        Args:
            first_row: a multiple of GROUP_ROWS; last_row: another one, or the last that takes part.

        Raises:
            CorruptError: no encoder wrote this.
        """
        if not 0 <= first_row <= last_row <= self._rows or (self._tokens[first_row:last_row] >= self._steps).any():
            raise IndexError("no such rows, or no such step")
        if not self._library.decode(self._here, first_row, last_row):
            raise CorruptError("damaged: the compressed data fits no text")

    def _checked(self, masses: np.ndarray, count: int) -> np.ndarray:
        """Masses as the library reads them: it looks nowhere."""
        if masses.shape != (count, self._vocab_size):
            raise ValueError(f"masses of shape {masses.shape}, not {(count, self._vocab_size)}")
        return np.ascontiguousarray(masses, dtype=np.int32)


def _addresses(arrays: tuple[np.ndarray, ...]) -> list[int]:
    return [array.ctypes.data for array in arrays]
