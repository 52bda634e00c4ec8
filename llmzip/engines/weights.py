"""Integer weights: from a Hugging Face checkpoint, to and from the int8 form, and their digest; must not know text.

The int8 form is a file `model.llmzw` (docs/weights.md): the fields of ExactConfig, int8 matrices `NAME_q`, float32 row
scales `NAME_scale`, float32 norms and biases. The digest covers what the engine computes with, so files, sharding and
the source's dtype do not change it (docs/numerics.md section 7).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from .._version import NUMERICS_VERSION
from ..errors import ModelNotFoundError, ModelUnsupportedError
from . import ops, tables, weightfile

_MAX_CONTEXT = 1 << 17
_MAX_SIZE = 1 << 18
_MAX_VALUE = 2.0**50
_MAX_NORM = 2.0**20
INT8_NAME = "model.llmzw"
_HF_FAMILIES = ("llama", "mistral", "qwen2", "qwen3")


@dataclass(frozen=True)
class ExactConfig:
    """The shape of a model and the settings of its arithmetic; every field is part of the digest.

    Attributes:
        vocab_size, hidden_size, mlp_size, num_layers, num_heads, num_kv_heads, head_dim: sizes.
        rope_theta: base of the rotary angles.
        norm_eps: float32 value.
        windows: per layer, positions a token sees, itself included; 0 for all.
        planes: int8 planes of the activations, 1 or 2.
        context: most positions of one segment.
        start_token: id fed before a row's first token.
    """

    vocab_size: int
    hidden_size: int
    mlp_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    rope_theta: float
    norm_eps: float
    windows: tuple[int, ...]
    planes: int
    context: int
    start_token: int

    def __post_init__(self) -> None:
        sizes = {
            "vocab_size": (16, _MAX_SIZE),
            "hidden_size": (1, _MAX_SIZE // 2),
            "mlp_size": (1, _MAX_SIZE // 2),
            "num_layers": (1, 1024),
            "num_heads": (1, 1024),
            "num_kv_heads": (1, 1024),
            "head_dim": (2, 512),
            "planes": (1, 2),
            "context": (2, _MAX_CONTEXT),
            "start_token": (0, self.vocab_size - 1),
        }
        for name, (low, high) in sizes.items():
            value = getattr(self, name)
            if not isinstance(value, int) or not low <= value <= high:
                raise ModelUnsupportedError(f"config: {name} is {value!r}, not an integer from {low} to {high}")
        if self.num_heads % self.num_kv_heads or self.head_dim % 2:
            raise ModelUnsupportedError("config: heads must be a multiple of kv heads, and the head size even")
        if self.num_heads * self.head_dim > _MAX_SIZE // 2:
            raise ModelUnsupportedError(f"config: {self.num_heads} heads of size {self.head_dim} are too many")
        if not 1.0 < self.rope_theta <= 1e12 or not ops.TINY <= self.norm_eps <= 1.0:
            raise ModelUnsupportedError(
                f"config: rope_theta {self.rope_theta} or norm_eps {self.norm_eps} out of range"
            )
        if len(self.windows) != self.num_layers or min(self.windows) < 0:
            raise ModelUnsupportedError("config: one sliding window per layer, each at least 0")

    def canonical(self) -> bytes:
        """One line of JSON with sorted keys, floats in hexadecimal: equal configs give equal bytes."""
        fields = {k: v.hex() if isinstance(v, float) else v for k, v in dataclasses.asdict(self).items()}
        return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode("ascii")


@dataclass(frozen=True)
class LayerWeights:
    """One decoder layer; `*_q` (N, K) int8, `*_scale` (N,) float32, the rest (n,) float32 or None."""

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


@dataclass(frozen=True)
class ExactModel:
    """All weights of a model; the head is the embedding itself where they are tied."""

    config: ExactConfig
    embedding_q: torch.Tensor
    embedding_scale: torch.Tensor
    head_q: torch.Tensor
    head_scale: torch.Tensor
    final_norm: torch.Tensor
    layers: tuple[LayerWeights, ...]

    def tensors(self) -> dict[str, torch.Tensor]:
        """Every tensor by its name in the int8 form; a tied head is left out."""
        named = {
            "embedding_q": self.embedding_q,
            "embedding_scale": self.embedding_scale,
            "final_norm": self.final_norm,
        }
        if self.head_q is not self.embedding_q:
            named |= {"head_q": self.head_q, "head_scale": self.head_scale}
        for number, layer in enumerate(self.layers):
            for field in dataclasses.fields(layer):
                tensor = getattr(layer, field.name)
                if tensor is not None:
                    named[f"layers.{number}.{field.name}"] = tensor
        return named

    def matrix_shapes(self) -> set[tuple[int, int]]:
        """Shapes (N, K) of the int8 matrices."""
        return {(t.shape[0], t.shape[1]) for t in self.tensors().values() if t.dtype == torch.int8}

    def digest(self) -> bytes:
        """SHA-256 of the numerics version, the config and every tensor (docs/numerics.md section 7)."""
        sha = hashlib.sha256(b"llmzip exact model, numerics %d\n" % NUMERICS_VERSION)
        sha.update(self.config.canonical() + b"\n")
        for name, tensor in sorted(self.tensors().items()):
            kind = "int8" if tensor.dtype == torch.int8 else "float32"
            sha.update(f"{name} {kind} {'x'.join(map(str, tensor.shape))}\n".encode("ascii"))
            array = tensor.contiguous().cpu().numpy()
            sha.update(array.astype("<f4", copy=False).tobytes() if kind == "float32" else array.tobytes())
        return sha.digest()

    def to(self, device: torch.device) -> ExactModel:
        """The same model on another device; a tied head stays tied."""
        return _assemble(self.config, lambda name: _get(self.tensors(), name, device))


def _get(tensors: Mapping[str, torch.Tensor], name: str, device: torch.device) -> torch.Tensor | None:
    tensor = tensors.get(name)
    return None if tensor is None else tensor.to(device)


def _assemble(config: ExactConfig, get: Callable[[str], torch.Tensor | None]) -> ExactModel:
    """Builds a model from named tensors, with every shape and dtype checked."""
    heads, kv_heads, dim = config.num_heads, config.num_kv_heads, config.head_dim
    qkv, hidden, mlp, vocab = (heads + 2 * kv_heads) * dim, config.hidden_size, config.mlp_size, config.vocab_size
    matrices = {
        "qkv": (qkv, hidden),
        "out": (hidden, heads * dim),
        "gate_up": (2 * mlp, hidden),
        "down": (hidden, mlp),
    }

    def take(name: str, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        tensor = maybe(name, shape, dtype)
        if tensor is None:
            raise ModelUnsupportedError(f"weights: tensor {name} is missing")
        return tensor

    def maybe(name: str, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor | None:
        tensor = get(name)
        if tensor is None:
            return None
        if tuple(tensor.shape) != shape or tensor.dtype != dtype:
            raise ModelUnsupportedError(
                f"weights: tensor {name} is {tensor.dtype} {tuple(tensor.shape)}, not {dtype} {shape}"
            )
        if dtype == torch.float32 and not bool(torch.isfinite(tensor).all()):
            raise ModelUnsupportedError(f"weights: tensor {name} holds a NaN or an infinity")
        if dtype == torch.int8 and bool((tensor == -128).any()):
            raise ModelUnsupportedError(f"weights: tensor {name} holds -128; the int8 form uses -127 to 127")
        return tensor.contiguous()

    layers = []
    for number in range(config.num_layers):
        prefix = f"layers.{number}."
        fields: dict[str, Any] = {}
        for name, (rows, columns) in matrices.items():
            fields[f"{name}_q"] = take(f"{prefix}{name}_q", (rows, columns), torch.int8)
            fields[f"{name}_scale"] = take(f"{prefix}{name}_scale", (rows,), torch.float32)
            fields[f"{name}_bias"] = maybe(f"{prefix}{name}_bias", (rows,), torch.float32)
        for name in ("input_norm", "post_norm"):
            fields[name] = take(prefix + name, (hidden,), torch.float32)
        for name in ("q_norm", "k_norm"):
            fields[name] = maybe(prefix + name, (dim,), torch.float32)
        if (fields["q_norm"] is None) != (fields["k_norm"] is None):
            raise ModelUnsupportedError("weights: q_norm without k_norm, or k_norm without q_norm")
        layers.append(LayerWeights(**fields))
    embedding_q = take("embedding_q", (vocab, hidden), torch.int8)
    embedding_scale = take("embedding_scale", (vocab,), torch.float32)
    head_q = maybe("head_q", (vocab, hidden), torch.int8)
    if head_q is None:
        head_q, head_scale = embedding_q, embedding_scale
    else:
        head_scale = take("head_scale", (vocab,), torch.float32)
    final_norm = take("final_norm", (hidden,), torch.float32)
    model = ExactModel(config, embedding_q, embedding_scale, head_q, head_scale, final_norm, tuple(layers))
    _check_range(model)
    return model


def _check_range(model: ExactModel) -> None:
    """Bounds every value that the model can ever compute, so that none is infinite (docs/numerics.md section 7).

    Raises:
        ModelUnsupportedError: some text might drive a value out of range.
    """
    slack = 1.02  # more than quantisation and rounding add

    def peak(tensor: torch.Tensor | None) -> float:
        return 0.0 if tensor is None else float(tensor.abs().max().item())

    def gain(weight_q: torch.Tensor, scale: torch.Tensor) -> float:
        """The largest row sum of |weight|: no output exceeds it times the largest input."""
        sums = weight_q.to(torch.float32).abs_().sum(1, dtype=torch.float64)
        return slack * float((sums * scale.to(torch.float64)).max().item())

    def normed(weight: torch.Tensor) -> float:
        if peak(weight) > _MAX_NORM:
            raise ModelUnsupportedError(f"weights: a norm's weight is above {_MAX_NORM:g}")
        return slack * math.sqrt(weight.shape[0]) * peak(weight)

    residual = 127 * peak(model.embedding_scale)
    highest = 0.0
    for layer in model.layers:
        qkv = normed(layer.input_norm) * gain(layer.qkv_q, layer.qkv_scale) + peak(layer.qkv_bias)
        if layer.q_norm is not None and layer.k_norm is not None:
            qkv = max(qkv, normed(layer.q_norm), normed(layer.k_norm))
        residual += slack * qkv * gain(layer.out_q, layer.out_scale) + peak(layer.out_bias)
        gate_up = normed(layer.post_norm) * gain(layer.gate_up_q, layer.gate_up_scale) + peak(layer.gate_up_bias)
        residual += gate_up * gate_up * gain(layer.down_q, layer.down_scale) + peak(layer.down_bias)
        highest = max(highest, qkv, gate_up, residual)
    highest = max(highest, residual, normed(model.final_norm) * gain(model.head_q, model.head_scale))
    if not highest <= _MAX_VALUE:
        raise ModelUnsupportedError(
            f"weights: values might reach {highest:.3g}, above {_MAX_VALUE:.3g}, where the arithmetic is not exact"
        )


def save_int8(model: ExactModel, folder: Path) -> None:
    """Writes the int8 form into a folder."""
    tensors = {name: tensor.cpu().contiguous().numpy() for name, tensor in model.tensors().items()}
    (folder / INT8_NAME).write_bytes(weightfile.pack(dataclasses.asdict(model.config), NUMERICS_VERSION, tensors))


def load_model(
    folder: Path, planes: int = 2, context: int = _MAX_CONTEXT, start_token: int | None = None
) -> ExactModel:
    """Loads the int8 form if the folder holds one, or converts a Hugging Face checkpoint of a supported shape.

    Args:
        folder: with model.llmzw, or with config.json and *.safetensors.
        planes, context, start_token: for a Hugging Face checkpoint; the int8 form carries its own. The context is cut
            to what the model was made for; the start token is by default the model's BOS, else its EOS, else 0.

    Raises:
        ModelNotFoundError: no config or no safetensors in the folder.
        ModelUnsupportedError: a shape, a setting or a value that cannot run exactly.
    """
    try:
        if is_int8(folder):
            return _load_int8(folder / INT8_NAME)
        config = read_config(folder)
        return convert(config, read_tensors(folder), planes, context, start_token)
    except ModelUnsupportedError as error:
        raise ModelUnsupportedError(f"model {folder}: {error}") from None
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise ModelUnsupportedError(f"model {folder}: its configuration lacks or misstates {error}") from None


def _load_int8(path: Path) -> ExactModel:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelUnsupportedError(f"{path.name} cannot be read: {error.strerror}") from None
    config, numerics, arrays = weightfile.unpack(data)
    if numerics != NUMERICS_VERSION:
        raise ModelUnsupportedError(f"made for numerics version {numerics}, this llmzip has version {NUMERICS_VERSION}")
    fields = {field.name: config[field.name] for field in dataclasses.fields(ExactConfig)}
    fields["windows"] = tuple(fields["windows"])
    return _assemble(ExactConfig(**fields), {name: torch.from_numpy(array) for name, array in arrays.items()}.get)


def is_int8(folder: Path) -> bool:
    """Whether a folder holds the int8 form; it then comes before a checkpoint that lies beside it."""
    return (folder / INT8_NAME).exists()


def read_config(folder: Path) -> dict[str, Any]:
    """The config.json of a checkpoint.

    Raises:
        ModelNotFoundError: there is none.
        ModelUnsupportedError: it cannot be read.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelNotFoundError(f"model {folder}: no config.json in this folder") from None
    except (OSError, ValueError) as error:
        raise ModelUnsupportedError(f"config.json cannot be read: {error}") from None
    if not isinstance(config, dict):
        raise ModelUnsupportedError("config.json holds no object")
    return config


