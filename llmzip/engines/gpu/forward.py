"""The forward pass on CUDA devices by Triton kernels, with the same bits as reference.py; must not know text or files.

Nine launches per layer take all tokens through it: norm and quantisation; queries, keys and values, rotated, quantised
and stored in the cache; attention; quantisation; its product, added; norm and quantisation; gate and up, multiplied;
quantisation; its product, added. A step of all rows is recorded as a CUDA graph once and then replayed. choice.py
decides whether the kernels compute a model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ...numerics import scalars, tables
from ...system.memory import free_bytes
from ..operands import Operands
from ..torch_arrays import TensorModel, ids_on, with_byte_tokens
from .cache import GpuCache, GpuLayer, Step
from .support import Kernels, on

_MAX_BATCH_TOKENS = 1 << 16
"""Tokens of one prefill call: more would not use the device better."""

_BATCH_MEMORY_SHARE = 4
"""One part in this many of the free memory is for the tokens of one prefill call."""


@dataclass(frozen=True)
class Tiles:
    """Sizes of the pieces that one program works on: powers of two, which change no bit.

    Attributes:
        rows, columns, terms: rows, outputs and terms of a product with many rows.
        few_rows, few_columns: the same with few rows, so that there are enough programs for all multiprocessors.
        queries, keys: queries and keys of attention.
        row_values: values of whole rows that a program holds.
        masses: masses that a program computes at once.
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


@dataclass(frozen=True)
class _Span:
    """New tokens of all rows: B, T, the position of the first one, here and on the device, (1,) int32."""

    batch: int
    new: int
    begin: int
    start: torch.Tensor

    @property
    def tokens(self) -> int:
        return self.batch * self.new


