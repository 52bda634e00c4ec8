"""The walk over a frame's decisions, by the compiled library (native/mixer.h). Must not know engines or files."""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import CorruptError, EngineError
from ..system import libraries
from .network import CHOICES, INPUTS, Network, network
from .state import MATCH_BITS, NUM_SCALARS, TOKENS, Known, Learned, Masses, Shape, Texts, new_masses
from .weights import MATCHES

FOLDER = Path(__file__).parent / "native"
LEVELS = ("portable", "avx2", "avx512")
"""Names of the levels by the numbers that the library gives them; every processor has the first."""

_STEM = "_mixer"

# Types of the library's arguments.
_P = ctypes.c_void_p
_N = ctypes.c_int64


class _Learned(ctypes.Structure):
    _fields_ = [
        *(
            (name, _P)
            for name in (
                "blocks", "state_map", "match_map", "weight", "updates", "final_weight", "output_weight", "node_map",
                "pair_map", "pair_row", "model_node_map", "model_match_map", "squash", "stretch", "rate", "successor",
                "seen", "seen_logit",
            )
        ),
        ("last_block", _N),
    ]  # fmt: skip


class _Network(ctypes.Structure):
    _fields_ = [(name, _P) for name in Network._fields]


class _Texts(ctypes.Structure):
    _fields_ = [(name, _P) for name in Texts._fields]


class _Tree(ctypes.Structure):
    _fields_ = [
        *((name, _P) for name in ("child", "bounds", "treelet", "slot", "token", "leaf", "block_of", "log", "octave")),
        *((name, _N) for name in ("rows", "full_steps", "long_rows", "steps", "vocab_size")),
    ]  # fmt: skip


class _Matches(ctypes.Structure):
    _fields_ = [("pointer", _P), ("length", _P), ("found", _P), ("base", _N)]


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


class _Samples(ctypes.Structure):
    _fields_ = [("sample", _P), ("room", _N), ("stride", _N), ("passed", _N)]


class _Mixer(ctypes.Structure):
    """`struct Mixer` of native/state.h."""

    _fields_ = [
        ("learned", _Learned), ("network", _Network), ("texts", _Texts), ("tree", _Tree), ("matches", _Matches),
        ("known", _Known), ("masses", _Masses), ("coder", Coder), ("samples", ctypes.POINTER(_Samples)),
        ("with_model", _N),
    ]  # fmt: skip


class Library:
    """The functions of native/mixer.h for one level of instructions. They run without Python's global lock."""

    def __init__(self, handle: ctypes.CDLL, level: str) -> None:
        self.level = level

        def function(name: str, *arguments: type, result: type | None = None) -> Any:
            symbol = getattr(handle, f"llmzip_mixer_{level}_{name}")
            symbol.argtypes, symbol.restype = (_P, *arguments), result
            return symbol

        self.take = function("take", _N, _P, _N)
        self.paths = function("paths", _N, _P, _P, _P)
        self.encode = function("encode", _N, _N, _P, _P, result=_N)
        self.begin = function("begin")
        self.decode = function("decode", _N, _N, _P, result=ctypes.c_int)


def load(level: str = "") -> tuple[ctypes.CDLL, str] | None:
    """Returns the library and a level, "" for the best one here; None if this processor lacks the level.

    Raises:
        EngineError: there is no library that can be loaded here.
    """
    handle_and_level = libraries.find(FOLDER, _STEM, LEVELS, level)
    if handle_and_level is None and not libraries.is_built(FOLDER, _STEM):
        raise EngineError(
            "llmzip's mixer cannot be loaded: its library is missing, from other sources or for another machine; "
            "install llmzip again: pip install --force-reinstall --no-deps llmzip, or in its sources pip install . "
            "(-e . to work on them)"
        )
    return handle_and_level


@functools.cache
def library(level: str = "") -> Library | None:
    """Returns the functions of a level, "" for the best one here; None if this processor lacks the level.

    Raises:
        EngineError: there is no library that can be loaded here.
    """
    handle_and_level = load(level)
    return None if handle_and_level is None else Library(*handle_and_level)


