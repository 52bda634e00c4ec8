"""Shapes and networks that are tiny, and random everywhere, so that no part of them goes unnoticed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from llmzip.training.network import Network
from llmzip.training.shapes import Shape

TINY: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 32,
    "num_layers": 2,
    "num_heads": 4,
    "num_kv_heads": 2,
    "head_dim": 16,
    "mlp_size": 40,
    "sequence": 24,
    "norm_eps": 1e-5,
    "rope_theta": 5000.0,
}

FORMS: dict[str, dict[str, Any]] = {
    "qwen3": {},
    "qwen3 untied": {"tied": False, "num_kv_heads": 4, "rope_theta": 1e6},
    "qwen2": {"qk_norm": False, "qkv_bias": True, "num_kv_heads": 1},
    "qwen2 untied": {"qk_norm": False, "qkv_bias": True, "tied": False, "head_dim": 6, "norm_eps": 0.02},
    "mistral": {"qk_norm": False, "num_layers": 1},
    "mistral untied": {"qk_norm": False, "tied": False, "hidden_size": 40},
}


@pytest.fixture(scope="session")
def shapes() -> dict[str, Shape]:
    """Every form that can be trained, by the family that it is written as."""
    return {name: Shape(**TINY | fields) for name, fields in FORMS.items()}


@pytest.fixture(scope="session")
def random_network() -> Callable[..., Network]:
    """A network of a shape with all parameters random: norms and biases too."""

    def make(shape: Shape, seed: int = 0, dtype: torch.dtype = torch.float32) -> Network:
        network = Network(shape, dtype)
        random = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                matrix = parameter.ndim == 2
                parameter.normal_(std=parameter.shape[-1] ** -0.5 if matrix else 0.3, generator=random)
                if name.endswith("norm"):
                    parameter.add_(1)
        return network

    return make
