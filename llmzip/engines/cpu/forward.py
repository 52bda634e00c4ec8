"""The forward pass on CPUs by compiled kernels, with the same bits as reference.py; must not know text or files.

native/kernels.h takes some tokens through all layers, so that everything between two products goes through the cache
once (docs/numerics.md section 6). Rows are distributed over threads. The kernels compute every model; `build` says why
where there are none: plain torch then computes.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from ...models.config import ACTIVATIONS, ExactConfig
from ...models.model import ExactModel
from ...numerics import ops, tables
from ...system.forks import Lock
from ...system.threads import workers
from ..kv_cache import CachedLayer, LayerCaches
from ..operands import Operands
from ..reference import normal_table
from . import kernels
from .kernels import HEAD_OUTPUTS, LANES, TERMS, Layer, Library, Matrix, Model, Norm, Packed, Room, Store, address

_TOKENS = 128
"""Tokens that go through the layers together: their sums stay in the cache of a core."""

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

_FLOAT: dict[str, Any] = {"dtype": torch.float32, "device": "cpu"}
"""Given explicitly, because a caller may have set other defaults."""


def build(model: ExactModel, operands: Operands) -> tuple[CpuForward | None, str]:
    """Returns the compiled kernels with a model; or None and the reason.

    Args:
        model: on the CPU.
        operands: those of the model.
    """
    library, reason = kernels.chosen()
    if library is None:
        return None, reason
    if ops.query_max(model.config.head_dim) > _MAX_QUERY:
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
                kept = -(-(at - gone) // unit)
                store.narrow(2, 0, kept).copy_(store.narrow(2, gone // unit, kept).clone())
            self.begin, at = self.begin + gone, at - gone
        if at + new > slots:  # the kernels check no index
            raise IndexError(f"{at + new} positions in a cache of {slots}")
        return at

    def pointers(self, slot: int) -> Store:
        """Describes the cache to the kernels; its rows must be contiguous. `slot`: of the first new token."""
        return Store(
            self.keys.data_ptr(), self.values.data_ptr(), self.key_scale.data_ptr(), self.value_scale.data_ptr(),
            self.value_peak.data_ptr(), self.key_scale.shape[2], slot,
        )  # fmt: skip


class CpuCache(LayerCaches[CpuLayer]):
    """The cache of the kernels."""


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
    integers = torch.from_numpy(np.zeros(2 * rows * heads * dim * sum(sizes), dtype=np.int8))
    layers, at = [], 0
    for window, size in zip(config.windows, sizes, strict=True):
        count = rows * heads * size * dim
        keys = integers[at : at + count].view(rows, heads, size // _BLOCK, dim // 2, _BLOCK, 2)
        values = integers[at + count : at + 2 * count].view(rows, heads, size // 4, dim, 4)
        scales = (torch.zeros(rows, heads, size, **_FLOAT) for _ in range(3))
        layers.append(CpuLayer(keys, values, *scales, window))
        at += 2 * count
    return CpuCache(layers)


# -- the forward pass ------------------------------------------------------------------------------------------------


class _Buffers:
    """Memory that the kernels work in, for one thread at a time; attention may see up to `slots` slots."""

    def __init__(self, config: ExactConfig, slots: int) -> None:
        n, dim, width, mlp = _TOKENS, _up(config.head_dim), _up(config.hidden_size), _up(config.mlp_size)
        heads = config.num_heads * dim
        outputs = max(heads + 2 * config.num_kv_heads * dim, (1 + config.gated) * mlp, width, HEAD_OUTPUTS)
        inputs = _up(max(width, mlp, heads), max(TERMS.values()))
        self.slots = slots

        def room(size: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
            return torch.zeros(size, dtype=dtype, device="cpu")

        self.x = room(n * width).view(n, width)
        tensors = (
            self.x, room(n * outputs), room(n * config.planes * inputs, torch.int16), room(n), room(n),
            room(max(width, mlp, 4 * heads) + LANES), room(4 * (slots + 2 * LANES)),
            room(12 * (slots + 2 * LANES), torch.uint8), room(n * heads, torch.int16), room(n * config.num_heads),
            room(n * config.num_kv_heads),
        )  # fmt: skip
        self._keep = tensors
        self.room = Room(*(tensor.data_ptr() for tensor in tensors))


class _Structures:
    """The structures that describe a model to the kernels; it keeps alive the tensors that they point to.

    Args:
        model: on the CPU.
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
        query_max = ops.query_max(config.head_dim)
        octave = torch.tensor(tables.exp2_octave(), dtype=torch.int32, device="cpu")
        caps = [tables.cap_factors(cap) if cap else (0.0, 0.0) for cap in (config.attention_cap, config.logit_cap)]
        normal = normal_table(torch.device("cpu")) if config.activation == "gelu" else None
        return Model(
            config.hidden_size, _up(config.hidden_size), _up(config.mlp_size), _up(config.head_dim), config.num_heads,
            config.num_kv_heads, len(layers), config.vocab_size, query_max, config.planes, config.norm == "layer",
            ACTIVATIONS.index(config.activation), config.gated, config.parallel, config.norm_eps,
            ops.inverse(config.hidden_size), ops.inverse(config.head_dim), ops.inverse(query_max),
            tables.attention_factor(config.head_dim, config.attention_scale), tables.log2e_steps(),
            config.embedding_gain, *tables.gelu_factors(), *caps[0], *caps[1], self._at(model.embedding_q),
            self._at(model.embedding_scale), self._at(model.positions_q), self._at(model.positions_scale),
            self._norm(model.final_norm, model.final_norm_bias), self._at(octave), config.floor_bits, self._at(normal),
            self._packed(model.head_q, model.head_scale), (Layer * len(layers))(*layers),
        )  # fmt: skip

    def _layer(self, number: int, qk_norm: torch.Tensor | None, ropes: int) -> Layer:
        config, weights = self._model.config, self._model.layers[number]
        heads, window = config.num_heads, config.windows[number]
        if qk_norm is not None:
            qk_norm = kernels.padded(qk_norm, 1).contiguous()
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

    def _packed(
        self,
        weight_q: torch.Tensor,
        scale: torch.Tensor,
        bias: torch.Tensor | None = None,
        parts: tuple[int, int] = (1, 1),
    ) -> Matrix:
        self._keep.append(Packed(weight_q, scale, bias, parts=parts, level=self._level))
        matrix: Matrix = self._keep[-1].matrix
        return matrix

    def _norm(self, weight: torch.Tensor | None, bias: torch.Tensor | None = None) -> Norm:
        tensors = (None if tensor is None else kernels.padded(tensor, 0).contiguous() for tensor in (weight, bias))
        return Norm(*(self._at(tensor) for tensor in tensors))

    def _at(self, tensor: torch.Tensor | None) -> int | None:
        self._keep.append(tensor)
        return address(tensor)


