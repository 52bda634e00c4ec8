"""The floating-point network that is trained: forward pass and loss. Must not know text, files or optimizers.

It computes the same function as the exact engine and as transformers' Qwen3, Qwen2 and Mistral classes (tests compare
them). Weights are float32; everything is computed in `dtype`, norms' sums in float32.
Shapes: B sequences, T tokens, H hidden size, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from .shapes import Shape

_LOSS_CHUNK = 1024
"""Tokens whose logits are held at once."""
_LOSS_CHUNK_COMPILED = 256
"""The same if the loss is compiled."""
_LOSS_CHUNK_CUDA = 16384
"""The same on a GPU."""
_LOSS_VALUES = 1 << 24
"""Logits that are held at once, 64 MiB in float32 and some copies: vocabularies of more than 16,384 tokens have shorter
chunks."""
_LOSS_VALUES_CUDA = 1 << 30
"""The same on a GPU."""
_BITS_VALUES = 1 << 26
"""Logits that are held at once where no gradients are needed, 256 MiB and some copies."""
LossAndSlope = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""Takes logits and targets as `plain_loss_and_slope` does."""


class Layer(nn.Module):
    """One decoder layer; queries, keys and values are one matrix, and so are gate and up."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        hidden, attention = shape.hidden_size, shape.num_heads * shape.head_dim
        self.input_norm = nn.Parameter(torch.ones(hidden))
        self.qkv = nn.Parameter(torch.empty(sum(shape.qkv_sizes), hidden))
        self.qkv_bias = nn.Parameter(torch.zeros(sum(shape.qkv_sizes))) if shape.qkv_bias else None
        self.q_norm = nn.Parameter(torch.ones(shape.head_dim)) if shape.qk_norm else None
        self.k_norm = nn.Parameter(torch.ones(shape.head_dim)) if shape.qk_norm else None
        self.out = nn.Parameter(torch.zeros(hidden, attention))
        self.post_norm = nn.Parameter(torch.ones(hidden))
        self.gate_up = nn.Parameter(torch.empty(2 * shape.mlp_size, hidden))
        self.down = nn.Parameter(torch.zeros(hidden, shape.mlp_size))

    def forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        """Returns (B, T, H) from (B, T, H)."""
        shape, dtype = self.shape, x.dtype
        batch, length, _ = x.shape
        heads, kv_heads, dim = shape.num_heads, shape.num_kv_heads, shape.head_dim
        bias = None if self.qkv_bias is None else self.qkv_bias.to(dtype)
        qkv = F.linear(rms_norm(x, self.input_norm, shape.norm_eps), self.qkv.to(dtype), bias)
        q, k, v = qkv.view(batch, length, heads + 2 * kv_heads, dim).split([heads, kv_heads, kv_heads], 2)  # type: ignore[no-untyped-call]
        if self.q_norm is not None and self.k_norm is not None:
            q, k = rms_norm(q, self.q_norm, shape.norm_eps), rms_norm(k, self.k_norm, shape.norm_eps)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        x = x + F.linear(attention(q, k, v).reshape(batch, length, heads * dim), self.out.to(dtype))
        gate, up = F.linear(rms_norm(x, self.post_norm, shape.norm_eps), self.gate_up.to(dtype)).chunk(2, -1)
        return x + F.linear(F.silu(gate) * up, self.down.to(dtype))


class Network(nn.Module):
    """A decoder of the Llama family.

    Args:
        shape: sizes and form.
        dtype: of the computation, float32 or bfloat16.

    Attributes:
        recomputes: whether layers are computed again in the backward pass, so that little of them is held in memory.
    """

    cos: torch.Tensor
    sin: torch.Tensor

    def __init__(self, shape: Shape, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.shape, self.dtype = shape, dtype
        self.recomputes = False
        self.embedding = nn.Parameter(torch.empty(shape.vocab_size, shape.hidden_size))
        self.head = None if shape.tied else nn.Parameter(torch.empty(shape.vocab_size, shape.hidden_size))
        self.layers = nn.ModuleList([Layer(shape) for _ in range(shape.num_layers)])
        self.final_norm = nn.Parameter(torch.ones(shape.hidden_size))
        half = torch.arange(0, shape.head_dim, 2, dtype=torch.float64) / shape.head_dim
        angles = torch.outer(torch.arange(shape.sequence, dtype=torch.float64), shape.rope_theta**-half)[:, None]
        self.register_buffer("cos", angles.cos().to(dtype), persistent=False)
        self.register_buffer("sin", angles.sin().to(dtype), persistent=False)

    @property
    def output_weight(self) -> nn.Parameter:
        """(V, H): the head, or the embedding if it is tied."""
        return self.embedding if self.head is None else self.head

    def initialise(self, seed: int) -> None:
        """Draws random weights: small embeddings, matrices of gain 0.6, zero output projections, sharp attention."""
        random = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            nn.init.normal_(self.embedding, std=0.005, generator=random)
            if self.head is not None:
                nn.init.zeros_(self.head)
            for layer in self.layers:
                assert isinstance(layer, Layer)
                for matrix in (layer.qkv, layer.gate_up):
                    nn.init.normal_(matrix, std=0.6 / math.sqrt(matrix.shape[1]), generator=random)
                for norm in (layer.q_norm, layer.k_norm):
                    if norm is not None:
                        norm.fill_(1.5)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Computes the final hidden states.

        Args:
            ids: (B, T) int64, 0 <= id < V, T at most `shape.sequence`; positions start at 0.

        Returns:
            (B, T, H) of `dtype`, normalised.
        """
        cos, sin = self.cos[: ids.shape[1]], self.sin[: ids.shape[1]]
        x = F.embedding(ids, self.embedding).to(self.dtype)
        for layer in self.layers:
            if self.recomputes and torch.is_grad_enabled():
                x = checkpoint(layer, x, cos, sin, use_reentrant=False, preserve_rng_state=False)
            else:
                x = layer(x, cos, sin)
        return rms_norm(x, self.final_norm, self.shape.norm_eps)


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """Returns x / sqrt(mean(x^2) + eps) * weight over the last dimension, summed in float32."""
    wide = x.float()
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps) * weight).to(x.dtype)


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Applies rotary positions in Hugging Face's form: pairs are i and i + D/2 of a head's D values."""
    first, second = x.chunk(2, -1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Computes causal attention.

    Args:
        q: (B, T, heads, D).
        k, v: (B, T, G, D); G divides heads, and query head h sees key head h // (heads / G).

    Returns:
        (B, T, heads, D).
    """
    if q.device.type == "cpu" and _FLASH is not None and torch.is_grad_enabled():
        attended: torch.Tensor = _BlockedBackward.apply(q, k, v)  # type: ignore[no-untyped-call]
        return attended
    k, v = _spread(k, q.shape[2]), _spread(v, q.shape[2])
    return F.scaled_dot_product_attention(
        q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), is_causal=True
    ).transpose(1, 2)