def chosen() -> Library:
    """Returns the functions to use: those that LLMZIP_KERNELS names, or the best ones here if it names none of them.

    With "none", which leaves out what was written for some instructions only, that is the portable level.

    Raises:
        EngineError: there is no library that can be loaded here.
        SettingsError: LLMZIP_KERNELS has an unknown value.
    """
    wanted = libraries.wanted()
    level = LEVELS[0] if wanted == libraries.NONE else wanted
    functions = library(level) or library()
    assert functions is not None  # every processor has the portable level
    return functions


class _Found(NamedTuple):
    """Where the match models found tokens last.

    Attributes:
        table: (MATCHES, 2^MATCH_BITS) int32: base plus the place after some tokens, by their hash.
        base: numbers up to this one come from earlier frames: a table is used again without being cleared.
    """

    table: np.ndarray
    base: int


_free: list[_Found] = []
"""Tables of walks that are over; many small frames should not clear 8 MB each."""

_MAX_FREE = 4


def _take_found(places: int) -> _Found:
    """Returns a table for a frame with so many places, which nothing else uses."""
    try:
        found = _free.pop()
    except IndexError:
        return _Found(np.zeros((MATCHES, 1 << MATCH_BITS), dtype=np.int32), 0)
    if found.base + places <= np.iinfo(np.int32).max:
        return found
    found.table[:] = 0
    return _Found(found.table, 0)


