"""Small engines of every shape that the exact engine knows, with contexts and windows that tests reach the end of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from llmzip.engines.exact import ExactEngine
from llmzip.models.convert import convert

ALL_BIASES = (
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
    "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
)  # fmt: skip

SHAPES: dict[str, tuple[int, dict[str, Any]]] = {
    "grouped": (1, {}),
    "two planes": (2, {"num_key_value_heads": 4, "rms_norm_eps": 1e-5}),
    "window": (1, {"model_type": "mistral", "sliding_window": 9}),
    "window of one": (2, {"model_type": "mistral", "sliding_window": 1}),
    "large window": (1, {"model_type": "mistral", "sliding_window": 80}),
    "norms, mixed windows": (
        2,
        {
            "qk_norm": True,
            "sliding_window": 12,
            "use_sliding_window": True,
            "layer_types": ["sliding_attention", "full_attention"],
        },
    ),
    "biases": (2, {"biases": ALL_BIASES, "model_type": "qwen2"}),
    "large heads": (1, {"head_dim": 64, "num_attention_heads": 2, "num_key_value_heads": 1, "num_hidden_layers": 1}),
    "odd sizes": (1, {"hidden_size": 37, "intermediate_size": 53, "head_dim": 6, "vocab_size": 61}),
}


@pytest.fixture(scope="session", params=SHAPES)
def shape(request: pytest.FixtureRequest) -> str:
    """The name of each shape."""
    return request.param


@pytest.fixture(scope="session")
def make_engine(random_checkpoint: Callable[..., Any]) -> Callable[..., ExactEngine]:
    """An engine of a named shape; keyword arguments overwrite fields of its config."""

    def make(shape: str, device: str = "cpu", batch_tokens: int | None = None, **fields: Any) -> ExactEngine:
        planes, base = SHAPES[shape]
        config, tensors = random_checkpoint(**base | fields)
        return ExactEngine(convert(config, tensors, planes, config["max_position_embeddings"]), device, batch_tokens)

    return make


@pytest.fixture(scope="session")
def engine(shape: str, make_engine: Callable[..., ExactEngine]) -> ExactEngine:
    """One engine of each shape; context 96."""
    return make_engine(shape)


@pytest.fixture(scope="session")
def ids(engine: ExactEngine) -> np.ndarray:
    """(64, 96) tokens."""
    return np.random.default_rng(7).integers(engine.vocab_size, size=(64, engine.context))


@pytest.fixture(scope="session")
def expected(engine: ExactEngine, ids: np.ndarray) -> np.ndarray:
    """(64, 96, V): the masses of each row alone, all positions at once, by plain torch."""
    plain = ExactEngine(engine.model, compiled=False)
    return np.stack([np.asarray(plain.masses(plain.forward(row[None])[0])) for row in ids])
