"""Small random models of the form of every family in docs/models.md, and how two engines are compared bit by bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from llmzip.engines.exact import ExactEngine
from llmzip.engines.torch_arrays import TensorModel
from llmzip.models.config import ExactConfig
from llmzip.models.model import ExactModel, LayerWeights

ROPE, LOCAL_ROPE = tuple((1 << 61) >> n for n in range(256)), tuple((3 << 58) >> n for n in range(256))
"""Steps of rotary tables; a form takes as many as it has pairs."""

FORMS: dict[str, dict[str, Any]] = {
    "llama": {},
    "llama, all biases": {"biases": ("qkv", "out", "gate_up", "down")},
    "mistral": {"windows": (9, 9)},
    "phi3": {"rotated": 0.5, "windows": (0, 40)},
    "smollm3": {"unrotated": (1,)},
    "qwen2": {"biases": ("qkv",), "windows": (0, 17)},
    "qwen3": {"qk_norm": True},
    "gemma": {"activation": "gelu_tanh", "embedding_gain": 6.5},
    "gemma2": {
        "activation": "gelu_tanh", "embedding_gain": 6.5, "post_norms": True, "windows": (11, 0),
        "attention_cap": 3.0, "logit_cap": 5.0, "attention_scale": 0.3,
    },
    "gemma3": {
        "activation": "gelu_tanh", "embedding_gain": 6.5, "post_norms": True, "qk_norm": True, "windows": (7, 0),
        "two_ropes": True,
    },
    "gpt2": {
        "activation": "gelu_tanh", "norm": "layer", "gated": False, "learned_positions": True, "unrotated": (0, 1),
        "biases": ("qkv", "out", "gate_up", "down"),
    },
    "gpt_neox": {
        "activation": "gelu", "norm": "layer", "gated": False, "parallel": True, "rotated": 0.25,
        "biases": ("qkv", "out", "gate_up", "down"),
    },
    "gpt_neox, one after the other": {"activation": "gelu", "norm": "layer", "gated": False, "rotated": 0.5},
    "everything": {
        "activation": "gelu", "norm": "layer", "parallel": True, "learned_positions": True, "post_norms": True,
        "qk_norm": True, "biases": ("qkv", "out", "gate_up", "down"), "windows": (5, 0), "attention_cap": 2.0,
        "logit_cap": 9.0, "rotated": 0.5, "two_ropes": True,
    },
}  # fmt: skip
"""Fields of the configuration, and what `model_of` makes besides."""

_SIZE_NAMES = ("hidden_size", "mlp_size", "num_heads", "num_kv_heads", "head_dim", "vocab_size")
SIZES: dict[str, dict[str, int]] = {
    name: dict(zip(_SIZE_NAMES, sizes, strict=True))
    for name, sizes in {
        "even": (64, 96, 4, 2, 32, 800),
        "odd": (37, 53, 3, 1, 6, 61),
        "no lanes": (70, 150, 5, 5, 20, 1541),
        "large heads": (16, 16, 2, 1, 202, 16),
        "small heads": (24, 30, 4, 2, 4, 50),
    }.items()
}


class _Random:
    """Weights of a seed; matrices reach -127 and 127."""

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)

    def matrix(self, rows: int, columns: int) -> tuple[torch.Tensor, torch.Tensor]:
        weight = torch.randint(-127, 128, (rows, columns), dtype=torch.int8, generator=self._generator)
        return weight, (torch.rand(rows, generator=self._generator) + 0.5) * 2.0**-9

    def vector(self, size: int, offset: float = 0.0) -> torch.Tensor:
        return torch.randn(size, generator=self._generator) * 0.3 + offset


def model_of(form: str, size: str = "even", planes: int = 1, seed: int = 0, **changes: Any) -> ExactModel:
    """Builds a random model of two layers.

    Args:
        form: one of FORMS.
        size: one of SIZES.
        planes: 1 or 2.
        seed: of its weights.
        changes: fields of the configuration.
    """
    fields: dict[str, Any] = {
        "num_layers": 2, "rope_theta": 10000.0, "norm_eps": 2.0**-20, "windows": (0, 0), "planes": planes,
        "context": 160, "start_token": 0, **SIZES[size], **FORMS[form], **changes,
    }  # fmt: skip
    biases, post_norms, qk_norm = fields.pop("biases", ()), fields.pop("post_norms", 0), fields.pop("qk_norm", False)
    rotated, two_ropes = fields.pop("rotated", 1.0), fields.pop("two_ropes", False)
    pairs = max(1, int(fields["head_dim"] * rotated) // 2)
    if rotated < 1 or two_ropes:
        fields["rope_steps"] = ROPE[:pairs]
    if two_ropes:
        fields["local_rope_steps"] = LOCAL_ROPE[:pairs]
    config, random = ExactConfig(**fields), _Random(seed)
    layers = tuple(_layer(config, random, biases, post_norms, qk_norm) for _ in range(config.num_layers))
    biased = config.norm == "layer"
    positions = random.matrix(config.context, config.hidden_size) if config.learned_positions else (None, None)
    return ExactModel(
        config, *random.matrix(config.vocab_size, config.hidden_size),
        *random.matrix(config.vocab_size, config.hidden_size), random.vector(config.hidden_size, 1.0), layers,
        final_norm_bias=random.vector(config.hidden_size) if biased else None,
        positions_q=positions[0], positions_scale=positions[1],
    )  # fmt: skip


def _layer(
    config: ExactConfig, random: _Random, biases: tuple[str, ...], post_norms: bool, qk_norm: bool
) -> LayerWeights:
    hidden, heads, dim = config.hidden_size, config.num_heads, config.head_dim
    shapes = {
        "qkv": ((heads + 2 * config.num_kv_heads) * dim, hidden),
        "out": (hidden, heads * dim),
        "gate_up": ((1 + config.gated) * config.mlp_size, hidden),
        "down": (hidden, config.mlp_size),
    }
    fields: dict[str, Any] = {}
    for name, (rows, columns) in shapes.items():
        fields[f"{name}_q"], fields[f"{name}_scale"] = random.matrix(rows, columns)
        if name in biases:
            fields[f"{name}_bias"] = random.vector(rows)
    for name in ("input_norm", "post_norm"):
        fields[name] = random.vector(hidden, 1.0)
        if config.norm == "layer":
            fields[f"{name}_bias"] = random.vector(hidden)
    if post_norms:
        fields |= {name: random.vector(hidden, 1.0) for name in ("attention_post_norm", "mlp_post_norm")}
    if qk_norm:
        fields |= {name: random.vector(dim, 2.0) for name in ("q_norm", "k_norm")}
    return LayerWeights(**fields)


def ids_of(model: ExactModel | TensorModel, rows: int, length: int, seed: int = 1) -> np.ndarray:
    """Returns (rows, length) random tokens of a model."""
    return np.random.default_rng(seed).integers(model.config.vocab_size, size=(rows, length))


def assert_same_bits(compiled: ExactEngine, plain: ExactEngine) -> None:
    """Compares prefill, steps, windows that move, rows one after the other and masses of two engines with a model."""
    ids = ids_of(plain.model, 5, 129)
    expected = np.asarray(plain.forward(ids))
    assert np.isfinite(expected).all()
    assert expected[:, 3:].std() > 0.01
    assert not np.array_equal(expected[0], expected[1])
    flat = expected.reshape(-1, expected.shape[-1])
    masses = np.asarray(plain.masses(torch.from_numpy(flat)))
    assert np.array_equal(compiled.forward(ids), expected)
    assert np.array_equal(compiled.forward(ids[2:3]), expected[2:3])
    assert np.array_equal(compiled.masses(flat), masses)
    for rows in (1, 2, 3, 9):
        assert np.array_equal(compiled.masses(flat[-rows:]), masses[-rows:])
    cache, found = compiled.new_cache(5, 40, 129), []
    for part in np.split(ids, np.cumsum([1, 1, 40, 2, 3, 40, 7, *[1] * 34]), 1):
        halves = [cache.rows(slice(0, 3)), cache.rows(slice(3, 5))]
        found.append(np.concatenate([compiled.forward(part[:3], halves[0]), compiled.forward(part[3:], halves[1])]))
        cache.adopt(halves[0])
    assert np.array_equal(np.concatenate(found, 1), expected)