class Walk:
    """The walk over one frame's decisions, by the level of instructions that `chosen` returns.

    Args:
        learned, texts: what is known where the frame begins; both change.
        shape: the vocabulary's tree and the frame's rows.
        known: the encoder's tokens; a decoder passes (1,) zeros.
        with_model: whether there is a language model.
        decisions: (steps + 1,) int64, number of decisions before each step of an encoder's frame, and of all; None for
            a decoder.
        payload: the bytes to decode.

    Attributes:
        address: of `struct Mixer` in memory, for compiled callers; valid as long as this object.
        functions: of the library, each with this address as its first argument.

    Raises:
        EngineError: there is no library that can be loaded here.
    """

    def __init__(
        self,
        learned: Learned,
        texts: Texts,
        shape: Shape,
        *,
        known: Known,
        with_model: bool,
        decisions: np.ndarray | None = None,
        payload: bytes = b"",
    ) -> None:
        self.functions = chosen()
        self._rows, self._steps, self._with_model = shape.rows, shape.steps, with_model
        self._tokens = texts.scalar[TOKENS::NUM_SCALARS]
        self._vocab_size, self._num_tokens = shape.vocab_size, len(known.guess)
        decoding = decisions is None
        masses = new_masses(shape.rows if decoding and with_model else 0, shape.vocab_size)
        matches = (
            np.full((shape.rows, MATCHES), -1, dtype=np.int64),
            np.zeros((shape.rows, MATCHES), dtype=np.int64),
        )
        self._found = found = _take_found(shape.rows * shape.steps)
        self._alive = (learned, texts, shape, known, masses, matches, payload)
        self._mixer = _Mixer(
            _Learned(*_addresses(learned), len(learned.blocks) - 1),
            _Network(*_addresses(network())) if with_model else _Network(),
            _Texts(*_addresses(texts)),
            _Tree(*_addresses(shape[:9]), *shape[9:]),
            _Matches(*_addresses(matches), found.table.ctypes.data, found.base),
            _Known(*_addresses(known)),
            _Masses(*_addresses(masses)),
            Coder(0, 0, payload, 0, len(payload)),
            None,
            with_model,
        )
        self._reference = ctypes.byref(self._mixer)
        self.address = ctypes.addressof(self._mixer)
        if decoding:
            self.functions.begin(self._reference)
        self._decisions, self._step = decisions, 0

    def __del__(self) -> None:
        found = getattr(self, "_found", None)
        if found is not None and len(_free) < _MAX_FREE:
            _free.append(_Found(found.table, found.base + self._rows * self._steps))

    def new_room(self) -> tuple[Any, int]:
        """Returns what `paths` needs of a thread, and its address."""
        room = new_masses(1, self._vocab_size)
        structure = _Masses(*_addresses(room))
        return (room, structure), ctypes.addressof(structure)

    def paths(self, masses: np.ndarray, places: np.ndarray) -> None:
        """Stores the model's logits on the paths of known tokens, and its guesses; threads may share out the places.

        Args:
            masses: (n, V) int32 by token id.
            places: (n,) int64: positions of the tokens in the frame.

        Raises:
            IndexError: a place is outside the frame.
            ValueError: the masses have another shape.
        """
        places = np.ascontiguousarray(places, dtype=np.int64)
        if len(places) and not 0 <= places.min() <= places.max() < self._num_tokens:
            raise IndexError("no such token")
        (_keep, room), checked = self.new_room(), self._checked(masses, len(places))
        self.functions.paths(self._reference, len(places), checked.ctypes.data, places.ctypes.data, room)

    def encode(self, last_step: int) -> tuple[np.ndarray, np.ndarray]:
        """Walks up to a step, never back; the model's logits of all tokens before it must be stored.

        Returns:
            (n,) int32: the bits of the decisions from the step of the last call on; (n,) float32: their probabilities
            of a one.

        Raises:
            IndexError: the frame has fewer steps, or is a decoder's.
        """
        if last_step > self._steps or self._decisions is None:
            raise IndexError("no such step")
        last_step = max(last_step, self._step)
        count = int(self._decisions[last_step] - self._decisions[self._step])
        probability, bits = np.empty(count, dtype=np.float32), np.empty(count, dtype=np.int32)
        self.functions.encode(self._reference, self._step, last_step, *_addresses((probability, bits)))
        self._step = last_step
        return bits, probability

    def keep_samples(self, count: int, stride: int) -> np.ndarray:
        """Copies every `stride`-th of the decisions to come, up to `count`, for `tools/make_network.py`.

        Returns:
            (count, n) int16 that fills up from its beginning: what the network reads, its rows, and the bit.
        """
        samples = np.zeros((count, INPUTS + CHOICES + 1), dtype=np.int16)
        self._samples = samples, _Samples(samples.ctypes.data, count, stride, 0)
        self._mixer.samples = ctypes.pointer(self._samples[1])
        return samples

    def take(self, masses: np.ndarray, first_row: int) -> None:
        """Takes the masses, (n, V) int32, of the next tokens of n rows; threads may share out the rows.

        Raises:
            IndexError: the frame has no such rows, or there is no model.
            ValueError: the masses have another shape.
        """
        if not 0 <= first_row <= first_row + len(masses) <= self._rows or not self._with_model:
            raise IndexError("no such rows")
        self.functions.take(self._reference, len(masses), self._checked(masses, len(masses)).ctypes.data, first_row)

    def decode(self, first_row: int, last_row: int) -> np.ndarray:
        """Decodes the next token of some rows whose masses were taken: all rows of a step, then those of the next.

        Args:
            first_row: first of the rows, a multiple of GROUP_ROWS.
            last_row: end of the rows, another multiple or the end of all that take part in the step.

        Returns:
            (n,) int64 token ids.

        Raises:
            CorruptError: no encoder wrote this.
            IndexError: the frame has no such rows, or no further step.
        """
        if not 0 <= first_row <= last_row <= self._rows or (self._tokens[first_row:last_row] >= self._steps).any():
            raise IndexError("no such rows, or no such step")
        ids = np.empty(last_row - first_row, dtype=np.int64)
        if not self.functions.decode(self._reference, first_row, last_row, ids.ctypes.data):
            raise CorruptError("damaged: the compressed data fits no text")
        return ids

    def _checked(self, masses: np.ndarray, count: int) -> np.ndarray:
        """Returns masses as the library reads them; it checks nothing itself."""
        if masses.shape != (count, self._vocab_size):
            raise ValueError(f"masses of shape {masses.shape}, not {(count, self._vocab_size)}")
        return np.ascontiguousarray(masses, dtype=np.int32)


def _addresses(arrays: tuple[np.ndarray, ...]) -> list[int]:
    """Returns where the data of contiguous arrays begin in memory."""
    return [array.ctypes.data for array in arrays]
