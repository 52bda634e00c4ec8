"""The shape of a model that runs exactly, and the settings of its arithmetic; must not know tensors or files.

Fields with a default were added after version 1 of the arithmetic was fixed. The canonical form leaves out those that
have their default, so digests of models that do not use them stay what they were (docs/numerics.md section 7).
"""

from __future__ import annotations

import dataclasses
import json
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import ModelUnsupportedError

MAX_CONTEXT = 1 << 17  # 131,072 positions
MAX_VOCAB = 300_000  # tokens
_MAX_SIZE = 1 << 17  # of hidden states and MLPs
_MAX_WINDOW = (1 << 31) - 1  # positions
_MAX_FLOOR_BITS = 8  # masses up to 2^28, whose sums stay below 2^47
_FLOOR_VOCAB = 1 << 14  # 16,384 tokens: with more of them the floor of 2^-20 costs more than a thousandth
_MIN_GAIN = 2.0**-20
_MAX_GAIN = 2.0**20
_MIN_EPSILON = 2.0**-40
MISSTATED = (KeyError, IndexError, TypeError, ValueError, AttributeError, ArithmeticError)
"""What reading a configuration raises if it lacks or misstates something."""
ACTIVATIONS = ("silu", "gelu", "gelu_tanh")
NORMS = ("rms", "layer")
_FLOATS = {"rope_theta", "norm_eps", "attention_scale", "attention_cap", "logit_cap", "embedding_gain"}
_SIZES = {
    "vocab_size": (16, MAX_VOCAB),
    "hidden_size": (1, _MAX_SIZE),
    "mlp_size": (1, _MAX_SIZE),
    "num_layers": (1, 1024),
    "num_heads": (1, 1024),
    "num_kv_heads": (1, 1024),
    "head_dim": (2, 512),
    "planes": (1, 2),
    "context": (2, MAX_CONTEXT),
    "floor_bits": (0, _MAX_FLOOR_BITS),
}
_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 80


def shown(value: object) -> str:
    """Returns any value of a configuration as a message shows it: short, in one line, however deep it is."""
    return _REPR.repr(value)


def checked_size(name: str, value: Any, bounds: tuple[int, int] | None = None) -> int:
    """Returns an integer of a configuration if it is one.

    Args:
        name: a field of ExactConfig.
        value: of whatever type.
        bounds: minimum and maximum; None for those of the field.

    Raises:
        ModelUnsupportedError: it is not an integer, or out of range.
    """
    low, high = bounds or _SIZES[name]
    if type(value) is not int or not low <= value <= high:
        raise ModelUnsupportedError(f"config: {name} is {shown(value)}, not an integer from {low} to {high}")
    return value


def default_floor_bits(vocab_size: int) -> int:
    """Returns the `floor_bits` of a checkpoint: with 2^(b - 1) to 2^b tokens the floor of each is 2^-(10 + b).

    Measured on models of 49,152 and 262,144 tokens: all floors together then cost less than 0.05 % of the code length,
    or save some, as tokens that the model thinks impossible do come (docs/numerics.md section 8.2).
    """
    return min((vocab_size - 1).bit_length() - 10, _MAX_FLOOR_BITS) if vocab_size > _FLOOR_VOCAB else 0


