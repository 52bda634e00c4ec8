"""A model's weights, its operands and the ids that it is fed as tensors on a device, for the passes that torch runs.

Importing this module imports torch, and so gives torch the number of threads that was set before.
"""

from __future__ import annotations

import dataclasses
import warnings
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from ..models.config import ExactConfig
from ..models.model import ExactModel, Feature, LayerWeights
from ..system import threads
from .operands import Operands, rope_tables

threads.settle()


class TensorModel(SimpleNamespace):
    """A model whose weights are tensors on one device, under the names of the fields of ExactModel and LayerWeights.

    Attributes:
        config: the model's.
        layers: of each layer, its weights.
        device: where the weights are.
        num_parameters, weights_bytes: as of ExactModel.
    """

    config: ExactConfig
    layers: tuple[SimpleNamespace, ...]
    device: torch.device
    num_parameters: int
    weights_bytes: int

    def features(self) -> frozenset[Feature]:
        """The features that this model has and not every model has."""
        features: frozenset[Feature] = self._features
        return features

    def with_planes(self, number: int) -> TensorModel:
        """Returns the same weights with another number of planes, as `ExactModel.with_planes`."""
        features = self.features() - {Feature.TWO_PLANES} | ({Feature.TWO_PLANES} if number == 2 else frozenset())
        config = dataclasses.replace(self.config, planes=number)
        return TensorModel(**vars(self) | {"config": config, "_features": features})

    def matrix_shapes(self) -> set[tuple[int, int]]:
        """Returns the shapes (N, K) of the int8 matrices that are multiplied."""
        shapes: set[tuple[int, int]] = self._matrix_shapes
        return shapes


def on_device(model: ExactModel | TensorModel, device: torch.device) -> TensorModel:
    """Returns a model's weights on a device; what two of its fields share stays shared, and memory is not copied."""
    if isinstance(model, TensorModel) and model.device == device:
        return model
    placed: dict[int, torch.Tensor] = {}

    def place(weights: Any) -> torch.Tensor | None:
        if weights is None:
            return None
        if id(weights) not in placed:
            placed[id(weights)] = _tensor(weights).to(device)
        return placed[id(weights)]

    def fields(part: Any, kind: type[ExactModel | LayerWeights]) -> dict[str, torch.Tensor | None]:
        names = [field.name for field in dataclasses.fields(kind) if field.name not in ("config", "layers")]
        return {name: place(getattr(part, name)) for name in names}

    return TensorModel(
        config=model.config, layers=tuple(SimpleNamespace(**fields(layer, LayerWeights)) for layer in model.layers),
        device=device, num_parameters=model.num_parameters, weights_bytes=model.weights_bytes,
        _features=model.features(), _matrix_shapes=model.matrix_shapes(), **fields(model, ExactModel),
    )  # fmt: skip


def _tensor(weights: Any) -> torch.Tensor:
    """Returns weights as a tensor, which shares the memory of an array."""
    if isinstance(weights, torch.Tensor):
        return weights
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the memory may be read-only; nothing here writes weights
        return torch.from_numpy(np.asarray(weights))


def operands_of(model: TensorModel) -> Operands:
    """Derives the operands of a model whose weights are tensors, on their device."""
    device = model.device

    def place(table: np.ndarray) -> torch.Tensor:
        placed = torch.from_numpy(table).to(device)[:, :, None]
        if device.type == "cuda":
            torch.cuda.synchronize(device)  # other threads read it in streams of their own
        return placed

    return Operands(tuple(_qk_norm(layer, model.config) for layer in model.layers), rope_tables(model.config, place))


def _qk_norm(layer: SimpleNamespace, config: ExactConfig) -> torch.Tensor | None:
    if layer.q_norm is None or layer.k_norm is None:
        return None
    return torch.cat([layer.q_norm.expand(config.num_heads, -1), layer.k_norm.expand(config.num_kv_heads, -1)])


def ids_on(ids: np.ndarray, device: torch.device) -> torch.Tensor:
    """Returns token ids, (B, T) int64, as a tensor on a device."""
    return torch.from_numpy(np.ascontiguousarray(ids)).to(device)


def with_byte_tokens(masses: torch.Tensor, count: int) -> torch.Tensor:
    """Appends columns of zeros for `count` byte tokens, if there are any, to a model's masses, (n, V) int32."""
    return torch.nn.functional.pad(masses, (0, count)) if count else masses
