"""Rotary frequencies of a Hugging Face configuration, including scalings; must not know tensors or engines.

Everything is computed in decimal arithmetic, so that every machine gets the same integers; they are part of the
model's digest, and the engine never sees how they came about. The formulas are those of transformers'
`modeling_rope_utils.py`; scalings that depend on the input's length are taken as they are within the trained length.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, localcontext
from typing import Any

from ..errors import ModelUnsupportedError
from ..numerics.tables import DECIMAL_CONTEXT, PI
from .config import shown

_KINDS = ("default", "linear", "dynamic", "llama3", "yarn", "longrope")


@dataclass(frozen=True)
class Rope:
    """Rotary positions of some layers.

    Attributes:
        theta: base; binary64.
        steps: per pair, 2^-64 turns per position.
        plain: whether the steps are those of `theta` alone, over whole heads.
        gain: factor of cosines and sines (yarn, longrope); that of scores is therefore its square.
    """

    theta: float
    steps: tuple[int, ...]
    plain: bool
    gain: float = 1.0


def misstated(name: str, value: object) -> ValueError:
    """Returns the error of a field with an impossible value; its text comes after "lacks or misstates"."""
    return ValueError(f"{name!r}, which is {shown(value)}")


def number(fields: Mapping[str, Any], name: str, default: float | None = None) -> float:
    """Returns a number of a configuration.

    Args:
        fields: of the configuration, or of a part of it.
        name: of the field.
        default: value if the field is missing; None if it must not be.

    Raises:
        KeyError: the field is missing.
        ValueError: it is not a number.
    """
    value = fields[name] if default is None else fields.get(name, default)
    try:
        result = float(value)
    except (TypeError, ValueError, OverflowError):
        raise misstated(name, value) from None
    if math.isnan(result):
        raise misstated(name, value)
    return result


def read(config: Mapping[str, Any], parameters: Mapping[str, Any], head_dim: int) -> Rope:
    """Returns the rotary positions that a configuration asks for.

    Args:
        config: of the model; older ones hold the base and the rotated part themselves.
        parameters: its `rope_parameters` or `rope_scaling`, possibly those of one kind of layers.
        head_dim: D, at most 512.

    Raises:
        ModelUnsupportedError: an unknown kind of scaling, or numbers that give no frequencies.
        KeyError, TypeError, ValueError: parameters that are missing or not numbers.
    """
    kind = parameters.get("rope_type") or parameters.get("type") or "default"
    if kind not in _KINDS:
        raise ModelUnsupportedError(f"rope type {shown(kind)} is not supported, only {', '.join(_KINDS)}")
    base = parameters.get("rope_theta") or config.get("rope_theta") or config.get("rotary_emb_base") or 10000.0
    theta = number({"rope_theta": base}, "rope_theta")
    if not 1.0 < theta <= 1e12:
        raise ModelUnsupportedError(f"config: rope_theta {theta} out of range")
    part = parameters.get("partial_rotary_factor") or config.get("partial_rotary_factor") or config.get("rotary_pct")
    size = head_dim
    if part is not None:
        share = number({"partial_rotary_factor": part}, "partial_rotary_factor")
        size = int(head_dim * min(max(share, 0.0), 1e6))
    if size < 2 or size % 2 or size > head_dim:
        raise ModelUnsupportedError(f"config: {size} rotary values of heads of {head_dim} are not supported")
    try:
        with localcontext(DECIMAL_CONTEXT):
            bare = [Decimal(theta) ** (Decimal(-2 * i) / size) for i in range(size // 2)]
            rates, gain = _scaled(kind, bare, theta, size, config, parameters)
            turns = [(2**64 * rate / (2 * PI)).to_integral_value() for rate in rates]
        steps = tuple(int(turn) for turn in turns)
    except ArithmeticError:  # a division by 0, the logarithm of a negative number
        raise ModelUnsupportedError(f"config: rotary parameters {shown(dict(parameters))} are out of range") from None
    if any(step >> 64 for step in steps):
        raise ModelUnsupportedError("config: a rotary frequency is out of range")
    return Rope(theta, steps, kind in ("default", "dynamic") and size == head_dim, float(gain))


def _scaled(
    kind: str, bare: list[Decimal], theta: float, size: int, config: Mapping[str, Any], parameters: Mapping[str, Any]
) -> tuple[list[Decimal], Decimal]:
    """Returns radians per position of each pair, and the gain."""
    one = Decimal(1)
    if kind in ("default", "dynamic"):  # dynamic scaling begins after the trained length
        return bare, one
    if kind == "longrope":
        return _long(bare, config, parameters)
    factor = Decimal(number(parameters, "factor"))
    if kind == "linear":
        return [rate / factor for rate in bare], one
    if kind == "llama3":
        return _llama3(bare, factor, parameters), one
    return _yarn(bare, factor, theta, size, config, parameters)


def _llama3(bare: list[Decimal], factor: Decimal, parameters: Mapping[str, Any]) -> list[Decimal]:
    """Stretches long wavelengths by the factor, keeps short ones, and blends those between."""
    low, high = Decimal(number(parameters, "low_freq_factor")), Decimal(number(parameters, "high_freq_factor"))
    trained = _length(parameters, "original_max_position_embeddings")
    rates = []
    for rate in bare:
        turns = trained * rate / (2 * PI)  # in the trained length
        if turns > high:
            rates.append(rate)
        elif turns < low:
            rates.append(rate / factor)
        else:
            smooth = (turns - low) / (high - low)
            rates.append((1 - smooth) * rate / factor + smooth * rate)
    return rates


def _yarn(
    bare: list[Decimal],
    factor: Decimal,
    theta: float,
    size: int,
    config: Mapping[str, Any],
    parameters: Mapping[str, Any],
) -> tuple[list[Decimal], Decimal]:
    """Applies YaRN (Peng et al. 2023, arXiv:2309.00071); its ramp joins two numbers of turns in the trained length."""
    original = "original_max_position_embeddings"
    trained = _length(parameters, original) if parameters.get(original) else _length(config, "max_position_embeddings")
    fast = Decimal(number(parameters, "beta_fast") if parameters.get("beta_fast") else 32)
    slow = Decimal(number(parameters, "beta_slow") if parameters.get("beta_slow") else 1)

    def place(turns: Decimal) -> Decimal:
        return size * (trained / (turns * 2 * PI)).ln() / (2 * Decimal(theta).ln())

    low, high = place(fast), place(slow)
    if parameters.get("truncate", True):
        low, high = low.to_integral_value("ROUND_FLOOR"), high.to_integral_value("ROUND_CEILING")
    low, high = max(low, Decimal(0)), min(high, Decimal(size - 1))
    if low == high:
        high += Decimal("0.001")
    rates = []
    for i, rate in enumerate(bare):
        ramp = min(max((i - low) / (high - low), Decimal(0)), Decimal(1))
        rates.append(rate / factor * ramp + rate * (1 - ramp))

    def gain(mscale: float) -> Decimal:
        return Decimal(1) if factor <= 1 else Decimal("0.1") * Decimal(mscale) * factor.ln() + 1

    if parameters.get("attention_factor") is not None:
        return rates, Decimal(number(parameters, "attention_factor"))
    if parameters.get("mscale") and parameters.get("mscale_all_dim"):
        return rates, gain(number(parameters, "mscale")) / gain(number(parameters, "mscale_all_dim"))
    return rates, gain(1)


def _long(
    bare: list[Decimal], config: Mapping[str, Any], parameters: Mapping[str, Any]
) -> tuple[list[Decimal], Decimal]:
    """Applies LongRoPE (Ding et al. 2024, arXiv:2402.13753) with its factors for inputs within the original length."""
    listed, original = parameters["short_factor"], "original_max_position_embeddings"
    if not isinstance(listed, list):
        raise misstated("short_factor", listed)
    if len(listed) != len(bare):
        raise ModelUnsupportedError(f"config: {len(listed)} rope factors for {len(bare)} pairs")
    factors = [Decimal(number({"short_factor": value}, "short_factor")) for value in listed]
    rates = [rate / factor for rate, factor in zip(bare, factors, strict=True)]
    if parameters.get("attention_factor") is not None:
        return rates, Decimal(number(parameters, "attention_factor"))
    longest = _length(config, "max_position_embeddings")
    trained = next((_length(fields, original) for fields in (parameters, config) if fields.get(original)), longest)
    factor = parameters.get("factor")
    ratio = longest / trained if factor is None else Decimal(number(parameters, "factor"))
    return rates, Decimal(1) if ratio <= 1 else (1 + ratio.ln() / trained.ln()).sqrt()


def _length(fields: Mapping[str, Any], name: str) -> Decimal:
    """Returns a number of positions of a configuration."""
    return Decimal(int(number(fields, name)))
