"""The forward pass on CUDA devices by the Triton kernels, the same bits as exact.py's plain torch; must not know text.

Nine launches a layer take all tokens through it: norm and quantisation; queries, keys and values, turned, quantised and
put into the cache; attention; quantisation; its product, added; norm and quantisation; gate and up, multiplied;
quantisation; its product, added. A step of all rows is recorded as a CUDA graph once and then replayed. Where the
kernels cannot be used, exact.py computes as before.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import torch

from ...models.config import ExactConfig
from ...models.model import ExactModel, LayerWeights
from ...numerics import ops, tables
from ...system import libraries
from ..kv_cache import CachedLayer, LayerCaches

_LEAST_CAPABILITY = (8, 0)
_LEAST_TRITON = (3, 3)
_MOST_VALUES = 1 << 14
"""Of a row that is in registers as a whole: hidden and MLP sizes."""

_MOST_TOKENS = 1 << 16

Rope = Callable[[int, int], tuple[torch.Tensor, torch.Tensor]]


# -- whether they can be used ------------------------------------------------------------------------------------------


def on(device: torch.device) -> AbstractContextManager[object]:
    """Makes a device the current one: kernels are launched there."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def interpreted() -> bool:
    """Whether the kernels are asked for on the CPU, in Triton's interpreter: for tests."""
    return os.environ.get("TRITON_INTERPRET") == "1" and libraries.wanted() == libraries.TRITON


def unavailable(device: torch.device) -> str:
    """Why a device cannot have the kernels; empty if it can."""
    if libraries.wanted() == libraries.NONE:
        return f"{libraries.VARIABLE}={libraries.NONE}"
    if device.type == "cuda":
        if torch.version.cuda is None:
            return "they are for NVIDIA's devices"
        found = torch.cuda.get_device_capability(device)
        if found < _LEAST_CAPABILITY:
            return f"compute capability {found[0]}.{found[1]} is below 8.0"
    return _load()[1]


@functools.cache
def _load() -> tuple[_Kernels | None, str]:
    """The modules of the kernels, or why there are none."""
    try:
        import triton

        version = tuple(int(part) for part in triton.__version__.split(".")[:2])
        if version < _LEAST_TRITON:
            return None, f"Triton {triton.__version__} is older than {_LEAST_TRITON[0]}.{_LEAST_TRITON[1]}"
        from . import attention, primitives, products, rowwise
    except Exception as error:  # a Triton that does not fit its Python or torch fails in many ways
        return None, f"Triton cannot be imported: {_line(error)}"
    return _Kernels(attention, products, rowwise, primitives.OPTIONS), ""


