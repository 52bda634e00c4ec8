"""The rotary positions that a GGUF file asks for, in the terms of a config.json; must not compute them."""

from __future__ import annotations

import math
from typing import Any

from ...errors import ModelUnsupportedError
from .fields import Fields

_LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
"""What all published models of Llama 3.1 to 3.3 have besides the factor; a file holds only the factors of the pairs."""
_FACTOR_TOLERANCE = 1e-4
_GAIN_TOLERANCE = 1e-5


def rope_settings(fields: Fields, head_dim: int, rotated: int) -> dict[str, Any]:
    """Returns rope_theta and rope_scaling.

    Args:
        fields: of the file.
        head_dim: D.
        rotated: values of a head that are rotated.

    Raises:
        ModelUnsupportedError: a kind of scaling that is unknown, or whose numbers are missing.
    """
    theta = fields.number("rope.freq_base", 10000.0)
    kind, factor = fields.get("rope.scaling.type"), fields.number("rope.scaling.factor", 0.0)
    if kind is None:  # older files
        factor = fields.number("rope.scale_linear", factor)
        kind = "linear" if factor not in (0.0, 1.0) else "none"
    if not 2 <= rotated <= head_dim:
        raise ModelUnsupportedError(f"{rotated} rotary values of heads of {head_dim} are not supported")
    if theta <= 1:
        raise ModelUnsupportedError(f"a rotary base of {theta:.6g} is out of range ({fields.full('rope.freq_base')})")
    stretched = _factors(fields, "rope_freqs.weight", rotated)
    short = _factors(fields, "rope_factors_short.weight", rotated)
    scaling: dict[str, Any] | None = None
    if short is not None or kind == "longrope":
        scaling = _long(fields, short)
    elif kind == "yarn":
        scaling = _yarn(fields, factor)
    elif kind == "linear":
        scaling = {"rope_type": "linear", "factor": _positive(fields, factor)}
    elif kind != "none":
        raise ModelUnsupportedError(f"rope scaling of type {kind!r:.50} is not supported")
    if stretched is not None:
        if scaling is not None:
            raise ModelUnsupportedError("rope_freqs.weight together with another rope scaling is not supported")
        scaling = _stretched(stretched, theta, rotated)
    return {"rope_theta": theta} | ({} if scaling is None else {"rope_scaling": scaling})


def _factors(fields: Fields, name: str, rotated: int) -> list[float] | None:
    """Returns the divisors of the frequencies in a tensor; None if there is none."""
    stored = fields.file.tensors.get(name)
    if stored is None:
        return None
    if stored.shape != (rotated // 2,):
        raise ModelUnsupportedError(f"weights: tensor {name} has the shape {stored.shape}, not ({rotated // 2},)")
    factors = [float(factor) for factor in stored.values()]
    if not all(math.isfinite(factor) and factor > 0 for factor in factors):
        raise ModelUnsupportedError(f"weights: tensor {name} holds a value that is not a positive number")
    return factors


def _stretched(factors: list[float], theta: float, rotated: int) -> dict[str, Any] | None:
    """Returns the scaling that the factors of each pair come from: that of Llama 3, if it gives the same ones."""
    if all(factor == 1 for factor in factors):
        return None
    factor, length = factors[-1], _LLAMA3["original_max_position_embeddings"]
    low, high = _LLAMA3["low_freq_factor"], _LLAMA3["high_freq_factor"]
    expected = []
    for pair in range(rotated // 2):
        turns = length * theta ** (-2 * pair / rotated) / (2 * math.pi)
        blend = min(max((turns - low) / (high - low), 0.0), 1.0)
        expected.append(1 / ((1 - blend) / factor + blend))
    if all(math.isclose(a, b, rel_tol=_FACTOR_TOLERANCE) for a, b in zip(factors, expected, strict=True)):
        return {"rope_type": "llama3", "factor": factor, **_LLAMA3}
    return {"rope_type": "longrope", "short_factor": factors, "attention_factor": 1.0}


def _long(fields: Fields, short: list[float] | None) -> dict[str, Any]:
    if short is None:
        raise ModelUnsupportedError("weights: tensor rope_factors_short.weight is missing")
    longest = fields.integer("context_length")
    original = fields.integer("rope.scaling.original_context_length", longest)
    scaling = {"rope_type": "longrope", "short_factor": short, "original_max_position_embeddings": original}
    gain = fields.number("rope.scaling.attn_factor", 0.0)
    if gain:
        ratio = longest / original if original else 0.0
        usual = math.sqrt(1 + math.log(ratio) / math.log(original)) if ratio > 1 and original > 1 else 1.0
        if not math.isclose(gain, usual, rel_tol=_GAIN_TOLERANCE):  # else the same as the configuration's own, exactly
            scaling["attention_factor"] = gain
    return scaling


def _yarn(fields: Fields, factor: float) -> dict[str, Any]:
    scaling: dict[str, Any] = {"rope_type": "yarn", "factor": _positive(fields, factor)}
    if original := fields.integer("rope.scaling.original_context_length", 0):
        scaling["original_max_position_embeddings"] = original
    for ours, theirs in {"beta_fast": "beta_fast", "beta_slow": "beta_slow", "attention_factor": "attn_factor"}.items():
        if value := fields.number(f"rope.scaling.yarn_{theirs}", 0.0):
            scaling[ours] = value
    return scaling


def _positive(fields: Fields, factor: float) -> float:
    if factor <= 0:
        raise ModelUnsupportedError(f"its metadata lack {fields.full('rope.scaling.factor')}")
    return factor
