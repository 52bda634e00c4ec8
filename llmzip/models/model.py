"""Integer weights in memory, as numpy arrays, and their digest. Must not know files, checkpoints or torch.

The digest covers what the engine computes with, so files, sharding and the source's dtype do not change it
(docs/numerics.md section 7).
"""

from __future__ import annotations

import dataclasses
import enum
import hashlib
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from .._version import NUMERICS_VERSION
from ..system.forks import cached_property
from .config import ExactConfig
from .matrix import Int8Matrix

Weights = np.ndarray | Int8Matrix
"""A vector of float32, or a matrix of int8."""

_OPTIONAL = ("final_norm_bias", "positions_q", "positions_scale")


class Feature(enum.Enum):
    """Something that only some models have and not every engine computes; the value names it in messages."""

    TWO_PLANES = "two planes of activations"
    LAYER_NORM = "LayerNorm"
    GELU = "an activation other than SiLU"
    UNGATED_MLP = "an MLP without a gate"
    PARALLEL_LAYERS = "attention and MLP in parallel"
    SOFT_CAPS = "soft caps"
    LEARNED_POSITIONS = "learned positions"
    PARTIAL_ROTARY = "heads rotated only in part"
    POST_NORMS = "norms after attention or MLP"
    MORE_BIASES = "biases after attention or in the MLP"


_WeightsT = TypeVar("_WeightsT", "LayerWeights", "ExactModel")


def _settle(weights: _WeightsT) -> None:
    """Makes a matrix of each `*_q` and a numpy array of each other weight, whatever arrays the caller has.

    Two fields with one array get one matrix: a tied head is recognised by that.
    """
    made: dict[int, Int8Matrix] = {}
    for field in dataclasses.fields(weights):
        value = getattr(weights, field.name)
        if value is None or field.name in ("config", "layers"):
            continue
        if not field.name.endswith("_q"):
            settled: Weights = np.asarray(value)
        elif isinstance(value, Int8Matrix):
            settled = value
        else:
            settled = made.setdefault(id(value), Int8Matrix(np.asarray(value)))
        object.__setattr__(weights, field.name, settled)


@dataclass(frozen=True, eq=False)
class LayerWeights:
    """Weights of one decoder layer: `*_q` (N, K) int8, `*_scale` (N,) float32, the rest (n,) float32 or None.

    They may be given as arrays of any kind that numpy reads.
    """

    input_norm: np.ndarray
    qkv_q: Int8Matrix
    qkv_scale: np.ndarray
    out_q: Int8Matrix
    out_scale: np.ndarray
    post_norm: np.ndarray
    gate_up_q: Int8Matrix
    gate_up_scale: np.ndarray
    down_q: Int8Matrix
    down_scale: np.ndarray
    qkv_bias: np.ndarray | None = None
    out_bias: np.ndarray | None = None
    gate_up_bias: np.ndarray | None = None
    down_bias: np.ndarray | None = None
    q_norm: np.ndarray | None = None
    k_norm: np.ndarray | None = None
    input_norm_bias: np.ndarray | None = None
    post_norm_bias: np.ndarray | None = None
    attention_post_norm: np.ndarray | None = None
    mlp_post_norm: np.ndarray | None = None

    def __post_init__(self) -> None:
        _settle(self)


_LAYER_FIELDS = dataclasses.fields(LayerWeights)