def _line(error: BaseException) -> str:
    """An error in a few words."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 120 else f"{text[:117]}..."


@dataclass(frozen=True)
class _Kernels:
    attention: ModuleType
    products: ModuleType
    rowwise: ModuleType
    options: dict[str, Any]


def unsupported(model: ExactModel) -> str:
    """What of a model the kernels do not know; empty if nothing."""
    config = model.config
    pairs = {len(config.rope_steps), len(config.local_rope_steps)} - {0}
    sizes = (config.hidden_size, config.mlp_size)
    facts = {
        "two planes": config.planes != 1,
        "its norm": config.norm != "rms" or model.final_norm_bias is not None,
        "its activation": config.activation != "silu" or not config.gated,
        "parallel layers": config.parallel,
        "a cap": bool(config.attention_cap or config.logit_cap),
        "learned positions": config.learned_positions,
        "heads that turn in part": bool(pairs - {config.head_dim // 2}),
        "its sizes": any(size % 16 or size > _MOST_VALUES for size in sizes)
        or config.head_dim not in (32, 64, 128, 256)
        or config.num_heads * config.head_dim > _MOST_VALUES,
        "norms behind branches": any(layer.attention_post_norm is not None for layer in model.layers)
        or any(layer.mlp_post_norm is not None for layer in model.layers),
        "biases": any(
            bias is not None for layer in model.layers for bias in (layer.out_bias, layer.gate_up_bias, layer.down_bias)
        ),
    }
    return ", ".join(name for name, is_so in facts.items() if is_so)


_TRIED: dict[tuple[str, ExactConfig], str] = {}


def trial(
    own: GpuForward,
    plain: Callable[[torch.Tensor], torch.Tensor],
    plain_masses: Callable[[torch.Tensor], torch.Tensor],
) -> str:
    """Why the kernels must not run a model; empty if they give the bits of plain torch for its shapes.

    Prefill of many tokens and of few, steps as they are recorded and replayed, masses: every kernel in every size of
    its pieces. Tried once for each device and configuration.

    Args:
        own: the kernels with the model.
        plain, plain_masses: the same model's forward pass without a cache, and its masses.
    """
    key = (str(own.device), own.config)
    if key not in _TRIED:
        config, rows, length = own.config, 3, min(own.config.context, 101)
        n = torch.arange(rows * length, dtype=torch.int64, device="cpu")
        ids = (((n * n * 40503 + n * 2654435761) >> 9) % config.vocab_size).view(rows, length).to(own.device)
        expected = plain(ids)
        flat = expected.reshape(rows * length, -1)
        masses = plain_masses(flat)
        try:
            cache = own.new_cache(rows, [length] * config.num_layers)
            sizes = [1] * 5 + [8] if length > 13 else [1]
            steps = [own.forward(part, cache) for part in torch.split(ids, [*sizes, length - sum(sizes)], 1)]
            same = (
                torch.equal(own.forward(ids, None), expected)
                and torch.equal(torch.cat(steps, 1), expected)
                and all(torch.equal(own.masses(flat[:some]), masses[:some]) for some in (1, 40, rows * length))
            )
            _TRIED[key] = "" if same else "they failed their self-test"
        except torch.cuda.OutOfMemoryError:
            raise
        except Exception as error:  # a compiler that fails does so in many ways
            _TRIED[key] = f"they failed: {_line(error)}"
    return _TRIED[key]


# -- what attention keeps ----------------------------------------------------------------------------------------------


@dataclass
class GpuLayer(CachedLayer):
    """The cache of one layer: a ring, position p in slot p modulo S.

    Attributes:
        keys: (B, G, S, D) int8; values: (B, G, D, S) int8: what is summed over lies next to each other.
        key_scale, value_scale: (B, G, S) float32.
        peak: (B, G) float32, the largest value scale since the context began.
        window: positions that a token sees, itself included; 0 for all.
        begin: always 0.
    """

    keys: torch.Tensor
    values: torch.Tensor
    key_scale: torch.Tensor
    value_scale: torch.Tensor
    peak: torch.Tensor
    window: int
    begin: int = 0


class GpuCache(LayerCaches[GpuLayer]):
    """The cache of the kernels.

    Attributes:
        step: the recorded step of all rows; a cache of some rows has none.
    """

    step: Step | None = None


@dataclass
class Step:
    """One token of every row, recorded.

    Attributes:
        ids: (B, 1) int64; begin: (1,) int32; hidden: (B, 1, hidden) float32: where the graph reads and writes.
        graph: None until it is recorded, at the second step: at the first the kernels are compiled.
        tables: addresses of the rotary tables that it reads.
    """

    ids: torch.Tensor
    begin: torch.Tensor
    hidden: torch.Tensor | None = None
    graph: torch.cuda.CUDAGraph | None = None
    tables: tuple[int, ...] = ()


# -- the forward pass --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tiles:
    """Sizes of the pieces that programs work on: powers of two; they change no bit.

    Attributes:
        rows, columns, terms: of a product with many rows.
        few_rows, few_columns: of one with few, so that there are programs enough for all multiprocessors.
        queries, keys: of attention.
        row_values: that a program holds of whole rows.
        masses: that a program works out at once.
    """

    rows: int = 128
    columns: int = 128
    terms: int = 128
    few_rows: int = 64
    few_columns: int = 64
    queries: int = 32
    keys: int = 64
    row_values: int = 4096
    masses: int = 4096


class GpuForward:
    """Runs an ExactModel with the kernels.

    Args:
        model: on the device, with nothing that `unsupported` names.
        device: cuda, or cpu where Triton interprets.
        qk_norms: of each layer, the norm weights of query and key heads, (H + G, D), or None.
        ropes: of layers without and with a window: cosines and sines of positions.
        tiles: None for those of the device.

    Attributes:
        config: of the model; device: as given.
    """

    def __init__(
        self,
        model: ExactModel,
        device: torch.device,
        qk_norms: Sequence[torch.Tensor | None],
        ropes: Sequence[Rope],
        tiles: Tiles | None = None,
    ) -> None:
        loaded, reason = _load()
        if loaded is None:
            raise RuntimeError(reason)
        config = model.config
        self._model, self.config, self.device, self._ropes = model, config, device, ropes
        self._qk_norms = [None if norm is None else norm.contiguous() for norm in qk_norms]
        self._tiles = tiles or Tiles()
        self._rowwise, self._products, self._attention = loaded.rowwise, loaded.products, loaded.attention
        self._options = loaded.options
        self._processors = 1
        self._recording = device.type == "cuda"
        if device.type == "cuda":
            self._processors = torch.cuda.get_device_properties(device).multi_processor_count
        self._octave = torch.from_numpy(np.array(tables.exp2_octave(), dtype=np.int32)).to(device)
        self._query_max = ops.query_max(config.head_dim)
        self._factor = tables.attention_factor(config.head_dim, config.attention_scale)

    # -- caches

    def new_cache(self, rows: int, slots: Sequence[int]) -> GpuCache:
        """An empty cache; `slots`: positions that each layer keeps."""
        zipped = zip(self.config.windows, slots, strict=True)
        cache = GpuCache([self._new_layer(rows, size, window) for window, size in zipped])
        cache.step = self._new_step(rows)
        return cache

    def row_bytes(self, slots: Sequence[int]) -> int:
        """What a row takes in a cache."""
        config, unit = self.config, self._tiles.keys
        return sum(-(-size // unit) * unit for size in slots) * config.num_kv_heads * (2 * config.head_dim + 8)

    def batch_tokens(self, free_bytes: int | None) -> int:
        """Tokens that go through the layers together: enough to fill the device, in a quarter of what is free."""
        config = self.config
        heads = (config.num_heads + config.num_kv_heads) * config.head_dim
        token_bytes = 16 * config.hidden_size + 6 * config.mlp_size + 8 * heads + 16 * config.num_heads + 64
        return min(_MOST_TOKENS, (free_bytes or 0) // 4 // token_bytes)

    def _new_layer(self, rows: int, slots: int, window: int) -> GpuLayer:
        heads, dim, size = self.config.num_kv_heads, self.config.head_dim, -(-slots // self._tiles.keys)
        size *= self._tiles.keys
        # Slots are read before they are written, and what is read then is not used.
        return GpuLayer(
            self._empty(rows, heads, size, dim, dtype=torch.int8),
            self._empty(rows, heads, dim, size, dtype=torch.int8),
            self._empty(rows, heads, size), self._empty(rows, heads, size), self._empty(rows, heads), window,
        )  # fmt: skip

    def _empty(self, *sizes: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.empty(sizes, dtype=dtype, device=self.device)

    # -- calls

    def forward(self, ids: torch.Tensor, cache: GpuCache | None) -> torch.Tensor:
        """As `Engine.forward`; (B, T) int64 to (B, T, hidden) float32. Ids outside the vocabulary give any result."""
        batch, new = ids.shape
        if not ids.numel():
            return self._empty(batch, new, self.config.hidden_size)
        begin = cache.length if cache is not None else 0
        parts, at = [], 0
        with on(self.device):
            while at < new:
                part = ids[:, at : at + self._room(cache, begin + at, new - at)].contiguous()
                if cache is not None and cache.step is not None and part.shape[1] == 1 and self._recording:
                    parts.append(self._stepped(part, begin + at, cache, cache.step))
                else:
                    start = torch.full((1,), begin + at, dtype=torch.int32, device=self.device)
                    parts.append(self._through(part, start, begin + at, cache))
                at += part.shape[1]
        if cache is not None:
            cache.length = begin + new
        return parts[0] if len(parts) == 1 else torch.cat(parts, 1)

    def _room(self, cache: GpuCache | None, begin: int, new: int) -> int:
        """Of new positions, how many the rings take before a slot that is still seen would be written."""
        for layer in cache.layers if cache is not None else ():
            slots = layer.key_scale.shape[2]
            if layer.window and begin + new > slots:
                new = min(new, max(slots - begin, slots - layer.window + 1))
        return new

    def masses(self, hidden: torch.Tensor) -> torch.Tensor:
        """As `Engine.masses`; (n, hidden) float32 to (n, V) int32."""
        with on(self.device):
            return self._masses(hidden.contiguous())

    def _masses(self, hidden: torch.Tensor) -> torch.Tensor:
        model, n, vocab = self._model, len(hidden), self.config.vocab_size
        steps = self._empty(n, vocab)
        if n:
            q, scale = self._norm(hidden, model.final_norm)
            gain = tables.log2e_steps()
            self._multiply(
                self._products.head_product, n, model.head_q, q, scale, model.head_q, model.head_scale, gain, steps
            )
            # Each value makes way for its mass.
            block = min(self._tiles.masses, _power(vocab))
            self._rowwise.masses[(n,)](
                steps, steps.view(torch.int32), self._octave, vocab, BLOCK=block, **self._options
            )
        return steps.view(torch.int32)

    def _through(self, ids: torch.Tensor, start: torch.Tensor, begin: int, cache: GpuCache | None) -> torch.Tensor:
        """New tokens through all layers. `start`: (1,) int32 on the device, the position `begin`."""
        config, model = self.config, self._model
        batch, new = ids.shape
        n, hidden = batch * new, config.hidden_size
        x = self._empty(n, hidden)
        grid, rows, block = self._whole_rows(n, hidden)
        self._rowwise.embed[grid](
            ids, model.embedding_q, model.embedding_scale, config.embedding_gain, x, n, hidden, config.vocab_size,
            ROWS=rows, BLOCK=block, **self._options,
        )  # fmt: skip
        turns = [rope(0, begin + new) for rope in self._ropes]
        store = self._new_layer(batch, new, 0) if cache is None else None
        for number, weights in enumerate(model.layers):
            layer = store or cache.layers[number]  # type: ignore[union-attr]
            attended = self._attend(x, weights, number, layer, turns, batch, new, start)
            q, scale = self._quantise(attended)
            self._add(q, scale, weights.out_q, weights.out_scale, x)
            q, scale = self._norm(x, weights.post_norm)
            inner = self._empty(n, config.mlp_size)
            self._multiply(
                self._products.gate_product, n, weights.down_q.T, q, scale, weights.gate_up_q, weights.gate_up_scale,
                inner, self._octave, tables.log2e_steps(), terms=hidden, halves=2,
            )  # fmt: skip
            q, scale = self._quantise(inner)
            self._add(q, scale, weights.down_q, weights.down_scale, x)
        return x.view(batch, new, hidden)

    def _attend(
        self,
        x: torch.Tensor,
        weights: LayerWeights,
        number: int,
        store: GpuLayer,
        turns: Sequence[tuple[torch.Tensor, torch.Tensor]],
        batch: int,
        new: int,
        start: torch.Tensor,
    ) -> torch.Tensor:
        """What the heads find, (B * T, H * D) float32; keys and values go into the store."""
        config, tiles = self.config, self._tiles
        n, heads, groups, dim = batch * new, config.num_heads, config.num_kv_heads, config.head_dim
        window, slots = config.windows[number], store.key_scale.shape[2]
        q, scale = self._norm(x, weights.input_norm)
        high, low = (self._empty(n, heads, dim, dtype=torch.int8) for _ in range(2))
        query_scale, out = self._empty(n, heads), self._empty(n, heads * dim)
        step = new == 1
        new_scale = store.peak if step else self._empty(batch, new, groups)
        peaks = store.peak if step else self._empty(batch, groups, new)
        norm, bias = self._qk_norms[number], weights.qkv_bias
        cosine, sine = turns[-1 if window else 0]
        rows = tiles.rows if n > tiles.few_rows and dim < 256 else tiles.few_rows
        rows = min(rows, max(16, _power(n)))
        self._products.heads_product[(heads + 2 * groups, -(-n // rows))](
            q, scale, weights.qkv_q, weights.qkv_scale, scale if bias is None else bias,
            scale if norm is None else norm, cosine, sine, high, low, query_scale, store.keys, store.key_scale,
            store.values, store.value_scale, new_scale, store.peak, start, float(self._query_max),
            ops.inverse(self._query_max), self._factor, ops.inverse(dim), config.norm_eps, n, new, slots,
            H=heads, G=groups, D=dim, K=config.hidden_size,
            BIAS=bias is not None, NORM=norm is not None, TURN=number not in config.unrotated, STEP=step, BM=rows,
            BK=self._terms(config.hidden_size), num_warps=8 if rows * dim >= 1 << 13 else 4, **self._options,
        )  # fmt: skip
        if not step:
            self._rowwise.value_peaks[(batch * groups,)](
                new_scale, store.peak, peaks, start, new, groups, BLOCK=min(1024, _power(new)), num_warps=1,
                **self._options,
            )  # fmt: skip
        most = max(8, tiles.queries * 64 // max(64, dim))  # larger heads leave registers for fewer queries
        queries = min(most, max(8, _power(new * heads // groups)))
        self._attention.attend[(batch * groups, -(-new * heads // groups // queries))](
            high, low, query_scale, store.keys, store.key_scale, store.values, store.value_scale, peaks, out,
            self._octave, start, new, slots, H=heads, G=groups, D=dim, WINDOW=window, BQ=queries, BS=tiles.keys,
            STAGES=3 if queries <= 16 else 2, num_warps=4, num_stages=1, **self._options,
        )  # fmt: skip
        return out

    # -- launches

    def _whole_rows(self, n: int, values: int) -> tuple[tuple[int], int, int]:
        """Grid, rows of a program and values of a row, for kernels that see whole rows."""
        block = _power(values)
        rows = max(1, self._tiles.row_values // block)
        return (-(-n // rows),), rows, block

    def _norm(self, x: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The norm of rows, (n, C), quantised: int8 and scales (n,)."""
        n, values = x.shape
        q, scale = self._empty(n, values, dtype=torch.int8), self._empty(n)
        grid, rows, block = self._whole_rows(n, values)
        self._rowwise.norm_quantise[grid](
            x, weight, q, scale, n, values, ops.inverse(values), self.config.norm_eps, ROWS=rows, BLOCK=block,
            num_warps=_warps(rows * block), **self._options,
        )  # fmt: skip
        return q, scale

    def _quantise(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        n, values = x.shape
        q, scale = self._empty(n, values, dtype=torch.int8), self._empty(n)
        grid, rows, block = self._whole_rows(n, values)
        self._rowwise.quantise[grid](
            x, q, scale, n, values, ROWS=rows, BLOCK=block, num_warps=_warps(rows * block), **self._options
        )
        return q, scale

    def _add(
        self, q: torch.Tensor, scale: torch.Tensor, weight: torch.Tensor, weight_scale: torch.Tensor, x: torch.Tensor
    ) -> None:
        """x += the product."""
        self._multiply(self._products.add_product, len(q), weight, q, scale, weight, weight_scale, x)

    def _multiply(
        self, kernel: Any, n: int, shape: torch.Tensor, *arguments: Any, terms: int = 0, halves: int = 1
    ) -> None:
        """Launches a product of n rows; outputs and terms are those of a matrix unless they are given."""
        tiles, outputs, terms = self._tiles, shape.shape[0], terms or shape.shape[1]
        rows, columns = tiles.rows, tiles.columns // halves
        if n <= tiles.few_rows or -(-n // rows) * -(-outputs // columns) < self._processors:
            rows, columns = min(tiles.few_rows, max(16, _power(n))), tiles.few_columns // halves
        kernel[(-(-n // rows) * -(-outputs // columns),)](
            *arguments, n, N=outputs, K=terms, BM=rows, BN=columns, BK=self._terms(terms),
            num_warps=8 if rows * columns * halves >= 1 << 14 else 4, num_stages=3, **self._options,
        )  # fmt: skip

    def _terms(self, terms: int) -> int:
        """Terms of a piece of a product: the most that divide all, if there are such."""
        size = self._tiles.terms
        while size > 32 and terms % size:
            size //= 2
        return size

    # -- recorded steps

    def _new_step(self, rows: int) -> Step:
        ids = torch.zeros(rows, 1, dtype=torch.int64, device=self.device)
        return Step(ids, torch.zeros(1, dtype=torch.int32, device=self.device))

    def _stepped(self, ids: torch.Tensor, begin: int, cache: GpuCache, step: Step) -> torch.Tensor:
        """A step of all rows of a cache, by its graph from the third one on."""
        step.ids.copy_(ids)
        step.begin.fill_(begin)
        places = tuple(table.data_ptr() for rope in self._ropes for table in rope(0, begin + 1))
        if step.hidden is None or places != step.tables:
            # Also compiles what is to be recorded.
            step.hidden, step.graph, step.tables = self._through(step.ids, step.begin, begin, cache), None, places
        elif step.graph is None:
            graph = torch.cuda.CUDAGraph()
            # Other threads may use the device meanwhile, with caches of their own.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                step.hidden = self._through(step.ids, step.begin, begin, cache)
            step.graph = graph
            graph.replay()
        else:
            step.graph.replay()
        return step.hidden.clone()


def _power(n: int) -> int:
    """The least power of two that is not below n."""
    return 1 << max(0, n - 1).bit_length()


def _warps(values: int) -> int:
    """Warps of a program that holds so many values: 16 or so for a thread."""
    return max(1, min(16, _power(values) // 512))
