"""Weights as tensors, for passes that still compute with them."""

from __future__ import annotations

import dataclasses
import warnings
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from ..models.model import ExactModel


def as_tensors(model: Any, device: torch.device) -> Any:
    """Returns a model whose weights are tensors on a device; a tied head stays tied."""
    if not isinstance(model, ExactModel):
        return model
    made: dict[int, torch.Tensor] = {}

    def tensor(value: Any) -> Any:
        if value is None:
            return None
        if id(value) not in made:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                made[id(value)] = torch.from_numpy(np.asarray(value)).to(device)
        return made[id(value)]

    def fields(weights: Any) -> dict[str, Any]:
        names = [x.name for x in dataclasses.fields(weights) if x.name not in ("config", "layers")]
        return {name: tensor(getattr(weights, name)) for name in names}

    layers = tuple(SimpleNamespace(**fields(layer)) for layer in model.layers)
    return SimpleNamespace(
        config=model.config, layers=layers, features=model.features, digest=model.digest, tensors=model.tensors,
        matrix_shapes=model.matrix_shapes, num_parameters=model.num_parameters, weights_bytes=model.weights_bytes,
        is_tied=model.is_tied, with_settings=model.with_settings, **fields(model),
    )  # fmt: skip