def _spread(x: torch.Tensor, heads: int) -> torch.Tensor:
    """Repeats key and value heads for the query heads that share them: (B, T, G, D) to (B, T, heads, D)."""
    batch, length, groups, dim = x.shape
    spread = (batch, length, groups, heads // groups, dim)
    return x.unsqueeze(3).expand(spread).reshape(batch, length, heads, dim)


_FLASH = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", None)
_ATTENTION_BLOCK = 128  # queries


class _BlockedBackward(torch.autograd.Function):
    """Causal attention on a CPU: torch's forward pass, and a backward pass by matrix products.

    torch's own backward pass takes twice as long as this one compiled, and no less than this one uncompiled
    (docs/log.md). Query heads that share keys go through one product; blocks of queries see no keys after them.
    """

    @staticmethod
    def forward(ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Computes `attention`, and keeps what its gradients need."""
        assert _FLASH is not None
        heads = q.shape[2]
        attended, log_sums = _FLASH(
            q.transpose(1, 2), _spread(k, heads).transpose(1, 2), _spread(v, heads).transpose(1, 2), 0.0, True
        )
        attended = attended.transpose(1, 2)
        ctx.save_for_backward(q, k, v, attended, log_sums)
        return attended  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Returns the gradients of q, k and v."""
        q, k, v, attended, log_sums = ctx.saved_tensors
        batch, length, heads, dim = q.shape
        groups = k.shape[2]
        sharing, scale = heads // groups, 1 / math.sqrt(dim)

        def grouped(x: torch.Tensor) -> torch.Tensor:  # (B, T, heads, n) to (B * G, T, sharing * n)
            return x.reshape(batch, length, groups, -1).transpose(1, 2).reshape(batch * groups, length, -1)

        def back(x: torch.Tensor) -> torch.Tensor:
            return x.view(batch, groups, length, -1, dim).transpose(1, 2).reshape(batch, length, -1, dim).to(q.dtype)

        queries, keys, values, slopes = grouped(q), grouped(k), grouped(v), grouped(grads[0])
        means = grouped((grads[0].float() * attended.float()).sum(-1, keepdim=True))
        sums = grouped(log_sums.transpose(1, 2).unsqueeze(3))
        d_queries = []
        d_keys = torch.zeros((batch * groups, length, dim), device=q.device)
        d_values = torch.zeros_like(d_keys)
        for start in range(0, length, _ATTENTION_BLOCK):
            end = min(length, start + _ATTENTION_BLOCK)
            rows = (batch * groups, (end - start) * sharing, -1)
            block, slope = queries[:, start:end].reshape(rows), slopes[:, start:end].reshape(rows)
            scores = torch.bmm(block, keys[:, :end].mT).float() * scale
            times = torch.arange(start, end, device=q.device).repeat_interleave(sharing)
            seen_keys = times[:, None] >= torch.arange(end, device=q.device)
            weights = torch.where(seen_keys, torch.exp(scores - sums[:, start:end].reshape(rows)), 0.0)
            d_scores = torch.bmm(slope, values[:, :end].mT).float() - means[:, start:end].reshape(rows)
            d_scores = (weights * d_scores * scale).to(q.dtype)
            d_queries.append(torch.bmm(d_scores, keys[:, :end]).view(batch * groups, end - start, -1))
            d_keys[:, :end] += torch.bmm(d_scores.mT, block)
            d_values[:, :end] += torch.bmm(weights.to(q.dtype).mT, slope)
        return back(torch.cat(d_queries, 1)), back(d_keys), back(d_values)


class Loss(torch.autograd.Function):
    """The sum of -ln p of the targets; never holds more than a chunk of the logits.

    The gradients are computed in the forward pass, where the logits are. They are summed in the order of the chunks, so
    they are the same in every run.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        targets: torch.Tensor,
        loss_and_slope: LossAndSlope,
        chunk: int,
    ) -> torch.Tensor:
        """Computes the sum.

        Args:
            ctx: torch's.
            hidden: (n, H) of the computing dtype.
            weight: (V, H) float32.
            targets: (n,) int64.
            loss_and_slope: gives loss and slope of a chunk.
            chunk: tokens of a chunk.
        """
        narrow = weight.to(hidden.dtype)
        d_hidden, d_weight = torch.empty_like(hidden), torch.zeros_like(weight)
        total = torch.zeros((), device=hidden.device)
        for start in range(0, len(targets), chunk):
            part = hidden[start : start + chunk]
            loss, slope = loss_and_slope(part @ narrow.T, targets[start : start + chunk])
            total += loss
            d_hidden[start : start + chunk] = slope @ narrow
            d_weight += slope.T @ part
        ctx.save_for_backward(d_hidden, d_weight)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Returns the gradients of hidden and weight."""
        d_hidden, d_weight = ctx.saved_tensors
        return d_hidden * grads[0].to(d_hidden.dtype), d_weight * grads[0], None, None, None


def loss_sum(
    hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, loss_and_slope: LossAndSlope | None = None
) -> torch.Tensor:
    """Computes the sum of -ln p of the targets, differentiable.

    Args:
        hidden: (n, H) of the computing dtype.
        weight: (V, H) float32, of the output.
        targets: (n,) int64.
        loss_and_slope: `plain_loss_and_slope`, compiled; None for it as it is.
    """
    chunk = _LOSS_CHUNK_CUDA if hidden.is_cuda else _LOSS_CHUNK_COMPILED if loss_and_slope else _LOSS_CHUNK
    values = _LOSS_VALUES_CUDA if hidden.is_cuda else _LOSS_VALUES
    chunk = max(1, min(chunk, values // len(weight)))
    total: torch.Tensor = Loss.apply(hidden, weight, targets, loss_and_slope or plain_loss_and_slope, chunk)  # type: ignore[no-untyped-call]
    return total


def plain_loss_and_slope(logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the sum of the losses, and the gradient of the logits in their dtype.

    Args:
        logits: (n, V).
        targets: (n,) int64.
    """
    wide = logits.float()
    norm = wide.logsumexp(-1, keepdim=True)
    loss = norm.sum() - wide.gather(1, targets[:, None]).sum()
    at_target = torch.arange(logits.shape[1], device=logits.device) == targets[:, None]
    return loss, ((wide - norm).exp() - at_target.float()).to(logits.dtype)


def bits(network: Network, ids: torch.Tensor) -> torch.Tensor:
    """Returns -log2 p of every token of rows that each start from an empty context; without gradients.

    Args:
        network: to run.
        ids: (B, T + 1) int64, the start token first.

    Returns:
        (B, T) float64.
    """
    with torch.no_grad():
        hidden = network(ids[:, :-1]).flatten(0, 1)
        targets, weight = ids[:, 1:].reshape(-1, 1), network.output_weight.to(hidden.dtype)
        size = max(1, _BITS_VALUES // len(weight))
        parts = []
        for start in range(0, len(targets), size):
            logits = F.linear(hidden[start : start + size], weight).float()
            parts.append(logits.log_softmax(-1).gather(1, targets[start : start + size])[:, 0].double())
        return torch.cat(parts).view(len(ids), -1) * (-1 / math.log(2))
