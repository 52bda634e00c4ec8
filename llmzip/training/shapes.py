"""Shapes of models that can be trained, and their Hugging Face configurations. Must not know torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import ModelUnsupportedError, SettingsError

DECODED_CONTEXT = 16384
"""Positions of one context when decoding. With a window in every layer only differences of positions matter, so they
may exceed the trained length."""

LARGE_PARAMETERS = 1 << 25
"""33.6 million, half as much again as the largest preset: models above it need care with memory and time."""

MAX_SEQUENCE = 1024
"""Tokens of a training sequence that is taken from a checkpoint's window."""


@dataclass(frozen=True)
class Shape:
    """A decoder of the Llama family.

    Attributes:
        vocab_size, hidden_size, num_layers, num_heads, num_kv_heads, head_dim, mlp_size: sizes.
        sequence: tokens of one training sequence, and the window of every layer when decoding.
        rope_theta: base of the rotary angles.
        norm_eps: epsilon of the RMS norms.
        qk_norm: whether queries and keys are normalised (Qwen3).
        qkv_bias: whether queries, keys and values have a bias (Qwen2).
        tied: whether the head is the embedding.
    """

    vocab_size: int = 4096
    hidden_size: int = 256
    num_layers: int = 6
    num_heads: int = 4
    num_kv_heads: int = 1
    head_dim: int = 64
    mlp_size: int = 704
    sequence: int = 512
    rope_theta: float = 10000.0
    norm_eps: float = 1e-6
    qk_norm: bool = True
    qkv_bias: bool = False
    tied: bool = True

    def __post_init__(self) -> None:
        limits = {
            "vocab_size": (256, 1 << 18),
            "hidden_size": (8, 1 << 14),
            "num_layers": (1, 256),
            "num_heads": (1, 256),
            "num_kv_heads": (1, 256),
            "head_dim": (2, 512),
            "mlp_size": (8, 1 << 16),
            "sequence": (16, 1 << 16),
        }
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if type(value) is not int or not low <= value <= high:
                raise SettingsError(f"{name.replace('_', ' ')} must be {low} to {high}, not {value!r}")
        if not 1.0 < self.rope_theta <= 1e12 or not 2.0**-40 <= self.norm_eps <= 1.0:
            raise SettingsError(f"rope theta {self.rope_theta} or norm epsilon {self.norm_eps} is out of range")
        if self.num_heads % self.num_kv_heads:
            raise SettingsError(f"{self.num_heads} heads are not a multiple of {self.num_kv_heads} key/value heads")
        if self.qk_norm and self.qkv_bias:
            raise SettingsError("no family has both norms and biases of queries and keys")
        if self.head_dim % 2:
            raise SettingsError(f"the head size must be even, not {self.head_dim}")

    @property
    def qkv_sizes(self) -> tuple[int, int, int]:
        """Outputs of the query, key and value projections."""
        return self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim, self.num_kv_heads * self.head_dim

    @property
    def num_parameters(self) -> int:
        """Number of weights; a tied embedding counts once."""
        h, heads = self.hidden_size, self.num_heads * self.head_dim
        layer = sum(self.qkv_sizes) * (h + self.qkv_bias) + heads * h + 3 * h * self.mlp_size
        layer += 2 * h + 2 * self.head_dim * self.qk_norm
        return self.num_layers * layer + (2 - self.tied) * self.vocab_size * h + h

    @property
    def is_large(self) -> bool:
        """Whether a step takes so much memory and time that the training is fitted to it."""
        return self.num_parameters > LARGE_PARAMETERS

    @property
    def flops_per_token(self) -> int:
        """Floating-point operations of one token's forward and backward pass, three times those of the forward pass.

        They are those of the matrix products and of the visible half of the attention scores.
        """
        h, heads = self.hidden_size, self.num_heads * self.head_dim
        products = self.num_layers * (sum(self.qkv_sizes) * h + heads * h + 3 * h * self.mlp_size)
        attention = self.num_layers * 2 * heads * self.sequence // 2
        return 3 * 2 * (products + self.vocab_size * h + attention)

    def describe(self) -> str:
        """Returns the shape as people read it."""
        return (
            f"{self.num_parameters / 1e6:.1f} M parameters: {self.num_layers} layers of {self.hidden_size}, "
            f"{self.num_heads}/{self.num_kv_heads} heads of {self.head_dim}, MLP {self.mlp_size}, "
            f"vocabulary {self.vocab_size}, sequence {self.sequence}"
        )