@dataclass(frozen=True)
class ExactConfig:
    """Shape and arithmetic of a model; every field is part of its digest.

    Attributes:
        vocab_size, hidden_size, mlp_size, num_layers, num_heads, num_kv_heads, head_dim: sizes.
        rope_theta: base of the rotary angles, if no `rope_steps` are given.
        norm_eps: float32 value.
        windows: per layer, positions a token sees, itself included; 0 for all.
        planes: int8 planes of the activations, 1 or 2.
        context: maximum positions of one segment.
        start_token: id fed before a row's first token.
        rope_steps: per rotary pair, 2^-64 turns per position; fewer pairs than D / 2 leave a head's last values alone.
        local_rope_steps: the same for layers with a window, if they have their own.
        unrotated: layers without rotary positions, rising.
        learned_positions: each position has a row that is added to the embedding.
        norm: "rms", or "layer" for norms that subtract the mean and add a bias.
        activation: "silu", "gelu" (by the error function) or "gelu_tanh".
        gated: the MLP multiplies act(gate) by up; else it is act(up).
        parallel: attention and MLP of a layer both see the layer's input.
        attention_scale: binary64 factor of the scores; 0 for 1 / sqrt(D).
        attention_cap, logit_cap: binary64 c of c tanh(x / c) on scores and logits; 0 for none.
        embedding_gain: float32 factor of the embedding's rows.
        floor_bits: k: the largest mass is 2^(20 + k), so that those of unlikely tokens are finer.
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
    rope_steps: tuple[int, ...] = ()
    local_rope_steps: tuple[int, ...] = ()
    unrotated: tuple[int, ...] = ()
    learned_positions: bool = False
    norm: str = "rms"
    activation: str = "silu"
    gated: bool = True
    parallel: bool = False
    attention_scale: float = 0.0
    attention_cap: float = 0.0
    logit_cap: float = 0.0
    embedding_gain: float = 1.0
    floor_bits: int = 0

    def __post_init__(self) -> None:
        for name in _SIZES:
            checked_size(name, getattr(self, name))
        checked_size("start_token", self.start_token, (0, self.vocab_size - 1))
        if self.num_heads % self.num_kv_heads or self.head_dim % 2:
            raise ModelUnsupportedError("config: heads must be a multiple of kv heads, and the head size even")
        if self.num_heads * self.head_dim > _MAX_SIZE:
            raise ModelUnsupportedError(f"config: {self.num_heads} heads of size {self.head_dim} are too many")
        if not 1.0 < self.rope_theta <= 1e12 or not _MIN_EPSILON <= self.norm_eps <= 1.0:
            raise ModelUnsupportedError(
                f"config: rope_theta {self.rope_theta} or norm_eps {self.norm_eps} out of range"
            )
        if len(self.windows) != self.num_layers or any(
            type(window) is not int or not 0 <= window <= _MAX_WINDOW for window in self.windows
        ):
            raise ModelUnsupportedError("config: one sliding window per layer, each an integer from 0 to 2^31 - 1")
        for steps in (self.rope_steps, self.local_rope_steps):
            if 2 * len(steps) > self.head_dim or any(type(step) is not int or step >> 64 for step in steps):
                raise ModelUnsupportedError("config: rope steps are at most D / 2 integers from 0 to 2^64 - 1")
        if len(self.local_rope_steps) not in (0, len(self.rope_steps)):
            raise ModelUnsupportedError("config: as many local rope steps as others, or none")
        if list(self.unrotated) != sorted(set(self.unrotated) & set(range(self.num_layers))):
            raise ModelUnsupportedError("config: unrotated layers must be rising numbers of layers")
        if self.norm not in NORMS or self.activation not in ACTIVATIONS:
            raise ModelUnsupportedError(f"config: norm {self.norm!r} or activation {self.activation!r} is unknown")
        if any(type(flag) is not bool for flag in (self.learned_positions, self.gated, self.parallel)):
            raise ModelUnsupportedError("config: a flag is neither true nor false")
        scales = (self.attention_scale, self.attention_cap, self.logit_cap)
        if not all(value == 0 or _MIN_GAIN <= value <= _MAX_GAIN for value in scales):
            raise ModelUnsupportedError(f"config: scale or caps {scales} out of range")
        if not _MIN_GAIN <= self.embedding_gain <= _MAX_GAIN:
            raise ModelUnsupportedError(f"config: embedding gain {self.embedding_gain} out of range")

    def flops_per_token(self, length: int) -> int:
        """Returns the floating-point operations of one token's forward pass, averaged over a sequence.

        Matrix products, including the head, and the attention over the positions that are seen; a multiplication and
        an addition are two operations. They are what the model takes in floating point: integers here do the same.

        Args:
            length: number of tokens in the sequence.
        """
        heads, kv_heads, hidden = self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim, self.hidden_size
        mlp = (3 if self.gated else 2) * hidden * self.mlp_size
        products = self.num_layers * ((heads + 2 * kv_heads) * hidden + heads * hidden + mlp) + self.vocab_size * hidden
        seen = 0
        for window in self.windows:
            full = min(window or length, length)  # positions 1, 2, ... full, and then full for the rest
            seen += full * (full + 1) // 2 + (length - full) * full
        return 2 * products + 4 * heads * seen // length

    def as_dict(self) -> dict[str, Any]:
        """Returns all fields that have no default, and those whose value differs from it."""
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.default is dataclasses.MISSING or getattr(self, field.name) != field.default
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> ExactConfig:
        """Returns the configuration that `as_dict` gave these fields of.

        Raises:
            ModelUnsupportedError: a field that is missing or that this version does not know.
        """
        known = {field.name: field.default for field in dataclasses.fields(cls)}
        odd = [name for name in stored if name not in known] + [
            name for name, default in known.items() if default is dataclasses.MISSING and name not in stored
        ]
        if odd:
            raise ModelUnsupportedError(f"config: {odd[0]} is missing or unknown")
        fields: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in stored.items()}
        for name in _FLOATS & fields.keys():
            if type(fields[name]) is int:  # JSON of other writers may leave out the point; the digest must not differ
                fields[name] = float(fields[name])
        return cls(**fields)

    def canonical(self) -> bytes:
        """Returns one line of JSON with sorted keys, floats in hexadecimal: equal configs give equal bytes."""
        fields = {k: v.hex() if isinstance(v, float) else v for k, v in self.as_dict().items()}
        return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode("ascii")
