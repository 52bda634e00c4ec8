"""The forward pass on CPUs by compiled kernels, the same bits as exact.py's plain torch; must not know text or files.

Between the int8 products, which torch makes, everything goes once through the cache: native/kernels.h has a function
for each stretch (docs/numerics.md section 6). Rows are shared out to threads, each of which takes some tokens of its
rows through all layers at a time. Where the library was not built, or a model has a part that it does not know,
exact.py computes as before.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from . import ops, tables
from .config import ExactConfig
from .kernels import Library, Store
from .model import ExactModel, LayerWeights
from .workers import workers

_TOKENS = 128
"""Tokens that go through the layers together: their sums stay in the cache of a core."""

_BLOCK = 16
"""Keys lie in blocks of so many positions."""

_LANES = 16

_FLOAT: dict[str, Any] = {"dtype": torch.float32, "device": "cpu"}  # a caller may have set other defaults

Rope = Callable[[int, int], tuple[torch.Tensor, torch.Tensor]]


def unsupported(model: ExactModel) -> str:
    """What of a model the kernels do not know; empty if nothing."""
    config = model.config
    sizes = (config.hidden_size, config.mlp_size, config.head_dim)
    facts = {
        "two planes": config.planes != 1,
        "its norm": config.norm != "rms" or model.final_norm_bias is not None,
        "its activation": config.activation != "silu" or not config.gated,
        "parallel layers": config.parallel,
        "a cap": bool(config.attention_cap or config.logit_cap),
        "learned positions": config.learned_positions,
        "its sizes": any(size % _LANES for size in sizes) or config.head_dim > 512,
        "norms behind branches": any(layer.attention_post_norm is not None for layer in model.layers)
        or any(layer.mlp_post_norm is not None for layer in model.layers),
        "biases": any(
            bias is not None for layer in model.layers for bias in (layer.out_bias, layer.gate_up_bias, layer.down_bias)
        ),
    }
    return ", ".join(name for name, is_so in facts.items() if is_so)


# -- what attention keeps --------------------------------------------------------------------------------------------


@dataclass
class FusedLayer:
    """The cache of one layer.

    Attributes:
        keys: (B, G, S / 16, D / 2, 16, 2) int8; values: (B, G, S, D) int8; key_scale, value_scale: (B, G, S) float32.
        peak: (B, G) float32, the largest value scale since the context began.
        window: positions that a token sees, itself included; 0 for all.
        begin: the position in slot 0.
    """

    keys: torch.Tensor
    values: torch.Tensor
    key_scale: torch.Tensor
    value_scale: torch.Tensor
    peak: torch.Tensor
    window: int
    begin: int = 0

    def rows(self, rows: slice) -> FusedLayer:
        return replace(
            self, keys=self.keys[rows], values=self.values[rows], key_scale=self.key_scale[rows],
            value_scale=self.value_scale[rows], peak=self.peak[rows],
        )  # fmt: skip

    def slot(self, position: int, new: int) -> int:
        """Where new positions go, after what no later token sees has made room."""
        at, slots = position - self.begin, self.values.shape[2]
        if at + new > slots:
            gone = (at - (self.window - 1)) // _BLOCK * _BLOCK
            for store, unit in (
                (self.keys, _BLOCK), (self.values, 1), (self.key_scale, 1), (self.value_scale, 1),
            ):  # fmt: skip
                kept = -(-(at - gone) // unit)
                store.narrow(2, 0, kept).copy_(store.narrow(2, gone // unit, kept).clone())
            self.begin, at = self.begin + gone, at - gone
        return at

    def pointers(self) -> Store:
        """For the kernels; rows must be next to each other."""
        return Store(
            self.keys.data_ptr(), self.values.data_ptr(), self.key_scale.data_ptr(), self.value_scale.data_ptr(),
            self.peak.data_ptr(), self.values.shape[2],
        )  # fmt: skip


class FusedCache:
    """Integer keys and values with their scales, for every layer and row.

    Attributes:
        layers: one FusedLayer per layer.
        length: positions fed so far.
    """

    def __init__(self, layers: list[FusedLayer], length: int = 0) -> None:
        self.layers = layers
        self.length = length

    def reset(self) -> None:
        """Forgets everything."""
        self.length = 0
        for layer in self.layers:
            layer.begin = 0

    def rows(self, rows: slice) -> FusedCache:
        """A cache of some of the rows, sharing their storage."""
        return FusedCache([layer.rows(rows) for layer in self.layers], self.length)

    def adopt(self, part: FusedCache) -> None:
        """Takes over the positions of a cache of some rows, when the other rows were fed alike."""
        self.length = part.length
        for layer, other in zip(self.layers, part.layers, strict=True):
            layer.begin = other.begin


def new_cache(config: ExactConfig, rows: int, slots: list[int]) -> FusedCache:
    """An empty cache.

    Args:
        config: of the model.
        rows: B.
        slots: positions that each layer keeps; some more are made, so that blocks of them can go.
    """
    heads, dim = config.num_kv_heads, config.head_dim

    def layer(window: int, positions: int) -> FusedLayer:
        size = -(-positions // _BLOCK) * _BLOCK + (_BLOCK if window else 0)
        scales = [torch.zeros(rows, heads, size, **_FLOAT) for _ in range(2)]
        keys = torch.zeros(rows, heads, size // _BLOCK, dim // 2, _BLOCK, 2, dtype=torch.int8, device="cpu")
        values = torch.zeros(rows, heads, size, dim, dtype=torch.int8, device="cpu")
        return FusedLayer(keys, values, scales[0], scales[1], torch.zeros(rows, heads, **_FLOAT), window)

    return FusedCache([layer(window, size) for window, size in zip(config.windows, slots, strict=True)])


def row_bytes(config: ExactConfig, slots: list[int]) -> int:
    """What a row takes in a cache."""
    return sum(slots, 2 * _BLOCK * len(slots)) * config.num_kv_heads * (2 * config.head_dim + 8)


# -- the forward pass ------------------------------------------------------------------------------------------------


class _Layer:
    """What the kernels need of a layer's weights, as addresses; the tensors stay alive in the model."""

    def __init__(self, layer: LayerWeights, qk_norm: torch.Tensor | None, window: int, turned: bool) -> None:
        self.input_norm, self.post_norm = layer.input_norm.data_ptr(), layer.post_norm.data_ptr()
        self.qkv, self.out, self.gate_up, self.down = layer.qkv_q, layer.out_q, layer.gate_up_q, layer.down_q
        self.qkv_scale, self.out_scale = layer.qkv_scale.data_ptr(), layer.out_scale.data_ptr()
        self.gate_up_scale, self.down_scale = layer.gate_up_scale.data_ptr(), layer.down_scale.data_ptr()
        self.qkv_bias = None if layer.qkv_bias is None else layer.qkv_bias.data_ptr()
        self.qk_norm = None if qk_norm is None else qk_norm.data_ptr()
        self.window, self.turned = window, turned