PRESETS = {
    "small": Shape(hidden_size=192, num_layers=4, num_heads=3, mlp_size=512),
    "bytes": Shape(vocab_size=256, num_layers=4, sequence=1024),
    "medium": Shape(),
    "base": Shape(num_layers=9),
    "large": Shape(
        hidden_size=512, num_layers=8, num_heads=8, num_kv_heads=2, mlp_size=1152, vocab_size=4096, sequence=1024
    ),
}
"""Name -> shape; `small`, `bytes` and `base` are those of the embedded models of these names."""

_SIZES = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_heads",
    "num_key_value_heads": "num_kv_heads",
    "head_dim": "head_dim",
    "intermediate_size": "mlp_size",
}


def to_config(shape: Shape, start_token: int | None = None) -> dict[str, Any]:
    """Returns the Hugging Face configuration of a model of this shape (bfloat16 weights, a window in every layer).

    Args:
        shape: of the model.
        start_token: token that each sequence began with; stored as the BOS.
    """
    windowed = ["sliding_attention"] * shape.num_layers
    config: dict[str, Any] = {
        "attention_bias": shape.qkv_bias,
        "attention_dropout": 0.0,
        "bos_token_id": start_token,
        "dtype": "bfloat16",
        "eos_token_id": None,
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "max_position_embeddings": DECODED_CONTEXT,
        "pad_token_id": None,
        "rms_norm_eps": shape.norm_eps,
        "rope_parameters": {"rope_theta": shape.rope_theta, "rope_type": "default"},
        "rope_theta": shape.rope_theta,
        "sliding_window": shape.sequence,
        "tie_word_embeddings": shape.tied,
        "use_cache": True,
    }
    config |= {theirs: getattr(shape, ours) for theirs, ours in _SIZES.items()}
    if shape.qk_norm or shape.qkv_bias:
        family = ("qwen3", "Qwen3ForCausalLM") if shape.qk_norm else ("qwen2", "Qwen2ForCausalLM")
        config |= {"use_sliding_window": True, "max_window_layers": 0, "layer_types": windowed}
    else:
        family = ("mistral", "MistralForCausalLM")
    return config | {"model_type": family[0], "architectures": [family[1]]}


def from_config(config: Mapping[str, Any], sequence: int | None) -> Shape:
    """Returns the shape of a Hugging Face checkpoint.

    Args:
        config: its config.json.
        sequence: tokens of a training sequence; None for the checkpoint's window, at most 1,024.

    Raises:
        ModelUnsupportedError: it is not of the Llama family, or of a form that cannot be trained here.
    """
    family = config.get("model_type")
    if family not in ("llama", "mistral", "qwen2", "qwen3"):
        raise ModelUnsupportedError(f"model_type {family!r} cannot be trained here, only llama, mistral, qwen2, qwen3")
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(rope, dict) or any(isinstance(value, dict) for value in rope.values()):
        raise ModelUnsupportedError("rotary parameters of this form cannot be trained here")
    if (rope.get("rope_type") or rope.get("type") or "default") != "default" or config.get("quantization_config"):
        raise ModelUnsupportedError("scaled rotary positions and quantised weights cannot be trained here")
    if (rope.get("partial_rotary_factor") or config.get("partial_rotary_factor") or 1.0) != 1.0:
        raise ModelUnsupportedError("partial rotary positions cannot be trained here")
    if config.get("hidden_act") != "silu" or config.get("mlp_bias"):
        raise ModelUnsupportedError("only gated MLPs with silu and without bias can be trained here")
    if config.get("attention_bias") and family != "qwen2":
        raise ModelUnsupportedError("attention with a bias can be trained here in the Qwen2 form only")
    try:
        heads = config["num_attention_heads"]
        sizes: dict[str, Any] = {ours: config.get(theirs) for theirs, ours in _SIZES.items()}
        sizes["num_kv_heads"] = sizes["num_kv_heads"] or heads
        sizes["head_dim"] = sizes["head_dim"] or config["hidden_size"] // heads
        window = config.get("sliding_window") or config["max_position_embeddings"]
        return Shape(
            **sizes,
            sequence=sequence or min(window, MAX_SEQUENCE),
            rope_theta=float(rope.get("rope_theta") or config.get("rope_theta") or 10000.0),
            norm_eps=float(config["rms_norm_eps"]),
            qk_norm=family == "qwen3",
            qkv_bias=family == "qwen2",
            tied=bool(config.get("tie_word_embeddings")),
        )
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        raise ModelUnsupportedError(f"config.json lacks or misstates {error}") from None


def as_dict(shape: Shape) -> dict[str, Any]:
    """Returns the fields of a shape as a training's checkpoint stores them."""
    return dataclasses.asdict(shape)
