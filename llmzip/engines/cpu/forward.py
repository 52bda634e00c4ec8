"""The forward pass on CPUs by compiled kernels, with the same bits as reference.py; must not know text or files.

native/kernels.h takes some tokens through all layers, so that everything between two products goes through the cache
once (docs/numerics.md section 6). Rows are distributed over threads. The kernels compute every model; `build` says why
where there are none: plain torch then computes.
"""

from __future__ import annotations

import ctypes
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...models.config import ACTIVATIONS, ExactConfig
from ...numerics import scalars, tables
from ...system.forks import Lock
from ...system.threads import workers
from ..kv_cache import CachedLayer, LayerCaches
from ..operands import Operands, normal_table
from . import kernels
from .kernels import (
    HEAD_OUTPUTS,
    LANES,
    MAX_TOKENS,
    TERMS,
    Layer,
    Library,
    Matrix,
    Model,
    Norm,
    Packed,
    Room,
    Store,
    address,
)

if TYPE_CHECKING:
    from ...models.model import ExactModel

_BLOCK = 16
"""Positions of a block of keys."""

_MIN_TOKENS = 16
"""Tokens that are worth a thread: with fewer, it takes longer to read the weights than to compute."""

_MIN_HEAD_ROWS = 16
"""Rows of masses that are worth a thread, for the same reason."""

_MIN_SLOTS = 1024
"""Slots that buffers have room for, so that most caches can use the same ones."""

_MAX_QUERY = 32767
"""Largest quantised query, an int16. Only heads of 2 values, which no known model has, would have larger ones."""


def build(model: ExactModel, operands: Operands) -> tuple[CpuForward | None, str]:
    """Returns the compiled kernels with a model; or None and the reason.

    Args:
        model: with its weights in memory.
        operands: those of the model.
    """
    library, reason = kernels.chosen()
    if library is None:
        return None, reason
    if scalars.query_max(model.config.head_dim) > _MAX_QUERY:
        return None, f"the model has heads of {model.config.head_dim} values"
    return CpuForward(model, library, operands), ""