class _Room:
    """Buffers of one thread."""

    def __init__(self, config: ExactConfig, slots: int) -> None:
        n, heads = _TOKENS, (config.num_heads + 2 * config.num_kv_heads) * config.head_dim
        wide = max(heads, 2 * config.mlp_size, config.hidden_size)
        self.slots = slots
        self.x = torch.empty(n, config.hidden_size, **_FLOAT)
        self.sums = torch.empty(n * wide, dtype=torch.int32, device="cpu")
        self.q = torch.empty(n * max(config.hidden_size, config.mlp_size, heads), dtype=torch.int8, device="cpu")
        self.scale, self.scale2 = torch.empty(n, **_FLOAT), torch.empty(n, **_FLOAT)
        self.row = torch.empty(max(4 * config.num_heads * config.head_dim, wide), **_FLOAT)
        self.z = torch.empty(4 * (slots + 32), **_FLOAT)
        self.queries = torch.empty(n * config.num_heads * config.head_dim, dtype=torch.int16, device="cpu")
        self.query_scale = torch.empty(n * config.num_heads, **_FLOAT)
        self.value_peak = torch.empty(n * config.num_kv_heads, **_FLOAT)


class FusedForward:
    """Runs an ExactModel with the kernels.

    Args:
        model: on the CPU, with nothing that `unsupported` names.
        kernels: of an instruction set.
        products: the exact product of int8 matrices.
        qk_norms: of each layer, the norm weights of query and key heads, (H + G, D), or None.
        ropes: of layers without and with a window: cosines and sines of positions.
    """

    def __init__(
        self,
        model: ExactModel,
        kernels: Library,
        products: ops.Kernels,
        qk_norms: list[torch.Tensor | None],
        ropes: Sequence[Rope],
    ) -> None:
        self._model, self._kernels, self._product = model, kernels, products.int8_product
        config = model.config
        self._layers = [
            _Layer(layer, norm, window, number not in config.unrotated)
            for number, (layer, norm, window) in enumerate(zip(model.layers, qk_norms, config.windows, strict=True))
        ]
        self._keep = qk_norms
        self._ropes = ropes
        exp2 = torch.from_numpy(tables.exp2_table())
        self._exp2_int, self._exp2_steps = exp2, exp2.to(torch.float32)
        self._exp2_unit = self._exp2_steps * 2.0**-20
        self._query_max = ops.query_max(config.head_dim)
        self._attention_factor = tables.attention_factor(config.head_dim, config.attention_scale)
        self._rooms: list[_Room] = []
        self._lock = threading.Lock()

    def forward(self, ids: torch.Tensor, cache: FusedCache | None) -> torch.Tensor:
        """As `Engine.forward`; (B, T) int64 to (B, T, hidden) float32."""
        batch, new = ids.shape
        begin = cache.length if cache is not None else 0
        out = torch.empty(batch, new, self._model.config.hidden_size, **_FLOAT)
        slots = [0] * len(self._layers)
        if cache is not None:
            # The slots are those of all rows; moved before rows are shared out.
            slots = [layer.slot(begin, new) for layer in cache.layers]
            if begin == 0:
                for layer in cache.layers:
                    layer.peak.zero_()
        parts = min(batch, torch.get_num_threads())
        borders = [batch * part // parts for part in range(parts + 1)]

        def task(first: int, last: int) -> Callable[[], None]:
            return lambda: self._rows(ids[first:last], begin, cache, first, slots, out[first:last])

        workers.run([task(borders[part], borders[part + 1]) for part in range(parts)])
        if cache is not None:
            cache.length = begin + new
        return out

    def _rows(
        self,
        ids: torch.Tensor,
        begin: int,
        cache: FusedCache | None,
        first_row: int,
        slots: list[int],
        out: torch.Tensor,
    ) -> None:
        """Some rows, a few tokens of some of them at a time."""
        config = self._model.config
        rows, new = ids.shape
        step = max(1, _TOKENS // new)
        own = None
        if cache is None:
            own = new_cache(config, min(step, rows), [new] * len(self._layers))
        size = max(layer.values.shape[2] for layer in (cache or own).layers)  # type: ignore[union-attr]
        room = self._take_room(size)
        for row in range(0, rows, step):
            some = slice(row, min(row + step, rows))
            if cache is not None:
                here = cache.rows(slice(first_row + some.start, first_row + some.stop))
            else:
                assert own is not None
                here = own.rows(slice(0, some.stop - some.start))
                for layer in here.layers:
                    layer.peak.zero_()
            stores = [layer.pointers() for layer in here.layers]
            for at in range(0, new, _TOKENS):
                part = ids[some, at : at + _TOKENS].contiguous()
                self._tokens(part, begin + at, stores, [slot + at for slot in slots], room)
                count = part.shape[0] * part.shape[1]
                out[some, at : at + _TOKENS] = room.x[:count].view(*part.shape, -1)
        with self._lock:
            self._rooms.append(room)

    def _take_room(self, slots: int) -> _Room:
        with self._lock:
            for number, room in enumerate(self._rooms):
                if room.slots >= slots:
                    return self._rooms.pop(number)
            self._rooms.clear()
        return _Room(self._model.config, slots)

    def _tokens(self, ids: torch.Tensor, begin: int, stores: list[Store], slots: list[int], room: _Room) -> None:
        """Some tokens of some rows through all layers, into room.x."""
        model, config, kernels = self._model, self._model.config, self._kernels
        rows, new = ids.shape
        n, hidden, dim = rows * new, config.hidden_size, config.head_dim
        heads, kv_heads = config.num_heads, config.num_kv_heads
        all_heads = (heads + 2 * kv_heads) * dim
        eps, unit = config.norm_eps, ops.inverse(hidden)
        x, row, scale, scale2 = (t.data_ptr() for t in (room.x, room.row, room.scale, room.scale2))
        sums, q, queries = room.sums.data_ptr(), room.q.data_ptr(), room.queries.data_ptr()
        query_scale, value_peak, z = room.query_scale.data_ptr(), room.value_peak.data_ptr(), room.z.data_ptr()
        q_hidden, q_heads = room.q[: n * hidden].view(n, hidden), room.q[: n * heads * dim].view(n, heads * dim)
        q_mlp = room.q[: n * config.mlp_size].view(n, config.mlp_size)
        sums_qkv = room.sums[: n * all_heads].view(n, all_heads)
        sums_hidden = room.sums[: n * hidden].view(n, hidden)
        sums_mlp = room.sums[: n * 2 * config.mlp_size].view(n, 2 * config.mlp_size)
        turns = [rope(begin, new) for rope in self._ropes]
        kernels.embed(
            n, hidden, ids.data_ptr(), model.embedding_q.data_ptr(), model.embedding_scale.data_ptr(),
            config.embedding_gain, x,
        )  # fmt: skip
        kernels.norm(n, hidden, x, self._layers[0].input_norm, eps, unit, row, q, scale)
        for number, layer in enumerate(self._layers):
            store, slot = ctypes.byref(stores[number]), slots[number]
            cosines, sines = turns[-1 if layer.window else 0]
            self._product(q_hidden, layer.qkv, sums_qkv)
            kernels.heads(
                rows, new, heads, kv_heads, dim, sums, scale, layer.qkv_scale, layer.qkv_bias, layer.qk_norm, eps,
                ops.inverse(dim), cosines.data_ptr(), sines.data_ptr(), cosines.shape[-1] if layer.turned else 0,
                self._query_max, ops.inverse(self._query_max), self._attention_factor, store, slot, row, queries,
                query_scale, value_peak,
            )  # fmt: skip
            kernels.attention(
                rows, new, heads, kv_heads, dim, queries, query_scale, value_peak, store, slot, layer.window,
                self._exp2_steps.data_ptr(), row, z, q, scale2,
            )  # fmt: skip
            self._product(q_heads, layer.out, sums_hidden)
            kernels.add_norm(n, hidden, x, sums, scale2, layer.out_scale, layer.post_norm, eps, unit, row, q, scale)
            self._product(q_hidden, layer.gate_up, sums_mlp)
            kernels.gate(
                n, config.mlp_size, sums, scale, layer.gate_up_scale, tables.log2e_steps(), self._exp2_unit.data_ptr(),
                row, q, scale2,
            )  # fmt: skip
            self._product(q_mlp, layer.down, sums_hidden)
            following = self._layers[number + 1].input_norm if number + 1 < len(self._layers) else None
            kernels.add_norm(n, hidden, x, sums, scale2, layer.down_scale, following, eps, unit, row, q, scale)

    def masses(self, hidden: torch.Tensor) -> torch.Tensor:
        """As `Engine.masses`; (n, hidden) float32 to (n, V) int32."""
        hidden = hidden.contiguous()
        n = len(hidden)
        out = torch.empty(n, self._model.config.vocab_size, dtype=torch.int32, device="cpu")
        parts = max(1, min(-(-n // 32), torch.get_num_threads()))
        borders = [n * part // parts for part in range(parts + 1)]

        def task(first: int, last: int) -> Callable[[], None]:
            return lambda: self._head_rows(hidden[first:last], out[first:last])

        workers.run([task(borders[part], borders[part + 1]) for part in range(parts)])
        return out

    def _head_rows(self, hidden: torch.Tensor, out: torch.Tensor) -> None:
        model, kernels, config = self._model, self._kernels, self._model.config
        size, vocab = config.hidden_size, config.vocab_size
        most = min(len(hidden), _TOKENS)
        sums = torch.empty(most, vocab, dtype=torch.int32, device="cpu")
        q, scale = torch.empty(most, size, dtype=torch.int8, device="cpu"), torch.empty(most, **_FLOAT)
        row = torch.empty(max(vocab, size) + _LANES, **_FLOAT)
        for at in range(0, len(hidden), _TOKENS):
            part, to = hidden[at : at + _TOKENS], out[at : at + _TOKENS]
            n = len(part)
            kernels.norm(
                n, size, part.data_ptr(), model.final_norm.data_ptr(), config.norm_eps, ops.inverse(size),
                row.data_ptr(), q.data_ptr(), scale.data_ptr(),
            )  # fmt: skip
            self._product(q[:n], model.head_q, sums[:n])
            kernels.masses(
                n, vocab, sums.data_ptr(), scale.data_ptr(), tables.log2e_steps(), model.head_scale.data_ptr(),
                self._exp2_int.data_ptr(), row.data_ptr(), to.data_ptr(),
            )  # fmt: skip
