"""The compiled kernels of native/kernels.h: the library, its functions and structures; must not know models.

The environment variable LLMZIP_KERNELS chooses the kernels of one instruction set ("avx2", "avx512", "amx") or no
kernels ("none"); the bits are the same.
"""

from __future__ import annotations

import ctypes
import functools
import platform
from pathlib import Path
from typing import Any

import numpy as np

from ...models.matrix import Int8Matrix, to_tiles
from ...system import libraries

LEVELS = ("", "avx2", "avx512", "amx")
"""Instruction sets by the level that the library reports; 0 stands for none of them."""

FOLDER, STEM = libraries.KERNELS
"""Where the library and its sources are, and how its file name begins."""

LANES = 16
"""Values that sizes of models are padded to a multiple of; outputs of a matrix that are packed together."""

TERMS = {"amx": 64}
"""Values that the terms of matrices are padded to a multiple of, where that is more than LANES."""

MAX_TOKENS = 128
"""MAX_TOKENS of native/lanes.h: tokens that go through the layers together. Their sums stay in the cache of a core."""

HEAD_OUTPUTS = 768
"""HEAD_OUTPUTS of native/head.h: outputs of the head that buffers must have room for."""

_P, _N, _F = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float


class Matrix(ctypes.Structure):
    """`struct Matrix` of native/model.h."""

    _fields_ = [("packed", _P), ("sums", _P), ("scale", _P), ("bias", _P), ("outputs", _N), ("terms", _N)]


class Norm(ctypes.Structure):
    """`struct Norm` of native/model.h."""

    _fields_ = [("weight", _P), ("bias", _P)]


class Layer(ctypes.Structure):
    """`struct Layer` of native/model.h."""

    _fields_ = [
        ("input_norm", Norm), ("post_norm", Norm), ("attention_post_norm", Norm), ("mlp_post_norm", Norm),
        ("qk_norm", _P), ("qkv", Matrix), ("out", Matrix), ("gate_up", Matrix), ("down", Matrix), ("window", _N),
        ("rope", _N),
    ]  # fmt: skip


class Model(ctypes.Structure):
    """`struct Model` of native/model.h."""

    _fields_ = [
        *(
            (name, _N)
            for name in (
                "hidden", "width", "mlp", "dim", "heads", "kv_heads", "layers", "vocab", "query_max", "planes",
                "centres", "activation", "gated", "parallel",
            )
        ),
        *(
            (name, _F)
            for name in (
                "eps", "inverse_hidden", "inverse_dim", "inverse_query_max", "attention_factor", "log2e", "gain",
                "gelu_first", "gelu_third", "attention_cap", "attention_slope", "logit_cap", "logit_slope",
            )
        ),
        *((name, _P) for name in ("embedding", "embedding_scale", "positions", "positions_scale")),
        ("final_norm", Norm),
        ("octave", _P),
        ("floor_bits", _N),
        ("normal", _P),
        ("head", Matrix),
        ("layer", ctypes.POINTER(Layer)),
    ]  # fmt: skip


class Store(ctypes.Structure):
    """`struct Store` of native/model.h."""

    _fields_ = [
        *((name, _P) for name in ("keys", "values", "key_scale", "value_scale", "peak")), ("slots", _N), ("slot", _N),
    ]  # fmt: skip


class Room(ctypes.Structure):
    """`struct Room` of native/model.h."""

    _fields_ = [
        (name, _P)
        for name in (
            "x", "y", "lines", "scale", "peak", "row", "z", "weights", "queries", "query_scale", "value_peak",
        )
    ]  # fmt: skip


