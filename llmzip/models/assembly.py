"""Builds a model from named arrays: checks names, shapes, types, and the range of everything that it can compute.

Must not know files or checkpoints.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import ModelUnsupportedError
from .config import ExactConfig
from .matrix import Int8Matrix
from .model import ExactModel, LayerWeights, Weights

_BLOCK = 1 << 22
"""Weights that are summed at once: their magnitudes take a byte each."""
_MAX_VALUE = 2.0**50
"""Bound of everything that a model may compute (docs/numerics.md section 7)."""
_MAX_NORM = 2.0**20
"""Bound of the weights of norms."""
_SLACK = 1.02
"""More than quantisation and rounding add."""


def assemble(config: ExactConfig, get: Callable[[str], Weights | None]) -> ExactModel:
    """Builds a model from named tensors.

    Args:
        config: shape of the model.
        get: returns a tensor by its name, or None.

    Raises:
        ModelUnsupportedError: a tensor is missing, or has another shape, dtype or range.
    """
    heads, kv_heads, dim = config.num_heads, config.num_kv_heads, config.head_dim
    qkv, hidden, mlp, vocab = (heads + 2 * kv_heads) * dim, config.hidden_size, config.mlp_size, config.vocab_size
    matrices = {
        "qkv": (qkv, hidden),
        "out": (hidden, heads * dim),
        "gate_up": (mlp * (2 if config.gated else 1), hidden),
        "down": (hidden, mlp),
    }
    take = _Taker(get)
    biased = config.norm == "layer"
    layers = []
    for number in range(config.num_layers):
        prefix = f"layers.{number}."
        fields: dict[str, Any] = {}
        for name, (rows, columns) in matrices.items():
            fields |= {f"{name}_q": take.matrix(f"{prefix}{name}_q", rows, columns)}
            fields |= {f"{name}_scale": take.vector(f"{prefix}{name}_scale", rows)}
            fields |= {f"{name}_bias": take.maybe_vector(f"{prefix}{name}_bias", rows)}
        for name in ("input_norm", "post_norm"):
            fields[name] = take.vector(prefix + name, hidden)
            if biased:
                fields[f"{name}_bias"] = take.vector(f"{prefix}{name}_bias", hidden)
        for name in ("q_norm", "k_norm"):
            fields[name] = take.maybe_vector(prefix + name, dim)
        for name in ("attention_post_norm", "mlp_post_norm"):
            fields[name] = take.maybe_vector(prefix + name, hidden)
        if (fields["q_norm"] is None) != (fields["k_norm"] is None):
            raise ModelUnsupportedError("weights: q_norm without k_norm, or k_norm without q_norm")
        layers.append(LayerWeights(**fields))
    embedding_q, embedding_scale = take.matrix("embedding_q", vocab, hidden), take.vector("embedding_scale", vocab)
    head_q, head_scale = embedding_q, embedding_scale
    if get("head_q") is not None:
        head_q, head_scale = take.matrix("head_q", vocab, hidden), take.vector("head_scale", vocab)
    learned = config.learned_positions
    model = ExactModel(
        config,
        embedding_q,
        embedding_scale,
        head_q,
        head_scale,
        take.vector("final_norm", hidden),
        tuple(layers),
        final_norm_bias=take.vector("final_norm_bias", hidden) if biased else None,
        positions_q=take.matrix("positions_q", config.context, hidden) if learned else None,
        positions_scale=take.vector("positions_scale", config.context) if learned else None,
    )
    _check_range(model)
    return model


class _Taker:
    """Takes tensors by name and checks them.

    Args:
        get: returns a tensor by its name, or None.
    """

    def __init__(self, get: Callable[[str], Weights | None]) -> None:
        self._get = get

    def matrix(self, name: str, rows: int, columns: int) -> Int8Matrix:
        """Returns a (rows, columns) int8 matrix."""
        tensor = self._checked(name, (rows, columns), np.dtype(np.int8))
        if tensor is None:
            raise ModelUnsupportedError(f"weights: tensor {name} is missing")
        matrix = tensor if isinstance(tensor, Int8Matrix) else Int8Matrix(tensor)
        if int(matrix.values().min()) == -128:
            raise ModelUnsupportedError(f"weights: tensor {name} holds -128; the int8 form uses -127 to 127")
        return matrix

    def vector(self, name: str, size: int) -> np.ndarray:
        """Returns a (size,) float32 vector."""
        tensor = self.maybe_vector(name, size)
        if tensor is None:
            raise ModelUnsupportedError(f"weights: tensor {name} is missing")
        return tensor

    def maybe_vector(self, name: str, size: int) -> np.ndarray | None:
        """Returns a (size,) float32 vector, or None if the model has none of this name."""
        tensor = self._checked(name, (size,), np.dtype(np.float32))
        if tensor is None:
            return None
        vector = np.ascontiguousarray(tensor)
        if not bool(np.isfinite(vector).all()):
            raise ModelUnsupportedError(f"weights: tensor {name} holds a NaN or an infinity")
        return vector

    def _checked(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Weights | None:
        tensor = self._get(name)
        if tensor is not None and (tuple(tensor.shape) != shape or tensor.dtype != dtype):
            raise ModelUnsupportedError(f"weights: tensor {name} is {tensor.dtype} {tensor.shape}, not {dtype} {shape}")
        return tensor


def _check_range(model: ExactModel) -> None:
    """Bounds every value that the model can ever compute, so that none is infinite (docs/numerics.md section 7).

    Raises:
        ModelUnsupportedError: some text might drive a value out of range.
    """
    # A bound that needs no weights is enough for most models: reading them all takes a third of a second and more.
    if _highest(model, _coarse_gain) <= _MAX_VALUE:
        return
    highest = _highest(model, _gain)
    if not highest <= _MAX_VALUE:
        raise ModelUnsupportedError(
            f"weights: values might reach {highest:.3g}, above {_MAX_VALUE:.3g}, where the arithmetic is not exact"
        )


def _peak(tensor: np.ndarray | None) -> float:
    return 0.0 if tensor is None else float(np.abs(tensor).max())


def _coarse_gain(weight_q: Int8Matrix, scale: np.ndarray) -> float:
    """Returns an upper bound of `_gain` that looks at no weight."""
    return _SLACK * 128 * weight_q.shape[1] * _peak(scale)


def _gain(weight_q: Int8Matrix, scale: np.ndarray) -> float:
    """Returns the largest row sum of |weight|: no output exceeds it times the largest input."""
    weights, largest = weight_q.rows, 0.0
    step = max(1, _BLOCK // weights.shape[1])
    for rows in (slice(begin, begin + step) for begin in range(0, len(weights), step)):
        sums = np.abs(weights[rows]).sum(1, dtype=np.int64).astype(np.float64)
        largest = max(largest, float((sums * scale[rows].astype(np.float64)).max()))
    return _SLACK * largest


def _highest(model: ExactModel, gain: Callable[[Int8Matrix, np.ndarray], float]) -> float:
    """Returns a bound of every value that the model can compute.

    Args:
        model: to bound.
        gain: bounds a matrix's outputs over its largest input, from its weights and scales.

    Raises:
        ModelUnsupportedError: the weight of a norm is out of range.
    """

    def normed(weight: np.ndarray, bias: np.ndarray | None = None) -> float:
        if _peak(weight) > _MAX_NORM:
            raise ModelUnsupportedError(f"weights: a norm's weight is above {_MAX_NORM:g}")
        return _SLACK * math.sqrt(weight.shape[0]) * _peak(weight) + _peak(bias)

    def added(value: float, norm: np.ndarray | None) -> float:
        """Returns what a branch adds to the residual, normed if the model norms it."""
        return value if norm is None else normed(norm)

    residual = 127 * _peak(model.embedding_scale) * model.config.embedding_gain + 127 * _peak(model.positions_scale)
    highest = residual
    for layer in model.layers:
        inside = normed(layer.input_norm, layer.input_norm_bias)
        qkv = inside * gain(layer.qkv_q, layer.qkv_scale) + _peak(layer.qkv_bias)
        if layer.q_norm is not None and layer.k_norm is not None:
            qkv = max(qkv, normed(layer.q_norm), normed(layer.k_norm))
        attended = _SLACK * qkv * gain(layer.out_q, layer.out_scale) + _peak(layer.out_bias)
        inside = normed(layer.post_norm, layer.post_norm_bias)
        gate_up = inside * gain(layer.gate_up_q, layer.gate_up_scale) + _peak(layer.gate_up_bias)
        active = gate_up * gate_up if model.config.gated else gate_up
        computed = active * gain(layer.down_q, layer.down_scale) + _peak(layer.down_bias)
        residual += added(attended, layer.attention_post_norm) + added(computed, layer.mlp_post_norm)
        highest = max(highest, qkv, gate_up, attended, active, computed, residual)
    final = normed(model.final_norm, model.final_norm_bias) * gain(model.head_q, model.head_scale)
    highest = max(highest, residual, final)
    return highest