def _up(size: int, multiple: int = LANES) -> int:
    """Rounds a size up to a multiple."""
    return -(-size // multiple) * multiple


# -- keys and values ---------------------------------------------------------------------------------------------------


class CpuLayer(CachedLayer):
    """The cache of one layer: keys (B, G, S / 16, D / 2, 16, 2) int8, values (B, G, S / 4, D, 4) int8.

    The kernels for AVX-512 use the memory of a block of keys as (D / 4, 16, 4). `value_peak` has an entry for each
    slot, so that a shorter length takes positions back.
    """

    def slot(self, position: int, new: int) -> int:
        """Returns the first slot for new positions; drops positions that no later token sees if it needs room."""
        at, slots = position - self.begin, self.key_scale.shape[2]
        if at + new > slots and self.window:
            # At least one position stays before the new ones, from whose entry of `value_peak` they continue.
            gone = (at - self.window) // _BLOCK * _BLOCK
            for store, unit in (
                (self.keys, _BLOCK), (self.values, 4), (self.key_scale, 1), (self.value_scale, 1), (self.value_peak, 1),
            ):  # fmt: skip
                kept, first = -(-(at - gone) // unit), gone // unit
                store[:, :, :kept] = store[:, :, first : first + kept].copy()
            self.begin, at = self.begin + gone, at - gone
        if at + new > slots:  # the kernels check no index
            raise IndexError(f"{at + new} positions in a cache of {slots}")
        return at

    def store(self) -> Store:
        """Describes the cache to the kernels; its rows must be contiguous. The slot of the first token is 0."""
        arrays = (self.keys, self.values, self.key_scale, self.value_scale, self.value_peak)
        return Store(*map(address, arrays), self.key_scale.shape[2], 0)


class CpuCache(LayerCaches[CpuLayer]):
    """The cache of the kernels."""

    def __init__(self, layers: list[CpuLayer], length: int = 0) -> None:
        super().__init__(layers, length)
        self._stores: dict[tuple[int, int], ctypes.Array[Store]] = {}

    @property
    def slots(self) -> int:
        """Number of slots of the layer that has most."""
        slots: int = max(layer.key_scale.shape[2] for layer in self.layers)
        return slots

    def stores(self, first: int, last: int) -> ctypes.Array[Store]:
        """Describes rows `first` to `last` - 1 of all layers to the kernels; each step asks for the same ones."""
        stores = self._stores.get((first, last))
        if stores is None:
            layers = [layer.rows(slice(first, last)).store() for layer in self.layers]
            stores = self._stores[first, last] = (Store * len(layers))(*layers)
        return stores


def _new_cache(config: ExactConfig, rows: int, slots: Sequence[int]) -> CpuCache:
    """Returns an empty cache.

    Args:
        config: of the model.
        rows: B.
        slots: positions that each layer keeps at least; whole blocks are allocated, and one more for a window, so that
            whole blocks can be dropped.
    """
    heads, dim = config.num_kv_heads, _up(config.head_dim)
    sizes = [
        _up(positions, _BLOCK) + (_BLOCK if window else 0)
        for window, positions in zip(config.windows, slots, strict=True)
    ]
    # One allocation, for which numpy requests large pages: a step of many rows touches all of it.
    integers = np.zeros(2 * rows * heads * dim * sum(sizes), dtype=np.int8)
    layers, at = [], 0
    for window, size in zip(config.windows, sizes, strict=True):
        count = rows * heads * size * dim
        keys = integers[at : at + count].reshape(rows, heads, size // _BLOCK, dim // 2, _BLOCK, 2)
        values = integers[at + count : at + 2 * count].reshape(rows, heads, size // 4, dim, 4)
        key_scale, value_scale, value_peak = np.zeros((3, rows, heads, size), dtype=np.float32)
        layers.append(CpuLayer(keys, values, key_scale, value_scale, value_peak, window))
        at += 2 * count
    return CpuCache(layers)


# -- the forward pass ------------------------------------------------------------------------------------------------


class _Buffers:
    """Memory that the kernels work in, for one thread at a time; attention may see up to `slots` slots."""

    def __init__(self, config: ExactConfig, slots: int) -> None:
        n, dim, width, mlp = MAX_TOKENS, _up(config.head_dim), _up(config.hidden_size), _up(config.mlp_size)
        heads = config.num_heads * dim
        outputs = max(heads + 2 * config.num_kv_heads * dim, (1 + config.gated) * mlp, width, HEAD_OUTPUTS)
        inputs = _up(max(width, mlp, heads), max(TERMS.values()))
        self.slots = slots

        def room(size: int, dtype: Any = np.float32) -> np.ndarray:
            return np.zeros(size, dtype=dtype)

        self.x = room(n * width).reshape(n, width)
        self._keep = (
            self.x, room(n * outputs), room(n * config.planes * inputs, np.int16), room(n), room(n),
            room(max(width, mlp, 4 * heads) + LANES), room(4 * (slots + 2 * LANES)),
            room(12 * (slots + 2 * LANES), np.uint8), room(n * heads, np.int16), room(n * config.num_heads),
            room(n * config.num_kv_heads),
        )  # fmt: skip
        self._room = Room(*map(address, self._keep))
        self.room, self.address = ctypes.byref(self._room), ctypes.addressof(self._room)


class _Structures:
    """The structures that describe a model to the kernels; it keeps alive the arrays that they point to.

    Args:
        model: with its weights in memory.
        level: the instruction set.
    """

    def __init__(self, model: ExactModel, level: str) -> None:
        self._model, self._level = model, level
        self._keep: list[Any] = []

    def model_of(self, operands: Operands) -> Model:
        """Returns the structure of the model."""
        model, config = self._model, self._model.config
        layers = [
            self._layer(number, operands.qk_norms[number], len(operands.ropes)) for number in range(config.num_layers)
        ]
        query_max = scalars.query_max(config.head_dim)
        octave = np.array(tables.exp2_octave(), dtype=np.int32)
        caps = [tables.cap_factors(cap) if cap else (0.0, 0.0) for cap in (config.attention_cap, config.logit_cap)]
        normal = normal_table() if config.activation == "gelu" else None
        return Model(
            config.hidden_size, _up(config.hidden_size), _up(config.mlp_size), _up(config.head_dim), config.num_heads,
            config.num_kv_heads, len(layers), config.vocab_size, query_max, config.planes, config.norm == "layer",
            ACTIVATIONS.index(config.activation), config.gated, config.parallel, config.norm_eps,
            scalars.inverse(config.hidden_size), scalars.inverse(config.head_dim), scalars.inverse(query_max),
            tables.attention_factor(config.head_dim, config.attention_scale), tables.log2e_steps(),
            config.embedding_gain, *tables.gelu_factors(), *caps[0], *caps[1], self._at(model.embedding_q),
            self._at(model.embedding_scale), self._at(model.positions_q), self._at(model.positions_scale),
            self._norm(model.final_norm, model.final_norm_bias), self._at(octave), config.floor_bits, self._at(normal),
            self._packed(model.head_q, model.head_scale), (Layer * len(layers))(*layers),
        )  # fmt: skip

    def _layer(self, number: int, qk_norm: np.ndarray | None, ropes: int) -> Layer:
        config, weights = self._model.config, self._model.layers[number]
        heads, window = config.num_heads, config.windows[number]
        if qk_norm is not None:
            qk_norm = kernels.padded(qk_norm, 1)
        return Layer(
            self._norm(weights.input_norm, weights.input_norm_bias),
            self._norm(weights.post_norm, weights.post_norm_bias), self._norm(weights.attention_post_norm),
            self._norm(weights.mlp_post_norm), self._at(qk_norm),
            self._packed(weights.qkv_q, weights.qkv_scale, weights.qkv_bias, (heads + 2 * config.num_kv_heads, 1)),
            self._packed(weights.out_q, weights.out_scale, weights.out_bias, (1, heads)),
            self._packed(weights.gate_up_q, weights.gate_up_scale, weights.gate_up_bias, (1 + config.gated, 1)),
            self._packed(weights.down_q, weights.down_scale, weights.down_bias), window,
            -1 if number in config.unrotated else ropes - 1 if window else 0,
        )  # fmt: skip

    def _packed(self, weight_q: Any, scale: Any, bias: Any = None, parts: tuple[int, int] = (1, 1)) -> Matrix:
        bias = None if bias is None else np.asarray(bias)
        packed = Packed(weight_q, np.asarray(scale), bias, parts=parts, level=self._level)
        self._keep.append(packed)
        return packed.matrix

    def _norm(self, weight: Any, bias: Any = None) -> Norm:
        arrays = (None if weights is None else kernels.padded(np.asarray(weights), 0) for weights in (weight, bias))
        return Norm(*(self._at(array) for array in arrays))

    def _at(self, weights: Any) -> int | None:
        """Returns where weights are in memory, which stay there; None without any."""
        if weights is None:
            return None
        self._keep.append(np.ascontiguousarray(weights))
        return address(self._keep[-1])


class CpuForward:
    """Computes an ExactModel with the compiled kernels.

    Args:
        model: with its weights in memory.
        library: the kernels of an instruction set.
        operands: those of the model.

    Attributes:
        name: the instruction set.
        library: as given.
        config: of the model.
        ropes: the rotary tables.
        model: describes the model to the kernels.
        seconds: that each part of the work in compiled rows took, over all threads.
    """

    is_concurrent = True

    def __init__(self, model: ExactModel, library: Library, operands: Operands) -> None:
        self.name = library.level
        self.config, self.library, self.ropes = model.config, library, operands.ropes
        self._structures = _Structures(model, library.level)
        self.model = self._structures.model_of(operands)
        self._model = ctypes.byref(self.model)
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._buffers: list[_Buffers] = []
        self._lock = Lock()

    def batch_tokens(self) -> int:
        """Returns 0: a core is busy with few tokens."""
        return 0

    def new_cache(self, rows: int, slots: Sequence[int]) -> CpuCache:
        """Returns an empty cache, as `Forward.new_cache`."""
        return _new_cache(self.config, rows, slots)

    def cache_bytes(self, slots: Sequence[int]) -> int:
        """Returns an upper bound for the size of one row of a cache in bytes."""
        config = self.config
        return sum(slots, 2 * _BLOCK * len(slots)) * config.num_kv_heads * (2 * _up(config.head_dim) + 12)

    def forward(self, ids: np.ndarray, cache: CpuCache | None) -> np.ndarray:
        """Computes final hidden states, (B, T) int64 to (B, T, hidden) float32.

        Raises:
            IndexError: an id is outside the vocabulary, or the cache has too few slots.
        """
        batch, new = ids.shape
        out = np.empty((batch, new, self.config.hidden_size), dtype=np.float32)
        if not ids.size:
            return out
        # The kernels check no index.
        ids = np.asarray(ids, dtype=np.int64)
        if not 0 <= ids.min() <= ids.max() < self.config.vocab_size:
            raise IndexError(f"token ids outside a vocabulary of {self.config.vocab_size}")
        if cache is None:
            workers.share(
                batch, max(1, _MIN_TOKENS // new),
                lambda first, last: lambda: self._uncached_rows(ids[first:last], out[first:last]),
            )  # fmt: skip
            return out
        begin = cache.length
        # All rows have the same slots: they move once, before the rows are distributed.
        slots = [layer.slot(begin, new) for layer in cache.layers]
        workers.share(
            batch, max(1, _MIN_TOKENS // new),
            lambda first, last: lambda: self._rows(ids, slice(first, last), begin, cache, slots, out),
        )  # fmt: skip
        cache.length = begin + new
        return out

    def _uncached_rows(self, ids: np.ndarray, out: np.ndarray) -> None:
        """Computes hidden states of rows that begin and end here, as many at a time as go through the layers."""
        rows, new = ids.shape
        step = min(rows, max(1, MAX_TOKENS // new))
        slots = [new] * self.config.num_layers
        cache = _new_cache(self.config, step, slots)
        for first in range(0, rows, step):
            group = slice(first, min(first + step, rows))
            part = slice(0, group.stop - group.start)
            self._rows(ids[group], part, 0, cache, [0] * len(slots), out[group])

    def _rows(
        self, ids: np.ndarray, rows: slice, begin: int, cache: CpuCache, slots: list[int], out: np.ndarray
    ) -> None:
        """Computes hidden states of some rows of a cache into `out`, at most MAX_TOKENS tokens at a time.

        Args:
            ids: (B, T) int64.
            rows: which of them.
            begin: position of their first token.
            cache: of B rows or more.
            slots: slot of the first token in each layer.
            out: (B, T, hidden) float32.
        """
        new, hidden = ids.shape[1], self.config.hidden_size
        step = max(1, MAX_TOKENS // new)
        buffers = self.take_buffers(cache.slots)
        try:
            for first in range(rows.start, rows.stop, step):
                last = min(first + step, rows.stop)
                stores = cache.stores(first, last)
                for at in range(0, new, MAX_TOKENS):
                    tokens = np.ascontiguousarray(ids[first:last, at : at + MAX_TOKENS])
                    for store, slot in zip(stores, slots, strict=True):
                        store.slot = slot + at
                    self._tokens(tokens, begin + at, stores, buffers)
                    out[first:last, at : at + MAX_TOKENS] = buffers.x[: tokens.size, :hidden].reshape(*tokens.shape, -1)
        finally:
            self.give_back(buffers)

    def _tokens(self, ids: np.ndarray, begin: int, stores: ctypes.Array[Store], buffers: _Buffers) -> None:
        """Takes some tokens of some rows through all layers, into buffers.x."""
        rows, new = ids.shape
        turns = [rope.at(begin, new) for rope in self.ropes]
        cosines, sines = ((ctypes.c_void_p * 2)(*(address(pair[part]) for pair in turns)) for part in (0, 1))
        pairs = (ctypes.c_int64 * 2)(*(rope.pairs for rope in self.ropes))
        self.library.forward(
            self._model, rows, new, ids.ctypes.data, begin, cosines, sines, pairs, stores, buffers.room
        )

    def masses(self, hidden: np.ndarray, byte_tokens: int = 0) -> np.ndarray:
        """Computes masses, (n, hidden) float32 to (n, V) int32, and columns of zeros."""
        hidden = np.ascontiguousarray(hidden)
        out = np.empty((len(hidden), self.config.vocab_size + byte_tokens), dtype=np.int32)
        workers.share(
            len(hidden), _MIN_HEAD_ROWS,
            lambda first, last: lambda: self._head_rows(hidden[first:last], out[first:last]),
        )  # fmt: skip
        return out

    def _head_rows(self, hidden: np.ndarray, out: np.ndarray) -> None:
        """Computes masses of some rows into `out`, at most MAX_TOKENS rows at a time."""
        buffers = self.take_buffers(0)
        try:
            for first in range(0, len(hidden), MAX_TOKENS):
                part, masses = hidden[first : first + MAX_TOKENS], out[first : first + MAX_TOKENS]
                self.library.masses(
                    self._model, len(part), part.ctypes.data, buffers.room, out.shape[1], masses.ctypes.data
                )
        finally:
            self.give_back(buffers)

    def take_buffers(self, slots: int) -> _Buffers:
        """Takes buffers for that many slots out of those at hand, or allocates new ones."""
        with self._lock:
            for number, buffers in enumerate(self._buffers):
                if buffers.slots >= slots:
                    return self._buffers.pop(number)
            self._buffers.clear()
        return _Buffers(self.config, max(slots, _MIN_SLOTS))

    def give_back(self, buffers: _Buffers, seconds: dict[str, float] | None = None) -> None:
        """Keeps buffers for the next caller; `seconds`: that the parts of some work took, for `seconds`."""
        with self._lock:
            self._buffers.append(buffers)
            for part, spent in (seconds or {}).items():
                self.seconds[part] += spent