def read_tensors(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a checkpoint by name, from one or several safetensors files.

    Raises:
        ModelNotFoundError: no safetensors in the folder.
        ModelUnsupportedError: a file that cannot be read.
    """
    files = _weight_files(folder)
    if not files:
        hint = " (pickled weights are refused: they can run code)" if list(folder.glob("*.bin")) else ""
        raise ModelNotFoundError(f"model {folder}: no .safetensors file in this folder{hint}")
    tensors: dict[str, torch.Tensor] = {}
    for file in files:
        try:
            with safe_open(file, framework="pt") as reader:
                tensors |= {name: reader.get_tensor(name) for name in reader.keys()}  # noqa: SIM118 - no dict
        except (OSError, SafetensorError) as error:
            raise ModelUnsupportedError(f"{file.name} cannot be read: {error}") from None
    return tensors


def _weight_files(folder: Path) -> list[Path]:
    """What the index lists, or the one file of the usual name, or else every safetensors file there is.

    Some repositories hold the same weights a second time under another name.
    """
    try:
        index = json.loads((folder / "model.safetensors.index.json").read_text(encoding="utf-8"))
        return sorted({folder / Path(name).name for name in index["weight_map"].values()})
    except FileNotFoundError:
        usual = folder / "model.safetensors"
        return [usual] if usual.is_file() else sorted(folder.glob("*.safetensors"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelUnsupportedError(f"model.safetensors.index.json cannot be read: {error}") from None


def quantise_rows(weight: torch.Tensor, grid: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    """A matrix as int8 with one scale per row.

    Args:
        weight: (N, K) floating point, finite.
        grid: 0 for the finest scale, s = max(max |w|, TINY) * (1 / 127). Above 0, a step is at least grid / 127 of the
            row's root mean square, and s is rounded up to 5 bits, so that both entropy-code well (docs/weights.md).

    Returns:
        (N, K) int8, |w_q| <= 127; (N,) float32.
    """
    wide = weight.to(torch.float32)
    if not grid:
        w_q, scale = ops.quantise(wide, ops.ACT_MAX)
        return w_q.to(torch.int8), scale[:, 0].contiguous()
    least = torch.maximum(wide.abs().amax(1), grid * wide.square().mean(1).sqrt()).clamp(min=ops.TINY) / ops.ACT_MAX
    mantissa, exponent = torch.frexp(least)
    rough = torch.ldexp(torch.ceil(mantissa * 32) / 32, exponent)
    return torch.round(wide / rough[:, None]).to(torch.int8), rough


def convert(
    config: Mapping[str, Any],
    tensors: Mapping[str, torch.Tensor],
    planes: int,
    context: int,
    start_token: int | None = None,
    grid: float = 0.0,
) -> ExactModel:
    """A Hugging Face Llama, Mistral, Qwen2 or Qwen3 checkpoint as integers.

    Args:
        config: its config.json.
        tensors: its weights by name.
        planes, context, start_token: as in `load_model`.
        grid: as in `quantise_rows`.

    Raises:
        ModelUnsupportedError: naming the first thing that the exact engine cannot run.
    """
    family = config.get("model_type")
    if family not in _HF_FAMILIES:
        raise ModelUnsupportedError(
            f"model_type {family!r} is not one the exact engine runs ({', '.join(_HF_FAMILIES)})"
        )
    if config.get("quantization_config"):
        raise ModelUnsupportedError("quantised checkpoints are not supported, only floating-point ones")
    if config.get("hidden_act") != "silu":
        raise ModelUnsupportedError(f"hidden_act {config.get('hidden_act')!r} is not silu")
    layers, heads = config["num_hidden_layers"], config["num_attention_heads"]
    if start_token is None:
        start_token = default_start_token(config)
    exact = ExactConfig(
        vocab_size=config["vocab_size"],
        hidden_size=config["hidden_size"],
        mlp_size=config["intermediate_size"],
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=config.get("num_key_value_heads") or heads,
        head_dim=config.get("head_dim") or config["hidden_size"] // heads,
        rope_theta=_rope_theta(config),
        norm_eps=tables.float32(float(config["rms_norm_eps"])),
        windows=_windows(config, family, layers),
        planes=planes,
        context=min(context, config["max_position_embeddings"], _MAX_CONTEXT),
        start_token=start_token,
    )
    return _assemble(exact, _converted(exact, tensors, bool(config.get("tie_word_embeddings")), grid).get)


def default_start_token(config: Mapping[str, Any]) -> int:
    """A checkpoint's BOS, else its EOS, else 0."""
    return next((config[k] for k in ("bos_token_id", "eos_token_id") if isinstance(config.get(k), int)), 0)


def _rope_theta(config: Mapping[str, Any]) -> float:
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if any(isinstance(value, dict) for value in rope.values()):
        raise ModelUnsupportedError("rotary parameters that differ between layers are not supported")
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind != "default":
        raise ModelUnsupportedError(f"rope type {kind!r} is not supported, only 'default'")
    if float(rope.get("partial_rotary_factor") or config.get("partial_rotary_factor") or 1.0) != 1.0:
        raise ModelUnsupportedError("partial rotary embeddings are not supported")
    return float(rope.get("rope_theta") or config.get("rope_theta") or 10000.0)


def _windows(config: Mapping[str, Any], family: str, layers: int) -> tuple[int, ...]:
    window = config.get("sliding_window") or 0
    if family.startswith("qwen") and not config.get("use_sliding_window"):
        window = 0
    if not window:
        return (0,) * layers
    kinds = config.get("layer_types")
    if kinds is None:
        full = config.get("max_window_layers", 0) if family.startswith("qwen") else 0
        kinds = ["full_attention" if n < full else "sliding_attention" for n in range(layers)]
    return tuple(window if kind == "sliding_attention" else 0 for kind in kinds)


def _converted(
    exact: ExactConfig, source: Mapping[str, torch.Tensor], tied: bool, grid: float
) -> dict[str, torch.Tensor]:
    """Tensors of the int8 form from a checkpoint's, fused and quantised; `tied` ignores a head of its own."""
    left = set(source)

    def take(name: str) -> torch.Tensor:
        if name not in source:
            raise ModelUnsupportedError(f"weights: tensor {name} is missing")
        left.discard(name)
        tensor = source[name].to(torch.float32)
        if not bool(torch.isfinite(tensor).all()):
            raise ModelUnsupportedError(f"weights: tensor {name} holds a NaN or an infinity")
        return tensor

    out: dict[str, torch.Tensor] = {}

    def matrix(name: str, parts: list[str]) -> None:
        out[f"{name}_q"], out[f"{name}_scale"] = quantise_rows(torch.cat([take(f"{p}.weight") for p in parts]), grid)
        if any(f"{p}.bias" in source for p in parts):
            out[f"{name}_bias"] = torch.cat([take(f"{p}.bias") for p in parts])

    matrix("embedding", ["model.embed_tokens"])
    out["final_norm"] = take("model.norm.weight")
    if (
        not tied
        and "lm_head.weight" in source
        and not torch.equal(source["lm_head.weight"], source["model.embed_tokens.weight"])
    ):
        matrix("head", ["lm_head"])
    left.discard("lm_head.weight")
    for number in range(exact.num_layers):
        old, new = f"model.layers.{number}.", f"layers.{number}."
        attention, mlp = old + "self_attn.", old + "mlp."
        matrix(new + "qkv", [f"{attention}{x}_proj" for x in "qkv"])
        matrix(new + "out", [f"{attention}o_proj"])
        matrix(new + "gate_up", [f"{mlp}gate_proj", f"{mlp}up_proj"])
        matrix(new + "down", [f"{mlp}down_proj"])
        out[new + "input_norm"] = take(old + "input_layernorm.weight")
        out[new + "post_norm"] = take(old + "post_attention_layernorm.weight")
        for name in ("q_norm", "k_norm"):
            if f"{attention}{name}.weight" in source:
                out[new + name] = take(f"{attention}{name}.weight")
    left = {name for name in left if not name.endswith("rotary_emb.inv_freq")}
    if left:
        raise ModelUnsupportedError(f"weights: unknown tensor {min(left)}; this is not a plain decoder of this family")
    return out