@dataclass(frozen=True, eq=False)
class ExactModel:
    """All weights of a model; the head is the embedding itself if they are tied.

    They may be given as arrays of any kind that numpy reads.
    """

    config: ExactConfig
    embedding_q: Int8Matrix
    embedding_scale: np.ndarray
    head_q: Int8Matrix
    head_scale: np.ndarray
    final_norm: np.ndarray
    layers: tuple[LayerWeights, ...]
    final_norm_bias: np.ndarray | None = None
    positions_q: Int8Matrix | None = None
    positions_scale: np.ndarray | None = None

    def __post_init__(self) -> None:
        _settle(self)

    @property
    def is_tied(self) -> bool:
        """Whether the head is the embedding."""
        return self.head_q is self.embedding_q

    def tensors(self) -> dict[str, Weights]:
        """Returns every tensor by its name in the int8 form; a tied head is left out."""
        named: dict[str, Weights] = {
            "embedding_q": self.embedding_q,
            "embedding_scale": self.embedding_scale,
            "final_norm": self.final_norm,
        }
        if not self.is_tied:
            named |= {"head_q": self.head_q, "head_scale": self.head_scale}
        for name in _OPTIONAL:
            if getattr(self, name) is not None:
                named[name] = getattr(self, name)
        for number, layer in enumerate(self.layers):
            for field in _LAYER_FIELDS:
                tensor = getattr(layer, field.name)
                if tensor is not None:
                    named[f"layers.{number}.{field.name}"] = tensor
        return named

    def matrix_shapes(self) -> set[tuple[int, int]]:
        """Returns the shapes (N, K) of the int8 matrices that are multiplied; rows of positions are only looked up."""
        named = self.tensors().items()
        return {t.shape for name, t in named if isinstance(t, Int8Matrix) and name != "positions_q"}

    def features(self) -> frozenset[Feature]:
        """The features that this model has and not every model has."""
        config = self.config
        rotary_pairs = {len(config.rope_steps), len(config.local_rope_steps)} - {0}
        post_norms = [norm for layer in self.layers for norm in (layer.attention_post_norm, layer.mlp_post_norm)]
        biases = [bias for layer in self.layers for bias in (layer.out_bias, layer.gate_up_bias, layer.down_bias)]
        is_present = {
            Feature.TWO_PLANES: config.planes != 1,
            Feature.LAYER_NORM: config.norm != "rms" or self.final_norm_bias is not None,
            Feature.GELU: config.activation != "silu",
            Feature.UNGATED_MLP: not config.gated,
            Feature.PARALLEL_LAYERS: config.parallel,
            Feature.SOFT_CAPS: bool(config.attention_cap or config.logit_cap),
            Feature.LEARNED_POSITIONS: config.learned_positions,
            Feature.PARTIAL_ROTARY: bool(rotary_pairs - {config.head_dim // 2}),
            Feature.POST_NORMS: any(norm is not None for norm in post_norms),
            Feature.MORE_BIASES: any(bias is not None for bias in biases),
        }
        return frozenset(feature for feature, present in is_present.items() if present)

    @property
    def num_parameters(self) -> int:
        """Number of weights; shared ones count once, and the scales, which the int8 form adds, do not."""
        return sum(tensor.size for name, tensor in self.tensors().items() if not name.endswith("_scale"))

    @property
    def weights_bytes(self) -> int:
        """Bytes that the tensors take in memory."""
        return sum(tensor.size * tensor.dtype.itemsize for tensor in self.tensors().values())

    def digest(self) -> bytes:
        """Returns the SHA-256 of the numerics version, the config and every tensor (docs/numerics.md section 7)."""
        return self._digest

    @cached_property
    def _digest(self) -> bytes:
        sha = hashlib.sha256(b"llmzip exact model, numerics %d\n" % NUMERICS_VERSION)
        sha.update(self.config.canonical() + b"\n")
        for name, tensor in sorted(self.tensors().items()):
            is_matrix = isinstance(tensor, Int8Matrix)
            sizes = "x".join(map(str, tensor.shape))
            sha.update(f"{name} {'int8' if is_matrix else 'float32'} {sizes}\n".encode("ascii"))
            sha.update(tensor.rows.data if isinstance(tensor, Int8Matrix) else np.ascontiguousarray(tensor, "<f4").data)
        return sha.digest()

    def with_planes(self, number: int) -> ExactModel:
        """Returns the same weights with 1 or 2 planes of activations."""
        return self.with_settings(number, self.config.context, self.config.start_token)

    def with_settings(self, planes: int, context: int, start_token: int) -> ExactModel:
        """Returns the same weights with other settings.

        Args:
            planes: 1 or 2.
            context: positions, at most as many as before.
            start_token: id that each row begins with.

        Raises:
            ModelUnsupportedError: a setting is out of range.
        """
        config = dataclasses.replace(self.config, planes=planes, context=context, start_token=start_token)
        if config == self.config:
            return self
        rows, scales = self.positions_q, self.positions_scale
        return dataclasses.replace(
            self,
            config=config,
            positions_q=None if rows is None else Int8Matrix(rows.rows[:context]),
            positions_scale=None if scales is None else scales[:context],
        )
