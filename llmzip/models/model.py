"""Integer weights in memory, their digest, their range, and the int8 form on the disk. Must not know checkpoints.

The int8 form is a file `model.llmzw` (docs/weights.md): the fields of ExactConfig, int8 matrices `NAME_q`, float32 row
scales `NAME_scale`, float32 norms and biases. The digest covers what the engine computes with, so files, sharding and
the source's dtype do not change it (docs/numerics.md section 7).
"""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .._version import NUMERICS_VERSION
from ..errors import ModelUnsupportedError
from ..system.forks import cached_property
from . import weightfile
from .config import ExactConfig
from .layout import INT8
from .mishaps import mishap

_BLOCK = 1 << 22
"""Weights that are summed at once: torch takes nine bytes for each."""
_MAX_VALUE = 2.0**50
"""Bound of everything that a model may compute (docs/numerics.md section 7)."""
_MAX_NORM = 2.0**20
"""Bound of the weights of norms."""
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


@dataclass(frozen=True)
class LayerWeights:
    """Weights of one decoder layer: `*_q` (N, K) int8, `*_scale` (N,) float32, the rest (n,) float32 or None."""

    input_norm: torch.Tensor
    qkv_q: torch.Tensor
    qkv_scale: torch.Tensor
    out_q: torch.Tensor
    out_scale: torch.Tensor
    post_norm: torch.Tensor
    gate_up_q: torch.Tensor
    gate_up_scale: torch.Tensor
    down_q: torch.Tensor
    down_scale: torch.Tensor
    qkv_bias: torch.Tensor | None = None
    out_bias: torch.Tensor | None = None
    gate_up_bias: torch.Tensor | None = None
    down_bias: torch.Tensor | None = None
    q_norm: torch.Tensor | None = None
    k_norm: torch.Tensor | None = None
    input_norm_bias: torch.Tensor | None = None
    post_norm_bias: torch.Tensor | None = None
    attention_post_norm: torch.Tensor | None = None
    mlp_post_norm: torch.Tensor | None = None


_LAYER_FIELDS = dataclasses.fields(LayerWeights)