class CpuForward:
    """Computes an ExactModel with the compiled kernels.

    Args:
        model: on the CPU.
        library: the kernels of an instruction set.
        operands: those of the model.

    Attributes:
        name: the instruction set.
        library: as given.
    """

    is_concurrent = True

    def __init__(self, model: ExactModel, library: Library, operands: Operands) -> None:
        self.name = library.level
        self._config, self.library, self._ropes = model.config, library, operands.ropes
        self._structures = _Structures(model, library.level)
        self._model = self._structures.model_of(operands)
        self._buffers: list[_Buffers] = []
        self._lock = Lock()

    def batch_tokens(self) -> int:
        """Returns 0: a core is busy with few tokens."""
        return 0

    def new_cache(self, rows: int, slots: Sequence[int]) -> CpuCache:
        """Returns an empty cache, as `Forward.new_cache`."""
        return _new_cache(self._config, rows, slots)

    def cache_bytes(self, slots: Sequence[int]) -> int:
        """Returns an upper bound for the size of one row of a cache in bytes."""
        config = self._config
        return sum(slots, 2 * _BLOCK * len(slots)) * config.num_kv_heads * (2 * _up(config.head_dim) + 12)

    def forward(self, ids: torch.Tensor, cache: CpuCache | None) -> torch.Tensor:
        """Computes final hidden states, (B, T) int64 to (B, T, hidden) float32.

        Raises:
            IndexError: an id is outside the vocabulary, or the cache has too few slots.
        """
        batch, new = ids.shape
        if not ids.numel():
            return torch.empty(batch, new, self._config.hidden_size, **_FLOAT)
        # The kernels check no index.
        ids = ids.to(torch.int64)
        if not 0 <= int(ids.min()) <= int(ids.max()) < self._config.vocab_size:
            raise IndexError(f"token ids outside a vocabulary of {self._config.vocab_size}")
        begin = cache.length if cache is not None else 0
        out = torch.empty(batch, new, self._config.hidden_size, **_FLOAT)
        slots = [0] * self._config.num_layers
        if cache is not None:
            # All rows have the same slots: they move once, before the rows are distributed.
            slots = [layer.slot(begin, new) for layer in cache.layers]

        def task(first: int, last: int) -> Callable[[], None]:
            part = cache.view(slice(first, last)) if cache is not None else None
            return lambda: self._rows(ids[first:last], begin, part, slots, out[first:last])

        workers.share(batch, max(1, _MIN_TOKENS // new), task)
        if cache is not None:
            cache.length = begin + new
        return out

    def _rows(self, ids: torch.Tensor, begin: int, cache: CpuCache | None, slots: list[int], out: torch.Tensor) -> None:
        """Computes hidden states of some rows into `out`, at most _TOKENS tokens at a time."""
        rows, new = ids.shape
        step = max(1, _TOKENS // new)
        store = cache or _new_cache(self._config, min(step, rows), [new] * len(slots))
        buffers = self._take_buffers(max(layer.key_scale.shape[2] for layer in store.layers))
        try:
            for first in range(0, rows, step):
                group = slice(first, min(first + step, rows))
                part = store.view(group if cache is not None else slice(0, group.stop - group.start))
                for at in range(0, new, _TOKENS):
                    tokens = ids[group, at : at + _TOKENS].contiguous()
                    stores = [layer.pointers(slot + at) for layer, slot in zip(part.layers, slots, strict=True)]
                    self._tokens(tokens, begin + at, stores, buffers)
                    x = buffers.x[: tokens.numel(), : self._config.hidden_size]
                    out[group, at : at + _TOKENS] = x.view(*tokens.shape, -1)
        finally:
            self._give_back(buffers)

    def _tokens(self, ids: torch.Tensor, begin: int, stores: list[Store], buffers: _Buffers) -> None:
        """Takes some tokens of some rows through all layers, into buffers.x."""
        rows, new = ids.shape
        turns = [rope.at(begin, new) for rope in self._ropes]
        cosines, sines = ((ctypes.c_void_p * 2)(*(pair[part].data_ptr() for pair in turns)) for part in (0, 1))
        pairs = (ctypes.c_int64 * 2)(*(pair[0].shape[-1] for pair in turns))
        self.library.forward(
            ctypes.byref(self._model), rows, new, ids.data_ptr(), begin, cosines, sines, pairs,
            (Store * len(stores))(*stores), ctypes.byref(buffers.room),
        )  # fmt: skip

    def masses(self, hidden: torch.Tensor, byte_tokens: int = 0) -> torch.Tensor:
        """Computes masses, (n, hidden) float32 to (n, V) int32, and columns of zeros."""
        hidden = hidden.contiguous()
        out = torch.empty(len(hidden), self._config.vocab_size + byte_tokens, dtype=torch.int32, device="cpu")

        def task(first: int, last: int) -> Callable[[], None]:
            return lambda: self._head_rows(hidden[first:last], out[first:last])

        workers.share(len(hidden), _MIN_HEAD_ROWS, task)
        return out

    def _head_rows(self, hidden: torch.Tensor, out: torch.Tensor) -> None:
        """Computes masses of some rows into `out`, at most _TOKENS rows at a time."""
        buffers = self._take_buffers(0)
        try:
            for first in range(0, len(hidden), _TOKENS):
                rows = slice(first, first + _TOKENS)
                part = hidden[rows]
                self.library.masses(
                    ctypes.byref(self._model), len(part), part.data_ptr(), ctypes.byref(buffers.room),
                    out.stride(0), out[rows].data_ptr(),
                )  # fmt: skip
        finally:
            self._give_back(buffers)

    def _take_buffers(self, slots: int) -> _Buffers:
        """Takes buffers for that many slots out of those at hand, or allocates new ones."""
        with self._lock:
            for number, buffers in enumerate(self._buffers):
                if buffers.slots >= slots:
                    return self._buffers.pop(number)
            self._buffers.clear()
        return _Buffers(self._config, max(slots, _MIN_SLOTS))

    def _give_back(self, buffers: _Buffers) -> None:
        with self._lock:
            self._buffers.append(buffers)