class GpuForward:
    """Computes an ExactModel with the Triton kernels.

    Args:
        model: on a CUDA device, or on the CPU where Triton interprets; with nothing that the kernels lack.
        kernels: their modules.
        operands: those of the model.
        tiles: None for those that suit the device.

    Attributes:
        config: the model's configuration.
        device: where the model is.
    """

    name = "triton"
    is_concurrent = False

    def __init__(self, model: TensorModel, kernels: Kernels, operands: Operands, tiles: Tiles | None = None) -> None:
        config, device = model.config, model.device
        self._model, self.config, self.device, self._operands = model, config, device, operands
        self._qk_norms = [None if norm is None else norm.contiguous() for norm in operands.qk_norms]
        self._tiles = tiles or Tiles()
        self._rowwise, self._products, self._attention = kernels.rowwise, kernels.products, kernels.attention
        self._options = kernels.options
        self._processors = 1
        self._is_recording = device.type == "cuda"
        if device.type == "cuda":
            self._processors = torch.cuda.get_device_properties(device).multi_processor_count
        self._octave = torch.from_numpy(np.array(tables.exp2_octave(), dtype=np.int32)).to(device)
        self._query_max = scalars.query_max(config.head_dim)
        self._factor = tables.attention_factor(config.head_dim, config.attention_scale)

    # -- caches

    def new_cache(self, rows: int, slots: Sequence[int]) -> GpuCache:
        """Returns an empty cache, as `Forward.new_cache`."""
        zipped = zip(self.config.windows, slots, strict=True)
        cache = GpuCache([self._new_layer(rows, size, window) for window, size in zipped])
        cache.step = self._new_step(rows)
        return cache

    def cache_bytes(self, slots: Sequence[int]) -> int:
        """Returns the size of one row of a cache in bytes."""
        config = self.config
        return sum(map(self._ring_slots, slots)) * config.num_kv_heads * (2 * config.head_dim + 8)

    def batch_tokens(self) -> int:
        """Returns how many tokens fill the device, within a share of its free memory."""
        config = self.config
        heads = (config.num_heads + config.num_kv_heads) * config.head_dim
        token_bytes = 16 * config.hidden_size + 6 * config.mlp_size + 8 * heads + 16 * config.num_heads + 64
        return min(_MAX_BATCH_TOKENS, (free_bytes(str(self.device)) or 0) // _BATCH_MEMORY_SHARE // token_bytes)

    def _ring_slots(self, positions: int) -> int:
        """Rounds a number of positions up to whole tiles of keys."""
        return -(-positions // self._tiles.keys) * self._tiles.keys

    def _new_layer(self, rows: int, slots: int, window: int) -> GpuLayer:
        heads, dim, size = self.config.num_kv_heads, self.config.head_dim, self._ring_slots(slots)
        # Slots may be read before they are written; what is read then is not used.
        return GpuLayer(
            self._empty(rows, heads, size, dim, dtype=torch.int8),
            self._empty(rows, heads, dim, size, dtype=torch.int8),
            self._empty(rows, heads, size), self._empty(rows, heads, size), self._empty(rows, heads), window,
        )  # fmt: skip

    def _empty(self, *sizes: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.empty(sizes, dtype=dtype, device=self.device)

    # -- calls

    @torch.inference_mode()
    def forward(self, ids: np.ndarray, cache: GpuCache | None) -> torch.Tensor:
        """Computes final hidden states, (B, T) int64 to (B, T, hidden) float32.

        Ids outside the vocabulary are read as the nearest one inside.
        """
        batch, new = ids.shape
        if not ids.size:
            return self._empty(batch, new, self.config.hidden_size)
        begin = cache.length if cache is not None else 0
        parts, done = [], 0
        with on(self.device):
            while done < new:
                room = new - done if cache is None else cache.room(begin + done, new - done)
                part = ids_on(ids[:, done : done + room], self.device)
                if cache is not None and cache.step is not None and part.shape[1] == 1 and self._is_recording:
                    parts.append(self._stepped(part, begin + done, cache, cache.step))
                else:
                    start = torch.full((1,), begin + done, dtype=torch.int32, device=self.device)
                    parts.append(self._through(part, start, begin + done, cache))
                done += part.shape[1]
        if cache is not None:
            cache.length = begin + new
        return parts[0] if len(parts) == 1 else torch.cat(parts, 1)

    @torch.inference_mode()
    def masses(self, hidden: torch.Tensor, byte_tokens: int = 0) -> torch.Tensor:
        """Computes masses, (n, hidden) float32 to (n, V) int32, and columns of zeros."""
        with on(self.device):
            return with_byte_tokens(self._masses(hidden.contiguous()), byte_tokens)

    def _masses(self, hidden: torch.Tensor) -> torch.Tensor:
        model, n, vocab = self._model, len(hidden), self.config.vocab_size
        steps = self._empty(n, vocab)
        if n:
            q, scale = self._norm(hidden, model.final_norm)
            gain = tables.log2e_steps()
            self._multiply(
                self._products.head_product, n, model.head_q, q, scale, model.head_q, model.head_scale, gain, steps
            )
            # Each mass overwrites its logit.
            block = min(self._tiles.masses, _power(vocab))
            self._rowwise.masses[(n,)](
                steps, steps.view(torch.int32), self._octave, vocab, FLOOR=self.config.floor_bits, BLOCK=block,
                **self._options,
            )  # fmt: skip
        return steps.view(torch.int32)

    def _through(self, ids: torch.Tensor, start: torch.Tensor, begin: int, cache: GpuCache | None) -> torch.Tensor:
        """Takes new tokens through all layers.

        Args:
            ids: (B, T) int64.
            start: (1,) int32 on the device: the position `begin`.
            begin: position of the first new token.
            cache: takes the new keys and values, if there is one.
        """
        config, model = self.config, self._model
        batch, new = ids.shape
        span = _Span(batch, new, begin, start)
        x = self._empty(span.tokens, config.hidden_size)
        grid, rows, block = self._whole_rows(span.tokens, config.hidden_size)
        self._rowwise.embed[grid](
            ids, model.embedding_q, model.embedding_scale, config.embedding_gain, x, span.tokens, config.hidden_size,
            config.vocab_size, ROWS=rows, BLOCK=block, **self._options,
        )  # fmt: skip
        # Without a cache, each layer overwrites the keys and values of the one before.
        stores = [self._new_layer(batch, new, 0)] * config.num_layers if cache is None else cache.layers
        for number, (weights, store) in enumerate(zip(model.layers, stores, strict=True)):
            attended = self._attend(x, number, span, store)
            q, scale = self._quantise(attended)
            self._add(q, scale, weights.out_q, weights.out_scale, x)
            q, scale = self._norm(x, weights.post_norm)
            inner = self._empty(span.tokens, config.mlp_size)
            self._multiply(
                self._products.gate_product, span.tokens, weights.down_q.T, q, scale, weights.gate_up_q,
                weights.gate_up_scale, inner, self._octave, tables.log2e_steps(), terms=config.hidden_size, halves=2,
            )  # fmt: skip
            q, scale = self._quantise(inner)
            self._add(q, scale, weights.down_q, weights.down_scale, x)
        return x.view(batch, new, config.hidden_size)

    def _attend(self, x: torch.Tensor, number: int, span: _Span, store: GpuLayer) -> torch.Tensor:
        """Computes what the heads of a layer attend to: (B * T, H * D) float32.

        Args:
            x: (B * T, hidden) float32.
            number: the layer's.
            span: the new tokens.
            store: takes their keys and values.
        """
        config, tiles = self.config, self._tiles
        n, new, batch, start = span.tokens, span.new, span.batch, span.start
        heads, groups, dim = config.num_heads, config.num_kv_heads, config.head_dim
        window, slots, weights = config.windows[number], store.key_scale.shape[2], self._model.layers[number]
        q, scale = self._norm(x, weights.input_norm)
        high, low = (self._empty(n, heads, dim, dtype=torch.int8) for _ in range(2))
        query_scale, out = self._empty(n, heads), self._empty(n, heads * dim)
        is_step = new == 1
        new_scale = store.value_peak if is_step else self._empty(batch, new, groups)
        peaks = store.value_peak if is_step else self._empty(batch, groups, new)
        norm, bias = self._qk_norms[number], weights.qkv_bias
        cosine, sine = self._operands.ropes[-1 if window else 0].at(0, span.begin + new)
        rows = tiles.rows if n > tiles.few_rows and dim < 256 else tiles.few_rows
        rows = min(rows, max(16, _power(n)))
        self._products.heads_product[(heads + 2 * groups, -(-n // rows))](
            q, scale, weights.qkv_q, weights.qkv_scale, scale if bias is None else bias,
            scale if norm is None else norm, cosine, sine, high, low, query_scale, store.keys, store.key_scale,
            store.values, store.value_scale, new_scale, store.value_peak, start, float(self._query_max),
            scalars.inverse(self._query_max), self._factor, scalars.inverse(dim), config.norm_eps, n, new, slots,
            H=heads, G=groups, D=dim, K=config.hidden_size,
            BIAS=bias is not None, NORM=norm is not None, TURN=number not in config.unrotated, STEP=is_step, BM=rows,
            BK=self._terms(config.hidden_size), num_warps=8 if rows * dim >= 1 << 13 else 4, **self._options,
        )  # fmt: skip
        if not is_step:
            self._rowwise.value_peaks[(batch * groups,)](
                new_scale, store.value_peak, peaks, start, new, groups, BLOCK=min(1024, _power(new)), num_warps=1,
                **self._options,
            )  # fmt: skip
        max_queries = max(8, tiles.queries * 64 // max(64, dim))  # larger heads leave registers for fewer queries
        queries = min(max_queries, max(8, _power(new * heads // groups)))
        self._attention.attend[(batch * groups, -(-new * heads // groups // queries))](
            high, low, query_scale, store.keys, store.key_scale, store.values, store.value_scale, peaks, out,
            self._octave, start, new, slots, H=heads, G=groups, D=dim, WINDOW=window, BQ=queries, BS=tiles.keys,
            STAGES=3 if queries <= 16 else 2, num_warps=4, num_stages=1, **self._options,
        )  # fmt: skip
        return out

    # -- launches

    def _whole_rows(self, n: int, values: int) -> tuple[tuple[int], int, int]:
        """Returns the grid, the rows of a program and the values of a row, for kernels that see whole rows."""
        block = _power(values)
        rows = max(1, self._tiles.row_values // block)
        return (-(-n // rows),), rows, block

    def _norm(self, x: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Computes the norm of rows (n, C), quantised: (n, C) int8 and scales (n,) float32."""
        n, values = x.shape
        q, scale = self._empty(n, values, dtype=torch.int8), self._empty(n)
        grid, rows, block = self._whole_rows(n, values)
        self._rowwise.norm_quantise[grid](
            x, weight, q, scale, n, values, scalars.inverse(values), self.config.norm_eps, ROWS=rows, BLOCK=block,
            num_warps=_warps(rows * block), **self._options,
        )  # fmt: skip
        return q, scale

    def _quantise(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Quantises rows (n, C): (n, C) int8 and scales (n,) float32."""
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
        """Adds to x the product of rows and a matrix, both with their scales."""
        self._multiply(self._products.add_product, len(q), weight, q, scale, weight, weight_scale, x)

    def _multiply(
        self, kernel: Any, n: int, shape: torch.Tensor, *arguments: Any, terms: int = 0, halves: int = 1
    ) -> None:
        """Launches a product.

        Args:
            kernel: one of products.py.
            n: rows.
            shape: a matrix (N, K) that has as many outputs and terms.
            arguments: the kernel's, up to n.
            terms: K, if the matrix has another.
            halves: matrices that are multiplied at once, each with N outputs.
        """
        tiles, outputs, terms = self._tiles, shape.shape[0], terms or shape.shape[1]
        rows, columns = tiles.rows, tiles.columns // halves
        if n <= tiles.few_rows or -(-n // rows) * -(-outputs // columns) < self._processors:
            rows, columns = min(tiles.few_rows, max(16, _power(n))), tiles.few_columns // halves
        kernel[(-(-n // rows) * -(-outputs // columns),)](
            *arguments, n, N=outputs, K=terms, BM=rows, BN=columns, BK=self._terms(terms),
            num_warps=8 if rows * columns * halves >= 1 << 14 else 4, num_stages=3, **self._options,
        )  # fmt: skip

    def _terms(self, terms: int) -> int:
        """Returns the terms of a tile: the largest size that divides them all, or 32."""
        size = self._tiles.terms
        while size > 32 and terms % size:
            size //= 2
        return size

    # -- recorded steps

    def _new_step(self, rows: int) -> Step:
        ids = torch.zeros(rows, 1, dtype=torch.int64, device=self.device)
        return Step(ids, torch.zeros(1, dtype=torch.int32, device=self.device))

    def _stepped(self, ids: torch.Tensor, begin: int, cache: GpuCache, step: Step) -> torch.Tensor:
        """Computes a step of all rows of a cache: the second one is recorded, later ones are replayed."""
        step.ids.copy_(ids)
        step.begin.fill_(begin)
        addresses = tuple(table.data_ptr() for rope in self._operands.ropes for table in rope.at(0, begin + 1))
        if step.hidden is None or addresses != step.tables:
            # This also compiles what will be recorded.
            step.hidden, step.graph, step.tables = self._through(step.ids, step.begin, begin, cache), None, addresses
        elif step.graph is None:
            graph = torch.cuda.CUDAGraph()
            # Other threads may use the device at the same time, with caches of their own.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                step.hidden = self._through(step.ids, step.begin, begin, cache)
            step.graph = graph
            graph.replay()
        else:
            step.graph.replay()
        return step.hidden.clone()


def _power(n: int) -> int:
    """Returns the smallest power of two that is at least n."""
    return 1 << max(0, n - 1).bit_length()


def _warps(values: int) -> int:
    """Returns the warps of a program that holds that many values: about 16 for each thread."""
    return max(1, min(16, _power(values) // 512))
