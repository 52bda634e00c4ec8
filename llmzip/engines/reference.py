"""The exact forward pass in plain torch: the whole model in one file, which documents what the kernels compute.

It runs decoders of the Llama, GPT-2 and NeoX kinds on any device: norms with or without mean, rotary or learned
positions, grouped-query attention, gated or plain MLP, biases, q/k norms and caps, as the configuration says. The same
function serves prefill (T tokens of a row at once) and step (one token of every row). Each output depends only on
integer sums over its own row, so both give the same bits (docs/numerics.md section 6).

Shapes: B rows, T new tokens, S positions, H query heads, G key/value heads, g = H / G query heads for each of them,
D head size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import torch

from ..numerics import ops, scalars, tables
from . import operands as shared
from .kv_cache import CachedLayer, LayerCaches
from .operands import Operands
from .torch_arrays import TensorModel, ids_on

_SCORES_PER_PIECE = 1 << 18
"""Attention works on pieces of about this many scores, so that a dozen elementwise passes stay in the cache."""

_HEAD_ROWS = 256
"""Rows of logits that are computed at once."""


# -- keys and values ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class KeysValues:
    """Quantised keys and values of S positions.

    Attributes:
        keys: (B, G, D, S) float32, integer-valued, |k| <= 127; positions last, as the product wants them.
        values: (B, G, S, D) float32, integer-valued, |v| <= 127.
        key_scale, value_scale: (B, G, S) float32.
    """

    keys: torch.Tensor
    values: torch.Tensor
    key_scale: torch.Tensor
    value_scale: torch.Tensor

    def part(self, rows: slice, positions: slice) -> KeysValues:
        """Returns some of the positions of some of the rows; nothing is copied."""
        return KeysValues(
            self.keys[rows, ..., positions],
            self.values[rows, :, positions],
            self.key_scale[rows, :, positions],
            self.value_scale[rows, :, positions],
        )


class LayerCache(CachedLayer):
    """The cache of one layer, whose keys, values and scales are as in KeysValues."""

    def append(self, position: int, new: KeysValues) -> KeysValues:
        """Stores new positions after the others; returns all that are stored.

        Args:
            position: the first new one.
            new: their keys and values.
        """
        first, count = position - self.begin, new.key_scale.shape[-1]
        if first + count > self.key_scale.shape[-1]:
            kept = self.window - 1
            for store, axis in ((self.keys, 3), (self.values, 2), (self.key_scale, 2), (self.value_scale, 2)):
                store.narrow(axis, 0, kept).copy_(store.narrow(axis, first - kept, kept).clone())
            self.begin, first = position - kept, kept
        end = first + count
        self.keys[..., first:end] = new.keys
        self.values[:, :, first:end] = new.values
        self.key_scale[:, :, first:end] = new.key_scale
        self.value_scale[:, :, first:end] = new.value_scale
        filled = KeysValues(self.keys, self.values, self.key_scale, self.value_scale)
        return filled.part(slice(None), slice(end))


class KVCache(LayerCaches[LayerCache]):
    """The cache of plain torch."""


@dataclass(frozen=True)
class Queries:
    """Quantised queries of T tokens.

    Attributes:
        q: (B, G, g, T, D) float32, integer-valued.
        scale: (B, G, g, T, 1) float32, the attention factor included.
        value_peak: (B, G, T) float32, the largest value_scale that each token may see, or a larger one.
    """

    q: torch.Tensor
    scale: torch.Tensor
    value_peak: torch.Tensor

    def part(self, rows: slice, tokens: slice) -> Queries:
        """Returns some of the tokens of some of the rows; nothing is copied."""
        return Queries(self.q[rows, :, :, tokens], self.scale[rows, :, :, tokens], self.value_peak[rows, :, tokens])


# -- the forward pass --------------------------------------------------------------------------------------------------


class TorchForward:
    """Computes an ExactModel with torch's own operations.

    Args:
        model: with tensors on any device.
        operands: those of the model, on the same device.

    Attributes:
        kernels: the matrix products, in a form that is exact on the device.
    """

    name = "torch"
    is_concurrent = False

    def __init__(self, model: TensorModel, operands: Operands) -> None:
        config, device = model.config, model.device
        self.model, self.config, self.device, self._operands = model, config, device, operands
        self.kernels = ops.Kernels(device, model.matrix_shapes())
        query_max = scalars.query_max(config.head_dim)
        kv_heads = 2 * config.num_kv_heads
        maxima = [query_max] * config.num_heads + [scalars.KV_MAX] * kv_heads
        units = [scalars.inverse(query_max)] * config.num_heads + [scalars.inverse(scalars.KV_MAX)] * kv_heads
        self._head_max = torch.tensor(maxima, dtype=torch.float32, device=device)[:, None]
        self._head_unit = torch.tensor(units, dtype=torch.float32, device=device)[:, None]
        self._attention_factor = tables.attention_factor(config.head_dim, config.attention_scale)
        self._exp2_masses = torch.from_numpy(tables.exp2_table(config.floor_bits)).to(device)
        self._exp2_steps = torch.from_numpy(tables.exp2_table()).to(device, torch.float32)  # integers up to 2^20
        self._exp2_unit = self._exp2_steps * 2.0**-20
        self._normal = normal_table(device) if config.activation == "gelu" else self._exp2_unit

    def batch_tokens(self) -> int:
        """Returns 0: no device needs more tokens at once than the engine gives it anyway."""
        return 0

    def new_cache(self, rows: int, slots: Sequence[int]) -> KVCache:
        """Returns an empty cache, as `Forward.new_cache`."""
        heads, dim = self.config.num_kv_heads, self.config.head_dim

        def zeros(*sizes: int) -> torch.Tensor:
            return torch.zeros(rows, heads, *sizes, dtype=torch.float32, device=self.device)

        return KVCache(
            [
                LayerCache(zeros(dim, size), zeros(size, dim), zeros(size), zeros(size), zeros(1), window)
                for window, size in zip(self.config.windows, slots, strict=True)
            ]
        )

    def cache_bytes(self, slots: Sequence[int]) -> int:
        """Returns the size of one row of a cache in bytes."""
        return 4 * self.config.num_kv_heads * sum(slots) * (2 * self.config.head_dim + 2)

    @torch.inference_mode()
    def forward(self, ids: np.ndarray, cache: KVCache | None) -> torch.Tensor:
        """Computes final hidden states, (B, T) int64 to (B, T, hidden) float32."""
        self.kernels.check()
        x = self._embed(ids_on(ids, self.device), cache.length if cache is not None else 0)
        for number, layer in enumerate(self.model.layers):
            h = self._norm(x, layer.input_norm, layer.input_norm_bias)
            attended = self._attention(h, number, (ids.shape[0], ids.shape[1]), cache)
            if layer.attention_post_norm is not None:
                attended = self._norm(attended, layer.attention_post_norm)
            if self.config.parallel:
                h = self._norm(x, layer.post_norm, layer.post_norm_bias)
                x = x + attended
            else:
                x = x + attended
                h = self._norm(x, layer.post_norm, layer.post_norm_bias)
            computed = self._mlp(h, layer)
            if layer.mlp_post_norm is not None:
                computed = self._norm(computed, layer.mlp_post_norm)
            x = x + computed
        if cache is not None:
            cache.length += ids.shape[1]
        return x.view(*ids.shape, -1)

    @torch.inference_mode()
    def masses(self, hidden: torch.Tensor, byte_tokens: int = 0) -> torch.Tensor:
        """Computes masses, (n, hidden) float32 to (n, V) int32 (docs/numerics.md section 6.7), and columns of zeros."""
        self.kernels.check()
        vocab = self.config.vocab_size
        out = torch.zeros(hidden.shape[0], vocab + byte_tokens, dtype=torch.int32, device=self.device)
        for first in range(0, hidden.shape[0], _HEAD_ROWS):
            rows = slice(first, first + _HEAD_ROWS)
            steps = self._logit_steps(hidden[rows])
            peak = steps.amax(-1, keepdim=True).add_(0.5)
            index = ops.exp2_index(torch.sub(peak, steps, out=steps), len(self._exp2_masses))
            out[rows, :vocab] = ops.exp2_lookup(self._exp2_masses, index)
        return out

    def _logit_steps(self, hidden: torch.Tensor) -> torch.Tensor:
        """Computes logits in units of 2^-10 bits: (n, V) float32."""
        model, config = self.model, self.config
        h = self._norm(hidden, model.final_norm, model.final_norm_bias)
        steps = self.kernels.linear(h, model.head_q, model.head_scale, config.planes, tables.log2e_steps())
        return ops.soft_cap(steps, config.logit_cap, self._exp2_unit) if config.logit_cap else steps

    def _embed(self, ids: torch.Tensor, begin: int) -> torch.Tensor:
        """Looks up embedding rows, with what learned positions add: (B, T) ids to (B * T, hidden) float32."""
        model, flat = self.model, ids.reshape(-1)
        x: torch.Tensor = model.embedding_q[flat].to(torch.float32).mul_(model.embedding_scale[flat, None])
        if self.config.embedding_gain != 1.0:
            x.mul_(self.config.embedding_gain)
        if model.positions_q is not None and model.positions_scale is not None:
            span = slice(begin, begin + ids.shape[1])
            rows = model.positions_q[span].to(torch.float32).mul_(model.positions_scale[span, None])
            x = (x.view(len(ids), -1, x.shape[-1]) + rows).view(x.shape)
        return x

    def _norm(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """Computes the model's kind of norm over the last dimension; the norms after a branch have no bias."""
        config = self.config
        if config.norm == "rms":
            return ops.rms_norm(x, weight, config.norm_eps)
        y = ops.rms_norm(ops.centred(x), weight, config.norm_eps)
        return y if bias is None else y.add_(bias)

    def _activate(self, x: torch.Tensor) -> torch.Tensor:
        kind = self.config.activation
        if kind == "gelu":
            return ops.gelu(x, self._normal)
        return (ops.silu if kind == "silu" else ops.gelu_tanh)(x, self._exp2_unit)

    def _mlp(self, h: torch.Tensor, layer: SimpleNamespace) -> torch.Tensor:
        planes = self.config.planes
        inner = self.kernels.linear(h, layer.gate_up_q, layer.gate_up_scale, planes)
        if layer.gate_up_bias is not None:
            inner.add_(layer.gate_up_bias)
        if self.config.gated:
            gate, up = inner.chunk(2, dim=-1)
            inner = self._activate(gate).mul_(up)
        else:
            inner = self._activate(inner)
        y = self.kernels.linear(inner, layer.down_q, layer.down_scale, planes)
        return y if layer.down_bias is None else y.add_(layer.down_bias)

    # -- attention

    def _attention(self, h: torch.Tensor, number: int, shape: tuple[int, int], cache: KVCache | None) -> torch.Tensor:
        """Computes attention of new tokens over the cached positions and their own: (B * T, hidden) float32.

        Args:
            h: (B * T, hidden) float32.
            number: the layer's.
            shape: (B, T).
            cache: takes the new keys and values, if there is one.
        """
        config, layer, (batch, new) = self.config, self.model.layers[number], shape
        begin = cache.length if cache is not None else 0
        queries, seen = self._heads(h, number, shape, begin)
        first_slot = begin  # of the new tokens among the positions that are seen
        if cache is not None:
            store = cache.layers[number]
            value_peak = torch.maximum(queries.value_peak, store.value_peak) if begin else queries.value_peak
            store.value_peak.copy_(value_peak[..., -1:])
            queries = Queries(queries.q, queries.scale, value_peak)
            seen = store.append(begin, seen)
            first_slot = seen.key_scale.shape[-1] - new
        heads, kv_heads, dim, window = config.num_heads, config.num_kv_heads, config.head_dim, config.windows[number]
        out = torch.empty(batch, new, kv_heads, heads // kv_heads, dim, dtype=torch.float32, device=self.device)
        end = first_slot + new
        for rows, span in _pieces(batch, new, heads * min(end, window or end)):
            first = max(0, first_slot + span.start + 1 - window) if window else 0
            piece = self._attend(
                queries.part(rows, span),
                seen.part(rows, slice(first, first_slot + span.stop)),
                offset=first_slot + span.start - first,
                window=window,
            )
            out[rows, span] = piece.permute(0, 3, 1, 2, 4)
        y = self.kernels.linear(out.view(batch * new, heads * dim), layer.out_q, layer.out_scale, config.planes)
        return y if layer.out_bias is None else y.add_(layer.out_bias)

    def _heads(self, h: torch.Tensor, number: int, shape: tuple[int, int], begin: int) -> tuple[Queries, KeysValues]:
        """Computes queries, keys and values of new tokens, rotated and quantised (docs/numerics.md section 6.3).

        Args:
            h, number, shape: as in `_attention`.
            begin: position of the first new token.

        Returns:
            Queries and KeysValues of the T new tokens; value_peak covers these only.
        """
        config, layer, (batch, new) = self.config, self.model.layers[number], shape
        heads, kv_heads, dim = config.num_heads, config.num_kv_heads, config.head_dim
        qkv = self.kernels.linear(h, layer.qkv_q, layer.qkv_scale, config.planes)
        if layer.qkv_bias is not None:
            qkv.add_(layer.qkv_bias)
        qkv = qkv.view(batch, new, -1, dim)
        qk = qkv[:, :, : heads + kv_heads]
        qk_norm = self._operands.qk_norms[number]
        normed = qk.clone() if qk_norm is None else ops.rms_norm(qk, qk_norm, config.norm_eps)
        if number in config.unrotated:
            qk.copy_(normed)
        else:
            cos, sin = self._operands.ropes[-1 if config.windows[number] else 0].at(begin, new)
            ops.rotate(normed, cos, sin, out=qk)
        integers, scales = ops.quantise_heads(qkv, self._head_max, self._head_unit)
        q, k, v = torch.split(integers, [heads, kv_heads, kv_heads], dim=2)
        q_scale, k_scale, v_scale = torch.split(scales, [heads, kv_heads, kv_heads], dim=2)
        k_scale, v_scale = (scale.squeeze(-1).transpose(1, 2) for scale in (k_scale, v_scale))  # (B, G, T)
        grouped = (batch, new, kv_heads, heads // kv_heads)
        queries = Queries(
            q.reshape(*grouped, dim).permute(0, 2, 3, 1, 4),
            (q_scale * self._attention_factor).view(*grouped, 1).permute(0, 2, 3, 1, 4),
            v_scale.cummax(-1).values if new > 1 else v_scale,
        )
        return queries, KeysValues(k.permute(0, 2, 3, 1), v.transpose(1, 2), k_scale, v_scale)

    def _attend(self, queries: Queries, seen: KeysValues, *, offset: int, window: int) -> torch.Tensor:
        """Computes softmax attention of one piece (docs/numerics.md section 6.4).

        Args:
            queries: of t tokens of b rows.
            seen: S positions of the same rows.
            offset: index of the first query among the S positions.
            window: positions that a query sees, itself included; 0 for all.

        Returns:
            (b, G, g, t, D) float32.
        """
        b, kv_heads, g, t, dim = queries.q.shape
        size = seen.keys.shape[-1]
        scores = self.kernels.product(queries.q.reshape(b, kv_heads, g * t, dim), seen.keys)
        scores = scores.view(b, kv_heads, g, t, size).mul_(queries.scale).mul_(seen.key_scale[:, :, None, None])
        if self.config.attention_cap:
            scores = ops.soft_cap(scores, self.config.attention_cap, self._exp2_unit)
        if t > 1:
            query = torch.arange(offset, offset + t, device=self.device)[:, None]
            key = torch.arange(size, device=self.device)
            hidden = key > query
            if window:
                hidden |= key <= query - window
            scores.masked_fill_(hidden, float("-inf"))
        peak = scores.amax(-1, keepdim=True).add_(0.5)
        index = ops.exp2_index(torch.sub(peak, scores, out=scores))
        # A hidden position's index is the last one, and the table ends in 0.
        weight = ops.exp2_lookup(self._exp2_steps, index)
        total = weight.sum(-1, keepdim=True, dtype=torch.float64).to(torch.float32)
        value_peak = queries.value_peak[:, :, None, :, None]
        unit = torch.full_like(total, scalars.WEIGHT_SUM).div_(total.mul_(value_peak))
        weight.mul_(seen.value_scale[:, :, None, None]).mul_(unit).round_()
        mixed = self._weighted_sum(weight.view(b, kv_heads, g * t, size), seen.values)
        return mixed.view(b, kv_heads, g, t, dim).mul_(value_peak * 2.0**-17)

    def _weighted_sum(self, weight: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Sums (b, G, S, D) integer values by (b, G, n, S) integer weights: (b, G, n, D) float32, rounded once."""
        size = values.shape[2]
        if size <= scalars.VALUE_KEYS:
            return self.kernels.product(weight, values)
        total = torch.zeros(*weight.shape[:3], values.shape[-1], dtype=torch.float64, device=self.device)
        for first in range(0, size, scalars.VALUE_KEYS):
            keys = slice(first, first + scalars.VALUE_KEYS)
            total += self.kernels.product(weight[..., keys], values[:, :, keys])
        return total.to(torch.float32)


def normal_table(device: torch.device) -> torch.Tensor:
    """Returns `operands.normal_table` on a device."""
    return torch.from_numpy(shared.normal_table()).to(device)


def _pieces(batch: int, new: int, scores_per_query: int) -> Iterator[tuple[slice, slice]]:
    """Yields slices of rows and of queries that together cover (batch, new) in pieces of bounded work."""
    queries = max(1, min(new, _SCORES_PER_PIECE // scores_per_query))
    rows = max(1, _SCORES_PER_PIECE // (scores_per_query * queries)) if queries == new else 1
    for r in range(0, batch, rows):
        for t in range(0, new, queries):
            yield slice(r, min(batch, r + rows)), slice(t, min(new, t + queries))
