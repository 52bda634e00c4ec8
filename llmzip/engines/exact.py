"""The exact forward pass of decoders of the Llama, GPT-2 and NeoX kinds, whole model in one file; must not know text.

Norms with or without mean, rotary or learned positions, grouped-query attention, gated or plain MLP, biases, q/k norms,
caps: whatever the configuration says. One function serves prefill (T tokens of a row at once) and step (one token of
every row): each output depends only on integer sums over its own row, so both give the same bits (docs/numerics.md
section 6). Shapes: B rows, T new tokens, S positions, H query heads, G key/value heads, D head size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch

from ..errors import EngineError
from ..models.config import ExactConfig
from ..models.model import ExactModel, LayerWeights
from ..numerics import ops, tables
from ..system import forks
from ..system.memory import free_bytes
from .cpu import forward as fused
from .cpu import kernels
from .gpu import forward as gpu
from .kv_cache import CachedLayer, LayerCaches
from .readout import DeviceReadout

_SCORES_PER_PIECE = 1 << 18
"""Attention works on pieces of about this many scores, so that a dozen elementwise passes stay in the cache."""

_HEAD_ROWS = 256
"""Rows of logits computed at once."""


@dataclass
class LayerCache(CachedLayer):
    """The cache of one layer.

    Attributes:
        key_q: (B, G, D, S) float32, integer-valued, |k| <= 127; positions last, as the product wants them.
        value_q: (B, G, S, D) float32, integer-valued, |v| <= 127.
        key_scale, value_scale: (B, G, S) float32.
        value_peak: (B, G, 1) float32, the largest value_scale since the context began.
        window: positions that a token sees, itself included; 0 for all.
        begin: the position in slot 0.
    """

    key_q: torch.Tensor
    value_q: torch.Tensor
    key_scale: torch.Tensor
    value_scale: torch.Tensor
    value_peak: torch.Tensor
    window: int
    begin: int = 0

    def append(
        self, position: int, keys: torch.Tensor, values: torch.Tensor, k_scale: torch.Tensor, v_scale: torch.Tensor
    ) -> int:
        """Stores new positions behind the others; returns how many slots are filled."""
        at, new = position - self.begin, keys.shape[-1]
        if at + new > self.key_scale.shape[-1]:
            keep = self.window - 1
            for store, axis in ((self.key_q, 3), (self.value_q, 2), (self.key_scale, 2), (self.value_scale, 2)):
                store.narrow(axis, 0, keep).copy_(store.narrow(axis, at - keep, keep).clone())
            self.begin, at = position - keep, keep
        end = at + new
        self.key_q[..., at:end] = keys
        self.value_q[:, :, at:end] = values
        self.key_scale[:, :, at:end] = k_scale
        self.value_scale[:, :, at:end] = v_scale
        return end


class KVCache(LayerCaches[LayerCache]):
    """The cache of plain torch."""


AnyCache: TypeAlias = KVCache | fused.FusedCache | gpu.GpuCache


class ExactEngine:
    """Runs an ExactModel on one device. One object, one call at a time."""

    stepwise = False

    def __init__(
        self,
        model: ExactModel,
        device: torch.device | str = "cpu",
        batch_tokens: int | None = None,
        compiled: bool = True,
    ) -> None:
        self.device = torch.device(device)
        self.model = model.to(self.device)
        self.kernels = ops.Kernels(self.device, self.model.matrix_shapes())
        # Two callers may share an engine, and its tables and kernels may change while it runs.
        self._lock = forks.Lock()
        shape = model.config
        self.vocab_size = shape.vocab_size
        self.context = shape.context
        self.start_token = shape.start_token
        self.batch_tokens = batch_tokens or max(self.context, 1024)
        query_max = ops.query_max(shape.head_dim)
        kv_heads = 2 * shape.num_kv_heads
        maxima = [query_max] * shape.num_heads + [ops.KV_MAX] * kv_heads
        units = [ops.inverse(query_max)] * shape.num_heads + [ops.inverse(ops.KV_MAX)] * kv_heads
        self._head_max = torch.tensor(maxima, dtype=torch.float32, device=self.device)[:, None]
        self._head_unit = torch.tensor(units, dtype=torch.float32, device=self.device)[:, None]
        self._qk_norms = [_qk_norm(layer, shape) for layer in self.model.layers]
        self._attention_factor = tables.attention_factor(shape.head_dim, shape.attention_scale)
        exp2 = torch.from_numpy(tables.exp2_table()).to(self.device)
        self._exp2_int = exp2
        self._exp2_steps = exp2.to(torch.float32)  # integers up to 2^20
        self._exp2_unit = self._exp2_steps * 2.0**-20
        self._normal = _normal_table(self.device) if shape.activation == "gelu" else self._exp2_unit
        steps = shape.rope_steps or tuple(tables.rope_steps(shape.rope_theta, shape.head_dim))
        self._ropes = [_Rope(steps, shape.context, self.device)]
        if shape.local_rope_steps:
            self._ropes.append(_Rope(shape.local_rope_steps, shape.context, self.device))
        self._fused: fused.FusedForward | gpu.GpuForward | None = None
        self.kernels_text = "torch"
        if compiled and (self.device.type == "cuda" or gpu.interpreted()):
            self._fused, self.kernels_text = self._gpu_kernels()
        elif compiled and self.device.type == "cpu":
            self._fused, self.kernels_text = self._compiled_kernels()
        self.is_slower = compiled and self._fused is None
        if isinstance(self._fused, gpu.GpuForward) and batch_tokens is None:
            self.batch_tokens = max(self.batch_tokens, self._fused.batch_tokens(free_bytes(self.device)))

    def _gpu_kernels(self) -> tuple[gpu.GpuForward | None, str]:
        """The kernels of CUDA devices, if they can be used, and which they are or why not."""
        reason = gpu.unavailable(self.device) or gpu.unsupported(self.model)
        if not reason:
            ropes = [rope.at for rope in self._ropes]
            kernels = gpu.GpuForward(self.model, self.device, self._qk_norms, ropes)
            reason = "" if gpu.interpreted() else gpu.trial(kernels, self.forward, self.masses)
            if not reason:
                return kernels, "triton"
        return None, f"torch, without the Triton kernels ({reason})"

    def _compiled_kernels(self) -> tuple[fused.FusedForward | None, str]:
        """The compiled kernels, if they can be used, and which they are or why not."""
        library, reason = kernels.chosen()
        reason = reason or fused.unsupported(self.model)
        if library is None or reason:
            return None, f"torch, without the compiled kernels ({reason})"
        ropes = [rope.at for rope in self._ropes]
        return fused.FusedForward(self.model, library, self._qk_norms, ropes), library.level

    @property
    def num_parameters(self) -> int:
        return self.model.num_parameters

    @property
    def weights_bytes(self) -> int:
        return self.model.weights_bytes

    def flops_per_token(self, length: int) -> int | None:
        """Of one token's forward pass, on the average over a sequence of so many."""
        return self.model.config.flops_per_token(length)

    def new_cache(self, rows: int, chunk: int, positions: int) -> AnyCache:
        shape = self.model.config
        slots = [self._cache_positions(window, chunk, positions) for window in shape.windows]
        if isinstance(self._fused, gpu.GpuForward):
            return self._fused.new_cache(rows, slots)
        if self._fused is not None:
            return fused.new_cache(shape, rows, slots)
        heads, dim = shape.num_kv_heads, shape.head_dim

        def layer(window: int) -> LayerCache:
            size = self._cache_positions(window, chunk, positions)

            def tensor(*sizes: int) -> torch.Tensor:
                return torch.zeros(rows, heads, *sizes, dtype=torch.float32, device=self.device)

            return LayerCache(tensor(dim, size), tensor(size, dim), tensor(size), tensor(size), tensor(1), window)

        return KVCache([layer(window) for window in shape.windows])

    def step_bytes(self, rows: int, chunk: int, positions: int) -> int:
        """About the memory of a cache and of one step of all rows with its masses and tables, in bytes."""
        shape = self.model.config
        slots = [self._cache_positions(window, chunk, positions) for window in shape.windows]
        if isinstance(self._fused, gpu.GpuForward):
            cache = self._fused.row_bytes(slots)
        elif self._fused is not None:
            cache = fused.row_bytes(shape, slots)
        else:
            cache = 4 * shape.num_kv_heads * sum(slots) * (2 * shape.head_dim + 2)
        step = 4 * (8 * shape.hidden_size + 8 * shape.mlp_size + 4 * shape.num_heads * shape.head_dim)
        return rows * (cache + step + 12 * shape.vocab_size)

    def _cache_positions(self, window: int, chunk: int, positions: int) -> int:
        most = min(self.context, positions)
        return min(most, window - 1 + max(chunk, window // 8, 16)) if window else most

    @property
    def callers(self) -> int:
        """As `Engine.callers`: the compiled kernels change nothing that others see."""
        return torch.get_num_threads() if isinstance(self._fused, fused.FusedForward) else 1

    @torch.inference_mode()
    def forward(self, ids: torch.Tensor, cache: AnyCache | None = None) -> torch.Tensor:
        with self._lock:
            begin = cache.length if cache is not None else 0
            if begin + ids.shape[1] > self.context:
                raise EngineError(f"{begin + ids.shape[1]} positions exceed the model's context of {self.context}")
            for rope in self._ropes:
                rope.extend(begin + ids.shape[1])
            if not isinstance(self._fused, fused.FusedForward):
                with forks.whole:  # libraries of torch have locks of their own
                    return self._forward(ids, cache)
        return self._fused.forward(ids, cache)  # type: ignore[arg-type]  # the cache is its own

    def _forward(self, ids: torch.Tensor, cache: AnyCache | None) -> torch.Tensor:
        if self._fused is not None:
            return self._fused.forward(ids, cache)  # type: ignore[arg-type]  # the cache is its own
        assert cache is None or isinstance(cache, KVCache)
        batch, new = ids.shape
        begin = cache.length if cache is not None else 0
        self.kernels.check()
        x = self._embed(ids.reshape(-1), batch, begin)
        for number, layer in enumerate(self.model.layers):
            h = self._norm(x, layer.input_norm, layer.input_norm_bias)
            attended = self._attention(h, layer, number, batch, new, begin, cache)
            if layer.attention_post_norm is not None:
                attended = self._norm(attended, layer.attention_post_norm)
            if self.model.config.parallel:
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
            cache.length = begin + new
        return x.view(batch, new, -1)

    def readout(self) -> DeviceReadout:
        return DeviceReadout(self.vocab_size, self.device)

    @torch.inference_mode()
    def masses(self, hidden: torch.Tensor) -> torch.Tensor:
        if isinstance(self._fused, fused.FusedForward):
            return self._fused.masses(hidden)
        with self._lock, forks.whole:
            return self._masses(hidden)

    def _masses(self, hidden: torch.Tensor) -> torch.Tensor:
        if self._fused is not None:
            return self._fused.masses(hidden)
        self.kernels.check()
        out = torch.empty(hidden.shape[0], self.vocab_size, dtype=torch.int32, device=self.device)
        for n in range(0, hidden.shape[0], _HEAD_ROWS):
            steps = self._logit_steps(hidden[n : n + _HEAD_ROWS])
            peak = steps.amax(-1, keepdim=True).add_(0.5)
            index = ops.exp2_index(torch.sub(peak, steps, out=steps))
            out[n : n + _HEAD_ROWS] = ops.exp2_lookup(self._exp2_int, index)
        return out

    @torch.inference_mode()
    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Natural-logarithm logits (n, V) float32, for comparisons with other implementations only."""
        return self._logit_steps(hidden) / tables.log2e_steps()

    def _logit_steps(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits in units of 2^-10 bits: (n, V) float32."""
        model = self.model
        h = self._norm(hidden, model.final_norm, model.final_norm_bias)
        steps = self.kernels.linear(h, model.head_q, model.head_scale, model.config.planes, tables.log2e_steps())
        cap = model.config.logit_cap
        return ops.soft_cap(steps, cap, self._exp2_unit) if cap else steps

    def _embed(self, flat: torch.Tensor, batch: int, begin: int) -> torch.Tensor:
        """Embedding rows of (B * T,) ids, with what learned positions add: (B * T, hidden) float32."""
        model = self.model
        x = model.embedding_q[flat].to(torch.float32).mul_(model.embedding_scale[flat, None])
        if model.config.embedding_gain != 1.0:
            x.mul_(model.config.embedding_gain)
        if model.positions_q is not None and model.positions_scale is not None:
            here = slice(begin, begin + len(flat) // batch)
            rows = model.positions_q[here].to(torch.float32).mul_(model.positions_scale[here, None])
            x = (x.view(batch, -1, x.shape[-1]) + rows).view(x.shape)
        return x

    def _norm(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """The model's kind of norm over the last dimension; no bias after a branch."""
        config = self.model.config
        if config.norm == "rms":
            return ops.rms_norm(x, weight, config.norm_eps)
        y = ops.rms_norm(ops.centred(x), weight, config.norm_eps)
        return y if bias is None else y.add_(bias)

    def _activate(self, x: torch.Tensor) -> torch.Tensor:
        kind = self.model.config.activation
        if kind == "gelu":
            return ops.gelu(x, self._normal)
        return (ops.silu if kind == "silu" else ops.gelu_tanh)(x, self._exp2_unit)

    def _mlp(self, h: torch.Tensor, layer: LayerWeights) -> torch.Tensor:
        planes = self.model.config.planes
        inner = self.kernels.linear(h, layer.gate_up_q, layer.gate_up_scale, planes)
        if layer.gate_up_bias is not None:
            inner.add_(layer.gate_up_bias)
        if self.model.config.gated:
            gate, up = inner.chunk(2, dim=-1)
            inner = self._activate(gate).mul_(up)
        else:
            inner = self._activate(inner)
        y = self.kernels.linear(inner, layer.down_q, layer.down_scale, planes)
        return y if layer.down_bias is None else y.add_(layer.down_bias)

    def _attention(
        self,
        h: torch.Tensor,
        layer: LayerWeights,
        number: int,
        batch: int,
        new: int,
        begin: int,
        cache: KVCache | None,
    ) -> torch.Tensor:
        """Attention of B * T new tokens over the cached and the new positions: (B * T, hidden) float32."""
        shape = self.model.config
        heads, kv_heads, dim = shape.num_heads, shape.num_kv_heads, shape.head_dim
        qkv = self.kernels.linear(h, layer.qkv_q, layer.qkv_scale, shape.planes)
        if layer.qkv_bias is not None:
            qkv.add_(layer.qkv_bias)
        qkv = qkv.view(batch, new, -1, dim)
        qk = qkv[:, :, : heads + kv_heads]
        qk_norm = self._qk_norms[number]
        rotated = qk.clone() if qk_norm is None else ops.rms_norm(qk, qk_norm, shape.norm_eps)
        if number in shape.unrotated:
            qk.copy_(rotated)
        else:
            cos, sin = self._ropes[-1 if shape.windows[number] else 0].at(begin, new)
            ops.rotate(rotated, cos, sin, out=qk)
        integers, scales = ops.quantise_heads(qkv, self._head_max, self._head_unit)
        q_q, k_q, v_q = torch.split(integers, [heads, kv_heads, kv_heads], dim=2)
        q_scale, k_scale, v_scale = torch.split(scales, [heads, kv_heads, kv_heads], dim=2)
        keys = k_q.permute(0, 2, 3, 1)  # (B, G, D, T)
        values = v_q.transpose(1, 2)  # (B, G, T, D)
        k_scale, v_scale = (s.squeeze(-1).transpose(1, 2) for s in (k_scale, v_scale))  # (B, G, T)
        v_peak = v_scale.cummax(-1).values if new > 1 else v_scale
        here = begin  # slot of the first new token
        if cache is not None:
            store = cache.layers[number]
            if begin:
                v_peak = torch.maximum(v_peak, store.value_peak)
            store.value_peak.copy_(v_peak[..., -1:])
            filled = store.append(begin, keys, values, k_scale, v_scale)
            here = filled - new
            keys, values = store.key_q[..., :filled], store.value_q[:, :, :filled]
            k_scale, v_scale = store.key_scale[:, :, :filled], store.value_scale[:, :, :filled]
        groups = heads // kv_heads
        q_q = q_q.reshape(batch, new, kv_heads, groups, dim).permute(0, 2, 3, 1, 4)  # (B, G, g, T, D), g = H / G
        q_scale = (q_scale * self._attention_factor).view(batch, new, kv_heads, groups, 1).permute(0, 2, 3, 1, 4)
        out = torch.empty(batch, new, kv_heads, groups, dim, dtype=torch.float32, device=self.device)
        window = shape.windows[number]
        for rows, span in _pieces(batch, new, heads * min(here + new, window or here + new)):
            seen = here + span.stop
            first = max(0, here + span.start + 1 - window) if window else 0
            piece = self._attend(
                q_q[rows, :, :, span],
                q_scale[rows, :, :, span],
                keys[rows, ..., first:seen],
                k_scale[rows, :, first:seen],
                values[rows, :, first:seen],
                v_scale[rows, :, first:seen],
                v_peak[rows, :, span],
                here + span.start - first,
                window,
            )
            out[rows, span] = piece.permute(0, 3, 1, 2, 4)
        y = self.kernels.linear(out.view(batch * new, heads * dim), layer.out_q, layer.out_scale, shape.planes)
        return y if layer.out_bias is None else y.add_(layer.out_bias)

    def _attend(
        self,
        q_q: torch.Tensor,
        q_scale: torch.Tensor,
        keys: torch.Tensor,
        k_scale: torch.Tensor,
        values: torch.Tensor,
        v_scale: torch.Tensor,
        v_peak: torch.Tensor,
        offset: int,
        window: int,
    ) -> torch.Tensor:
        """Softmax attention of one piece (docs/numerics.md section 6.4).

        Args:
            q_q: (b, G, g, t, D) integer-valued; q_scale: (b, G, g, t, 1), already times the attention factor.
            keys: (b, G, D, S); values: (b, G, S, D); k_scale, v_scale: (b, G, S).
            v_peak: (b, G, t): largest v_scale that each query may see, or a larger one.
            offset: index among the S positions of the first query.
            window: positions a query sees, itself included; 0 for all.

        Returns:
            (b, G, g, t, D) float32.
        """
        b, kv_heads, g, t, dim = q_q.shape
        size = keys.shape[-1]
        scores = self.kernels.product(q_q.reshape(b, kv_heads, g * t, dim), keys).view(b, kv_heads, g, t, size)
        scores.mul_(q_scale).mul_(k_scale[:, :, None, None])
        if self.model.config.attention_cap:
            scores = ops.soft_cap(scores, self.model.config.attention_cap, self._exp2_unit)
        hidden = None
        if t > 1:
            here = torch.arange(offset, offset + t, device=self.device)[:, None]
            there = torch.arange(size, device=self.device)
            hidden = there > here
            if window:
                hidden |= there <= here - window
            scores.masked_fill_(hidden, float("-inf"))
        peak = scores.amax(-1, keepdim=True).add_(0.5)
        index = ops.exp2_index(torch.sub(peak, scores, out=scores))
        # A hidden position's index is the last one, and the table ends in 0.
        weight = ops.exp2_lookup(self._exp2_steps, index)
        total = weight.sum(-1, keepdim=True, dtype=torch.float64).to(torch.float32)
        unit = torch.full_like(total, ops.WEIGHT_SUM).div_(total.mul_(v_peak[:, :, None, :, None]))
        weight.mul_(v_scale[:, :, None, None]).mul_(unit).round_()
        weight = weight.view(b, kv_heads, g * t, size)
        if size <= ops.VALUE_KEYS:
            mixed = self.kernels.product(weight, values)
        else:
            total64 = torch.zeros(b, kv_heads, g * t, dim, dtype=torch.float64, device=self.device)
            for s in range(0, size, ops.VALUE_KEYS):
                total64 += self.kernels.product(
                    weight[..., s : s + ops.VALUE_KEYS], values[:, :, s : s + ops.VALUE_KEYS]
                )
            mixed = total64.to(torch.float32)
        return mixed.view(b, kv_heads, g, t, dim).mul_((v_peak * 2.0**-17)[:, :, None, :, None])


class _Rope:
    """Rotary tables, made as far as they are needed; they grow by doubling, for they take time to make."""

    def __init__(self, steps: tuple[int, ...], context: int, device: torch.device) -> None:
        self._steps, self._context, self._device = steps, context, device
        self._table = torch.empty(2, 0, 1, len(steps), dtype=torch.float32, device=device)

    def extend(self, positions: int) -> None:
        """Makes them at least so long."""
        have = self._table.shape[1]
        if positions <= have:
            return
        size = min(self._context, max(positions, 2 * have, 1024))
        cos_sin = np.stack(tables.rope_tables(self._steps, size))
        self._table = torch.from_numpy(cos_sin).to(self._device, torch.float32).mul_(2.0**-14)[:, :, None]
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)  # other threads read it in streams of their own

    def at(self, begin: int, new: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines and sines of some positions: (new, 1, pairs) float32 each."""
        cos, sin = self._table[:, begin : begin + new]
        return cos, sin


def _normal_table(device: torch.device) -> torch.Tensor:
    """The normal distribution's integral below 0 as float32, a 0 behind it."""
    table = np.append(tables.normal_table(), 0)
    return torch.from_numpy(table).to(device, torch.float32) * 2.0**-24


def _qk_norm(layer: LayerWeights, shape: ExactConfig) -> torch.Tensor | None:
    """The norm weights of query and key heads together: (H + G, D) float32."""
    if layer.q_norm is None or layer.k_norm is None:
        return None
    return torch.cat([layer.q_norm.expand(shape.num_heads, -1), layer.k_norm.expand(shape.num_kv_heads, -1)])


def _pieces(batch: int, new: int, scores_per_query: int) -> Iterator[tuple[slice, slice]]:
    """Slices of rows and of queries that together cover (batch, new) in pieces of bounded work."""
    queries = max(1, min(new, _SCORES_PER_PIECE // scores_per_query))
    rows = max(1, _SCORES_PER_PIECE // (scores_per_query * queries)) if queries == new else 1
    for r in range(0, batch, rows):
        for t in range(0, new, queries):
            yield slice(r, min(batch, r + rows)), slice(t, min(new, t + queries))
