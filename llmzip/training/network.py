"""The floating-point network that is trained: forward pass and loss; must not know text, files or optimizers.

The same function as the exact engine's and as transformers' Qwen3, Qwen2 and Mistral classes (with tests that compare
them). Weights are float32; everything is computed in `dtype`, norms' sums in float32.
Shapes: B sequences, T tokens, H hidden size, V vocabulary.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from .shapes import Shape

_LOSS_CHUNK_CPU, _LOSS_CHUNK_CUDA = 1024, 16384


class Layer(nn.Module):
    """One decoder layer; queries, keys and values in one matrix, and so are gate and up."""

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
        """(B, T, H) to (B, T, H)."""
        shape, dtype = self.shape, x.dtype
        batch, length, _ = x.shape
        heads, kv_heads, dim = shape.num_heads, shape.num_kv_heads, shape.head_dim
        bias = None if self.qkv_bias is None else self.qkv_bias.to(dtype)
        qkv = F.linear(rms_norm(x, self.input_norm, shape.norm_eps), self.qkv.to(dtype), bias)
        q, k, v = qkv.view(batch, length, heads + 2 * kv_heads, dim).split([heads, kv_heads, kv_heads], 2)  # type: ignore[no-untyped-call]
        if self.q_norm is not None and self.k_norm is not None:
            q, k = rms_norm(q, self.q_norm, shape.norm_eps), rms_norm(k, self.k_norm, shape.norm_eps)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        if kv_heads < heads:
            spread = (batch, length, kv_heads, heads // kv_heads, dim)
            k = k.unsqueeze(3).expand(spread).reshape(batch, length, heads, dim)
            v = v.unsqueeze(3).expand(spread).reshape(batch, length, heads, dim)
        seen = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), is_causal=True)
        x = x + F.linear(seen.transpose(1, 2).reshape(batch, length, heads * dim), self.out.to(dtype))
        gate, up = F.linear(rms_norm(x, self.post_norm, shape.norm_eps), self.gate_up.to(dtype)).chunk(2, -1)
        return x + F.linear(F.silu(gate) * up, self.down.to(dtype))


class Network(nn.Module):
    """The decoder.

    Args:
        shape: of it.
        dtype: of the computation, float32 or bfloat16.
    """

    cos: torch.Tensor
    sin: torch.Tensor

    def __init__(self, shape: Shape, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.shape, self.dtype = shape, dtype
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
        """(V, H), the head's or the embedding's."""
        return self.embedding if self.head is None else self.head

    def initialise(self, seed: int) -> None:
        """Random weights: small embeddings, matrices of gain 0.6, output projections zero, sharp attention."""
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
        """Final hidden states.

        Args:
            ids: (B, T) int64, 0 <= id < V, T at most `shape.sequence`; positions start at 0.

        Returns:
            (B, T, H) of `dtype`, normalised.
        """
        cos, sin = self.cos[: ids.shape[1]], self.sin[: ids.shape[1]]
        x = F.embedding(ids, self.embedding).to(self.dtype)
        for layer in self.layers:
            x = layer(x, cos, sin)
        return rms_norm(x, self.final_norm, self.shape.norm_eps)


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """x / sqrt(mean(x^2) + eps) * weight over the last dimension, summed in float32."""
    wide = x.float()
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps) * weight).to(x.dtype)


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary positions in the form of Hugging Face: pairs are i and i + D/2 of the head's D values."""
    first, second = x.chunk(2, -1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


class Loss(torch.autograd.Function):
    """Sum of -ln p of the targets; never holds more than a chunk of the logits.

    The gradients are made in the forward pass, where the logits are. They are summed in the order of the chunks, so
    they are the same at every run.
    """

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """hidden (n, H) of the computing dtype, weight (V, H) float32, targets (n,) int64."""
        narrow = weight.to(hidden.dtype)
        d_hidden, d_weight = torch.empty_like(hidden), torch.zeros_like(weight)
        total = torch.zeros((), device=hidden.device)
        size = _LOSS_CHUNK_CUDA if hidden.is_cuda else _LOSS_CHUNK_CPU
        for start in range(0, len(targets), size):
            part = hidden[start : start + size]
            loss, slope = _loss_and_slope(part @ narrow.T, targets[start : start + size])
            total += loss
            d_hidden[start : start + size] = slope @ narrow
            d_weight += slope.T @ part
        ctx.save_for_backward(d_hidden, d_weight)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        """Gradients of hidden and weight."""
        d_hidden, d_weight = ctx.saved_tensors
        return d_hidden * grads[0].to(d_hidden.dtype), d_weight * grads[0], None


def _loss_and_slope(logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum of the losses, and the gradient of the logits in their dtype."""
    wide = logits.float()
    norm = wide.logsumexp(-1, keepdim=True)
    loss = norm.sum() - wide.gather(1, targets[:, None]).sum()
    slope = (wide - norm).exp_()
    slope[torch.arange(len(targets), device=targets.device), targets] -= 1
    return loss, slope.to(logits.dtype)


def bits(network: Network, ids: torch.Tensor) -> torch.Tensor:
    """-log2 p of every token of some rows that each start from an empty context; without gradients.

    Args:
        network: the network.
        ids: (B, T + 1) int64, the start token first.

    Returns:
        (B, T) float64.
    """
    with torch.no_grad():
        hidden = network(ids[:, :-1])
        logits = F.linear(hidden, network.output_weight.to(hidden.dtype)).float()
        chosen = logits.log_softmax(-1).gather(2, ids[:, 1:, None])[..., 0]
        return chosen.double() * (-1 / math.log(2))
