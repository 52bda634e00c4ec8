"""Checks rotary frequencies of configurations against the formulas of transformers, and that they are whole numbers."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import transformers
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from llmzip.errors import ModelUnsupportedError
from llmzip.models import rope
from llmzip.numerics import tables

PARAMETERS: dict[str, dict[str, Any]] = {
    "linear": {"rope_type": "linear", "factor": 3.0},
    "llama3": {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 1024,
    },
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512},
    "yarn betas": {
        "rope_type": "yarn", "factor": 16.0, "original_max_position_embeddings": 256, "beta_fast": 20.0,
        "beta_slow": 2.0,
    },
    "yarn mscale": {
        "rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 512, "mscale": 0.7,
        "mscale_all_dim": 0.5,
    },
    "yarn not truncated": {
        "rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 512, "truncate": False,
    },
    "longrope": {
        "rope_type": "longrope", "short_factor": [1.0 + n / 9 for n in range(32)], "long_factor": [9.0] * 32,
        "original_max_position_embeddings": 1024,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", PARAMETERS)
@pytest.mark.parametrize("theta", [10000.0, 500000.0])
def test_scalings_are_those_of_transformers(name: str, theta: float) -> None:
    parameters = PARAMETERS[name] | {"rope_theta": theta}
    config = transformers.LlamaConfig(
        hidden_size=128, num_attention_heads=2, head_dim=64, max_position_embeddings=4096, rope_parameters=parameters
    )
    rates, gain = ROPE_INIT_FUNCTIONS[parameters["rope_type"]](config, torch.device("cpu"))
    found = rope.read({"max_position_embeddings": 4096}, parameters, 64)
    ours = torch.tensor([step / 2**64 * 2 * math.pi for step in found.steps], dtype=torch.float64)
    torch.testing.assert_close(ours, rates.double(), rtol=3e-6, atol=0)
    assert found.gain == pytest.approx(gain, rel=1e-6)
    assert not found.plain


@pytest.mark.parametrize("size", [2, 16, 64, 128])
def test_plain_positions_are_those_of_the_tables(size: int) -> None:
    for parameters in ({}, {"rope_type": "default"}, {"rope_type": "dynamic", "factor": 2.0}, {"type": "default"}):
        found = rope.read({"rope_theta": 20000.0}, parameters, size)
        assert found.plain and found.gain == 1 and found.theta == 20000.0
        assert list(found.steps) == tables.rope_steps(20000.0, size)
    part = rope.read({"rotary_pct": 0.5}, {}, 2 * size)
    assert list(part.steps) == tables.rope_steps(10000.0, size) and not part.plain


@pytest.mark.parametrize(
    "parameters",
    [
        {"rope_type": "spiral"},
        {"rope_theta": 0.5},
        {"rope_theta": 1e13},
        {"partial_rotary_factor": 0.01},
        {"partial_rotary_factor": 2.0},
        {"rope_type": "longrope", "short_factor": [1.0]},
        {"rope_type": "linear", "factor": 1e-9},
        {"rope_type": "linear", "factor": -2.0},
        {"rope_type": "linear", "factor": 0.0},
        {"rope_type": "linear", "factor": 1e-300},
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": -512},
        {"partial_rotary_factor": 1e400},
        {"partial_rotary_factor": -1e400},
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused(parameters: dict[str, Any]) -> None:
    with pytest.raises(ModelUnsupportedError):
        rope.read({"max_position_embeddings": 512}, parameters, 64)


@pytest.mark.parametrize(
    ("parameters", "name"),
    [
        ({"rope_type": "linear"}, "factor"),
        ({"rope_type": "linear", "factor": None}, "factor"),
        ({"rope_type": "linear", "factor": float("nan")}, "factor"),
        ({"rope_type": "llama3", "factor": 2.0}, "low_freq_factor"),
        ({"rope_theta": [1]}, "rope_theta"),
        ({"partial_rotary_factor": "half"}, "partial_rotary_factor"),
        ({"rope_type": "longrope", "short_factor": 3}, "short_factor"),
        ({"rope_type": "longrope", "short_factor": [None] * 32}, "short_factor"),
        ({"rope_type": "yarn", "factor": 2.0, "beta_fast": "x"}, "beta_fast"),
        ({"rope_type": "yarn", "factor": 2.0, "mscale": "x", "mscale_all_dim": 1}, "mscale"),
    ],
    ids=str,
)
def test_missing_numbers_are_errors_of_the_configuration(parameters: dict[str, Any], name: str) -> None:
    with pytest.raises((KeyError, ValueError), match=f"'{name}'"):
        rope.read({"max_position_embeddings": 512}, parameters, 64)