class Library:
    """The kernels for one instruction set.

    Args:
        loaded: the shared library.
        level: one of LEVELS.

    Attributes:
        forward, masses: the functions of native/kernels.h; other threads of Python run meanwhile.
        failed: whether they gave other bits than torch in the self-test.
    """

    def __init__(self, loaded: ctypes.CDLL, level: str) -> None:
        self.level, self.failed, self._loaded = level, False, loaded
        self.forward = getattr(loaded, f"llmzip_{level}_forward")
        self.forward.argtypes, self.forward.restype = (_P, _N, _N, _P, _N, _P, _P, _P, _P, _P), None
        self.masses = getattr(loaded, f"llmzip_{level}_masses")
        self.masses.argtypes, self.masses.restype = (_P, _N, _P, _P, _N, _P), None
        self._sums = getattr(loaded, f"llmzip_{level}_sums")
        self._sums.argtypes, self._sums.restype = (_N, _N, _N, _P, _P, _P), None
        self._group_bounds = getattr(loaded, f"llmzip_{level}_group_bounds")
        self._group_bounds.argtypes, self._group_bounds.restype = (_N, _N, _N, _N, _P, _P, _P), None
        self._symbol_bounds = getattr(loaded, f"llmzip_{level}_symbol_bounds")
        self._symbol_bounds.argtypes, self._symbol_bounds.restype = (_N, _N, _N, _N, _P, _P, _P, _N, _P), None

    def function(self, name: str) -> Any:
        """Returns a function that is the same for all instruction sets, by its whole name."""
        return getattr(self._loaded, name)

    def address(self, name: str) -> int:
        """Returns the address of one of the level's functions, for compiled code that calls it."""
        return self.address_of(f"llmzip_{self.level}_{name}")

    def address_of(self, name: str) -> int:
        """Returns the address of a function by its whole name."""
        return libraries.address_of(self.function(name))

    def sums_around(self, masses: np.ndarray, tokens: np.ndarray, group_size: int) -> np.ndarray:
        """Sums the masses around known tokens, as `Frequencies.sums` does, and always computes their ranks."""
        masses, tokens = np.ascontiguousarray(masses), np.ascontiguousarray(tokens)
        if masses.shape[0] != len(tokens):
            raise ValueError(f"{len(tokens)} tokens for {masses.shape[0]} rows of masses")
        if len(tokens) and not 0 <= tokens.min() <= tokens.max() < masses.shape[1]:
            raise IndexError(f"tokens outside a vocabulary of {masses.shape[1]}")
        sums = np.empty((len(tokens), 6), dtype=np.int64)
        self._sums(len(tokens), masses.shape[1], group_size, *_addresses(masses, tokens, sums))
        return sums

    def group_bounds(self, masses: np.ndarray, group_size: int, units: int) -> tuple[np.ndarray, np.ndarray]:
        """Computes `Frequencies.group_bounds`; `units`: the sum of all frequencies, less V; 0 for tables by weights."""
        masses = np.ascontiguousarray(masses)
        rows, vocab = masses.shape
        sums, bounds = np.empty((2, rows, -(-vocab // group_size) + 1), dtype=np.int64)
        self._group_bounds(rows, vocab, group_size, units, *_addresses(masses, sums, bounds))
        return sums, bounds

    def symbol_bounds(
        self, masses: np.ndarray, sums: np.ndarray, groups: np.ndarray, *, group_size: int, units: int, stretch: bool
    ) -> np.ndarray:
        """Computes `Frequencies.symbol_bounds`, or without `stretch` `Frequencies.inner_bounds`; `units` as before."""
        masses, sums, groups = (np.ascontiguousarray(array) for array in (masses, sums, groups))
        rows, vocab = masses.shape
        if sums.shape != (rows, -(-vocab // group_size) + 1) or groups.shape != (rows,):
            raise ValueError(f"sums of shape {sums.shape} and groups of {groups.shape} for {rows} rows")
        if rows and not 0 <= groups.min() <= groups.max() < sums.shape[1] - 1:
            raise IndexError(f"groups outside of {sums.shape[1] - 1}")
        out = np.empty((rows, group_size + 1), dtype=np.int64)
        self._symbol_bounds(rows, vocab, group_size, units, *_addresses(masses, sums, groups), stretch, out.ctypes.data)
        return out


@functools.cache
def library(level: str) -> Library | None:
    """Returns the kernels of a level, or None if they were not built or the processor lacks it.

    Args:
        level: one of LEVELS; "" for the best that the processor has.
    """
    loaded_level = libraries.find(FOLDER, STEM, LEVELS, level)
    return None if loaded_level is None else Library(*loaded_level)


def chosen() -> tuple[Library | None, str]:
    """Returns the kernels to use; or None and the reason."""
    level = libraries.wanted()
    if level == libraries.NONE:
        return None, f"{libraries.VARIABLE}=none"
    kernels = library(level)
    if kernels is None:
        return None, _why_none(FOLDER)
    return (None, "they failed their self-test") if kernels.failed else (kernels, "")


@functools.cache
def _why_none(folder: Path) -> str:
    """Says why there is no library of the wanted level; only where one can be built, it advises an installation."""
    machine = platform.machine() or "unknown"
    if machine.lower() not in libraries.MACHINES:
        return f"there are none for this kind of processor, {machine}"
    if libraries.is_built(folder, STEM):
        return "this processor lacks the instructions that they need"
    return "not built, or from other sources: install llmzip again"


def padded(array: np.ndarray, axis: int, parts: int = 1, multiple: int = LANES) -> np.ndarray:
    """Returns an array whose axis consists of equal parts, each padded with zeros; the array itself if none needs it.

    Args:
        array: of any type.
        axis: 0, or 1 of a matrix.
        parts: how many there are.
        multiple: the size of a part is padded to a multiple of it.
    """
    size = array.shape[axis] // parts
    missing = -size % multiple
    if not missing:
        return array
    before, after = array.shape[:axis], array.shape[axis + 1 :]
    out = np.zeros((*before, parts, size + missing, *after), dtype=array.dtype)
    out[(slice(None),) * (axis + 1) + (slice(size),)] = array.reshape(*before, parts, size, *after)
    return out.reshape(*before, parts * (size + missing), *after)


class Packed:
    """A matrix of weights in the layout of the kernels.

    Args:
        weight_q: (N, K) int8; its tiles are used as they are, wherever no padding is needed.
        scale: (N,) float32.
        bias: (N,) float32, or None.
        parts: of outputs and of terms, each of which is padded: the heads, or the halves of a gated MLP.
        level: one of LEVELS.

    Attributes:
        matrix: the structure for the kernels; it points to arrays that live as long as this object.
    """

    def __init__(
        self,
        weight_q: Int8Matrix,
        scale: np.ndarray,
        bias: np.ndarray | None = None,
        *,
        parts: tuple[int, int] = (1, 1),
        level: str,
    ) -> None:
        outputs, terms = parts
        rows, columns = weight_q.shape
        if rows % (outputs * LANES) or columns % (terms * LANES) or columns % TERMS.get(level, LANES):
            whole = padded(padded(weight_q.rows, 0, outputs), 1, terms)
            whole = np.ascontiguousarray(padded(whole, 1, multiple=TERMS.get(level, LANES)))
            (rows, columns), self._packed = whole.shape, to_tiles(whole)
        else:
            self._packed = weight_q.tiles if weight_q.can_be_tiled else to_tiles(weight_q.rows)
        # Along whole tiles first: ten times as fast as along the four terms.
        sums = self._packed.reshape(rows // LANES, -1, LANES * 4).sum(1, dtype=np.int32).reshape(rows, 4).sum(1)
        self._sums = sums.astype(np.int32) * np.int32(128)
        self._scale = np.ascontiguousarray(padded(scale, 0, outputs))
        self._bias = None if bias is None else np.ascontiguousarray(padded(bias, 0, outputs))
        addresses = map(address, (self._packed, self._sums, self._scale))
        self.matrix = Matrix(*addresses, None if self._bias is None else address(self._bias), rows, columns)


def address(array: np.ndarray) -> int:
    """Returns where a contiguous array is."""
    place: int = array.ctypes.data
    return place


def _addresses(*arrays: np.ndarray) -> tuple[int, ...]:
    return tuple(array.ctypes.data for array in arrays)
