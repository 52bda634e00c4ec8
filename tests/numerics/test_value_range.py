"""Models whose values might become infinite are refused when they are loaded, whatever the text would be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from llmzip.errors import ModelUnsupportedError
from llmzip.models.weights import load_model


@pytest.mark.parametrize(
    ("tensor", "factor"),
    [
        ("model.layers.0.self_attn.q_proj.weight", 1e37),
        ("model.layers.1.self_attn.v_proj.weight", 1e20),
        ("model.layers.1.mlp.up_proj.weight", 1e12),
        ("model.layers.0.input_layernorm.weight", 1e20),
        ("model.norm.weight", 1e8),
        ("model.embed_tokens.weight", 1e30),
        ("lm_head.weight", 1e30),
    ],
)
def test_extreme_weights_are_refused(
    tensor: str,
    factor: float,
    tmp_path: Path,
    random_checkpoint: Callable[..., tuple[dict[str, Any], dict[str, torch.Tensor]]],
    write_checkpoint: Callable[..., Path],
) -> None:
    config, tensors = random_checkpoint()
    load_model(write_checkpoint(tmp_path / "right", config, tensors))
    tensors[tensor] = tensors[tensor] * factor
    with pytest.raises(ModelUnsupportedError, match=r"above|NaN or an infinity"):
        load_model(write_checkpoint(tmp_path / "wrong", config, tensors))


@pytest.mark.parametrize("eps", [1e-42, 1e-13, 0.0, 2.0])
def test_epsilons_out_of_range_are_refused(
    eps: float,
    tmp_path: Path,
    random_checkpoint: Callable[..., tuple[dict[str, Any], dict[str, torch.Tensor]]],
    write_checkpoint: Callable[..., Path],
) -> None:
    config, tensors = random_checkpoint(rms_norm_eps=eps)
    with pytest.raises(ModelUnsupportedError):
        load_model(write_checkpoint(tmp_path, config, tensors))