@dataclass(frozen=True)
class ExactModel:
    """All weights of a model; the head is the embedding itself if they are tied."""

    config: ExactConfig
    embedding_q: torch.Tensor
    embedding_scale: torch.Tensor
    head_q: torch.Tensor
    head_scale: torch.Tensor
    final_norm: torch.Tensor
    layers: tuple[LayerWeights, ...]
    final_norm_bias: torch.Tensor | None = None
    positions_q: torch.Tensor | None = None
    positions_scale: torch.Tensor | None = None

    def tensors(self) -> dict[str, torch.Tensor]:
        """Returns every tensor by its name in the int8 form; a tied head is left out."""
        named = {
            "embedding_q": self.embedding_q,
            "embedding_scale": self.embedding_scale,
            "final_norm": self.final_norm,
        }
        if self.head_q is not self.embedding_q:
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
        return {(t.shape[0], t.shape[1]) for name, t in named if t.dtype == torch.int8 and name != "positions_q"}

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
        return sum(tensor.numel() for name, tensor in self.tensors().items() if not name.endswith("_scale"))

    @property
    def weights_bytes(self) -> int:
        """Bytes that the tensors take in memory."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors().values())

    def digest(self) -> bytes:
        """Returns the SHA-256 of the numerics version, the config and every tensor (docs/numerics.md section 7)."""
        return self._digest

    @cached_property
    def _digest(self) -> bytes:
        sha = hashlib.sha256(b"llmzip exact model, numerics %d\n" % NUMERICS_VERSION)
        sha.update(self.config.canonical() + b"\n")
        for name, tensor in sorted(self.tensors().items()):
            kind = "int8" if tensor.dtype == torch.int8 else "float32"
            sha.update(f"{name} {kind} {'x'.join(map(str, tensor.shape))}\n".encode("ascii"))
            array = tensor.contiguous().cpu().numpy()
            sha.update(array.astype("<f4", copy=False).data if kind == "float32" else array.data)
        return sha.digest()

    def to(self, device: torch.device) -> ExactModel:
        """Returns the same model on another device; a tied head stays tied."""
        # Without `assemble`: every value was checked when the model was made.
        moved: dict[str, Any] = {name: tensor.to(device) for name, tensor in self.tensors().items()}
        for name in ("q", "scale"):
            moved.setdefault(f"head_{name}", moved[f"embedding_{name}"])
        layers = []
        for number in range(len(self.layers)):
            parts: dict[str, Any] = {x.name: moved.get(f"layers.{number}.{x.name}") for x in _LAYER_FIELDS}
            layers.append(LayerWeights(**parts))
        fields: dict[str, Any] = {x.name: moved.get(x.name) for x in dataclasses.fields(self)}
        fields |= {"config": self.config, "layers": tuple(layers)}
        return ExactModel(**fields)

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
            positions_q=None if rows is None else rows[:context],
            positions_scale=None if scales is None else scales[:context],
        )


def assemble(config: ExactConfig, get: Callable[[str], torch.Tensor | None]) -> ExactModel:
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

    def __init__(self, get: Callable[[str], torch.Tensor | None]) -> None:
        self._get = get

    def matrix(self, name: str, rows: int, columns: int) -> torch.Tensor:
        """Returns a (rows, columns) int8 matrix."""
        tensor = self._checked(name, (rows, columns), torch.int8)
        if tensor is None:
            raise ModelUnsupportedError(f"weights: tensor {name} is missing")
        if int(tensor.min()) == -128:
            raise ModelUnsupportedError(f"weights: tensor {name} holds -128; the int8 form uses -127 to 127")
        return tensor

    def vector(self, name: str, size: int) -> torch.Tensor:
        """Returns a (size,) float32 vector."""
        tensor = self.maybe_vector(name, size)
        if tensor is None:
            raise ModelUnsupportedError(f"weights: tensor {name} is missing")
        return tensor

    def maybe_vector(self, name: str, size: int) -> torch.Tensor | None:
        """Returns a (size,) float32 vector, or None if the model has none of this name."""
        tensor = self._checked(name, (size,), torch.float32)
        if tensor is not None and not bool(torch.isfinite(tensor).all()):
            raise ModelUnsupportedError(f"weights: tensor {name} holds a NaN or an infinity")
        return tensor

    def _checked(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor | None:
        tensor = self._get(name)
        if tensor is None:
            return None
        if tuple(tensor.shape) != shape or tensor.dtype != dtype:
            raise ModelUnsupportedError(
                f"weights: tensor {name} is {tensor.dtype} {tuple(tensor.shape)}, not {dtype} {shape}"
            )
        return tensor.contiguous()


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


_SLACK = 1.02
"""More than quantisation and rounding add."""


def _peak(tensor: torch.Tensor | None) -> float:
    return 0.0 if tensor is None else float(tensor.abs().max().item())


def _coarse_gain(weight_q: torch.Tensor, scale: torch.Tensor) -> float:
    """Returns an upper bound of `_gain` that looks at no weight."""
    return _SLACK * 128 * weight_q.shape[1] * _peak(scale)


def _gain(weight_q: torch.Tensor, scale: torch.Tensor) -> float:
    """Returns the largest row sum of |weight|: no output exceeds it times the largest input."""
    step, largest = max(1, _BLOCK // weight_q.shape[1]), 0.0
    for rows in (slice(begin, begin + step) for begin in range(0, len(weight_q), step)):
        sums = weight_q[rows].abs().sum(1, dtype=torch.int64).to(torch.float64)
        largest = max(largest, float((sums * scale[rows].to(torch.float64)).max().item()))
    return _SLACK * largest


def _highest(model: ExactModel, gain: Callable[[torch.Tensor, torch.Tensor], float]) -> float:
    """Returns a bound of every value that the model can compute.

    Args:
        model: to bound.
        gain: bounds a matrix's outputs over its largest input, from its weights and scales.

    Raises:
        ModelUnsupportedError: the weight of a norm is out of range.
    """

    def normed(weight: torch.Tensor, bias: torch.Tensor | None = None) -> float:
        if _peak(weight) > _MAX_NORM:
            raise ModelUnsupportedError(f"weights: a norm's weight is above {_MAX_NORM:g}")
        return _SLACK * math.sqrt(weight.shape[0]) * _peak(weight) + _peak(bias)

    def added(value: float, norm: torch.Tensor | None) -> float:
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


def save_int8(model: ExactModel, folder: Path) -> None:
    """Writes the int8 form into a folder."""
    tensors = {name: tensor.cpu().contiguous().numpy() for name, tensor in model.tensors().items()}
    (folder / INT8).write_bytes(weightfile.pack(model.config.as_dict(), NUMERICS_VERSION, tensors))


def load_int8(path: Path) -> ExactModel:
    """Reads the int8 form.

    Args:
        path: of model.llmzw.

    Raises:
        ModelUnsupportedError: it cannot be read, is damaged, or was made for another version of the numerics.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelUnsupportedError(f"{path.name} cannot be read: {error.strerror}") from None
    try:
        config, numerics, arrays = weightfile.unpack(data)
    except ModelUnsupportedError as error:
        why = mishap(path)
        raise ModelUnsupportedError(f"{path.name} cannot be read: {why}" if why else str(error)) from None
    if numerics != NUMERICS_VERSION:
        raise ModelUnsupportedError(f"made for numerics version {numerics}, this llmzip has version {NUMERICS_VERSION}")
    return assemble(
        ExactConfig.from_dict(config), {name: torch.from_numpy(array) for name, array in arrays.items()}.get
    )
