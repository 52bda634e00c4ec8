"""The measures of `llmzip entropy`: what published work computes from a text's scores; no input or output, no model.

Sums come first and are divided once. Bits are the model's own (`Scores.model_bits`) wherever a paper means the model,
and those of the integer frequencies (`Scores.coded_bits`) wherever it means a coder. docs/entropy.md says what each
measure is good for.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from .scoring import Scores

Value = int | float | str | None

LMIC_PIECE_BYTES = 2048
LMIC_PARAMETER_BYTES = 2
CAPACITY_TOKENS = 1024
CAPACITY_BIAS = -24.0
"""The bias that the authors of Information Capacity fitted for mixed text."""

_SLACK = 1e-9  # what the subtraction of two logarithms may be above a whole number of bits


@dataclass(frozen=True)
class TextFacts:
    """What there is to divide by.

    Attributes:
        num_bytes: of the text.
        num_characters: Unicode code points; None if it is no UTF-8.
        num_words: what lies between white space; None likewise.
        zlib_bits: the text alone through zlib, level 9.
    """

    num_bytes: int
    num_characters: int | None
    num_words: int | None
    zlib_bits: int

    @classmethod
    def of(cls, data: bytes) -> TextFacts:
        """Counts what there is of a text."""
        zlib_bits = 8 * len(zlib.compress(data, 9))
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError:
            return cls(len(data), None, None, zlib_bits)
        return cls(len(data), len(text), len(text.split()), zlib_bits)


@dataclass(frozen=True)
class ModelFacts:
    """What the measures need to know of a model.

    Attributes:
        num_parameters: a tied embedding counts once.
        weights_bytes: what its weights take as llmzip stores or holds them.
        flops_per_token: of one token's forward pass in the midst of 1,024 tokens; None if that is not known.
    """

    num_parameters: int
    weights_bytes: int
    flops_per_token: int | None


def is_seen_whole(num_tokens: int, context: int) -> bool:
    """Whether a text fits into one context, so that each token is predicted from all before it, whatever the stride."""
    return num_tokens <= context


def context_text(num_tokens: int, context: int) -> str:
    """For people: the tokens that predictions are made from, which in a short text are fewer than the context."""
    return f"whole text ({num_tokens:,} of {context:,})" if is_seen_whole(num_tokens, context) else f"{context:,}"


def per(bits: float, count: int | None) -> float | None:
    """Bits over a number of bytes, characters or tokens; None if there are none or they are not known."""
    return bits / count if count else None


def perplexity(bits: float, count: int | None) -> float | None:
    """2 to the mean number of bits; of tokens the usual one, of words one that compares tokenizers.

    None also where it is beyond the floating-point numbers.
    """
    mean = per(bits, count)
    return None if mean is None or mean >= 1024 else 2.0**mean


def rank_bits(ranks: np.ndarray) -> int:
    """LLMZip's ranks with zlib: the ranks in decimal, joined by blanks, through zlib's level 9.

    Source: LLMZip, arXiv 2306.04050, "LLaMA+zlib" of its tables; the form of the list is that of its published code.

    Args:
        ranks: (N,) integers, 0 for the likeliest token.
    """
    return 8 * len(zlib.compress(" ".join(map(str, ranks.tolist())).encode("ascii"), 9))


def prefix_bits(bits: np.ndarray) -> int:
    """LLMZip's token-by-token prefix code: each token takes the least whole number of bits that it may.

    Source: LLMZip, arXiv 2306.04050, "token-by-token" scheme, "TbyT" of its tables: l_i = ceil(log2 1/q_i).

    Args:
        bits: (N,) float64, log2 1/q_i.
    """
    import numpy as np  # not before it is needed: --help must be quick

    return int(np.ceil(bits - _SLACK).sum())


def total(bits: np.ndarray) -> float:
    """The sum of bits: over the characters LLMZip's entropy bound, which is also the BPC of sliding windows.

    Source: LLMZip, arXiv 2306.04050, eq. 9: H_ub = sum of -log2 q_i over the number of characters. "Compression
    Represents Intelligence Linearly", arXiv 2404.09937, BPC: the same sum, each window of the text scoring only the
    tokens that no window before it has scored.
    """
    return float(bits.sum())


def coded_bytes(bits: float) -> int:
    """The least whole bytes that hold some bits."""
    return math.ceil(bits / 8 - _SLACK)


def raw_rate(pieces: Iterable[float], num_bytes: int) -> float:
    """Compressed over raw size, each piece compressed by itself to whole bytes.

    Source: "Language Modeling Is Compression", arXiv 2309.10668, "raw compression rate" of Table 1.

    Args:
        pieces: bits of each.
        num_bytes: of all the text.
    """
    return sum(map(coded_bytes, pieces)) / num_bytes


def adjusted_rate(rate: float, model_bytes: int, num_bytes: int) -> float:
    """The raw rate with the model counted as a part of what is sent.

    Source: "Language Modeling Is Compression", arXiv 2309.10668, "adjusted compression rate" of Table 1, with 2
    bytes for each parameter.
    """
    return rate + model_bytes / num_bytes


def information_capacity(
    bits: float, num_tokens: int, num_bytes: int, flops_per_token: int | None, bias: float = CAPACITY_BIAS
) -> float | None:
    """Bits that a model saves for a token, beside the logarithm of what a token costs it to compute.

    (8 bytes per token - bits per token + bias) / log2(FLOPs per token). Here over the whole text, where the authors
    average samples of 1,024 tokens less their first one.

    Source: "Information Capacity", arXiv 2511.08066, and its published code, which has the bias.
    """
    if not num_tokens or flops_per_token is None or flops_per_token < 2:
        return None
    return (8 * num_bytes / num_tokens - bits / num_tokens + bias) / math.log2(flops_per_token)


def measures(scores: Scores, text: TextFacts, model: ModelFacts) -> dict[str, Value]:
    """Every measure of a scored text by the name that JSON and CSV give it; units last, None for unknown.

    Args:
        scores: with ranks.
    """
    bits, coded, num_tokens = total(scores.model_bits), total(scores.coded_bits), len(scores.tokens)
    rate = raw_rate([coded], text.num_bytes)
    schemes = {
        "arithmetic": coded,
        "prefix": prefix_bits(scores.model_bits),
        "ranks_zlib": None if scores.ranks is None else rank_bits(scores.ranks),
        "zlib": text.zlib_bits,
    }
    found: dict[str, Value] = {
        "context": scores.context,
        "stride": scores.stride,
        "bytes": text.num_bytes,
        "characters": text.num_characters,
        "words": text.num_words,
        "tokens": num_tokens,
        "total_bits": bits,
        "bits_per_byte": per(bits, text.num_bytes),
        "bits_per_character": per(bits, text.num_characters),
        "bits_per_token": per(bits, num_tokens),
        "perplexity_per_token": perplexity(bits, num_tokens),
        "perplexity_per_word": perplexity(bits, text.num_words),
    }
    for name, size in schemes.items():
        found[f"{name}_bits"] = size
        found[f"{name}_bits_per_byte"] = None if size is None else per(size, text.num_bytes)
        found[f"{name}_bits_per_character"] = None if size is None else per(size, text.num_characters)
    return found | {
        "raw_rate": rate,
        "adjusted_rate": adjusted_rate(rate, LMIC_PARAMETER_BYTES * model.num_parameters, text.num_bytes),
        "adjusted_rate_as_stored": adjusted_rate(rate, model.weights_bytes, text.num_bytes),
        "parameters": model.num_parameters,
        "weights_bytes": model.weights_bytes,
        "flops_per_token": model.flops_per_token,
        "information_capacity": information_capacity(bits, num_tokens, text.num_bytes, model.flops_per_token),
        "information_capacity_bias": CAPACITY_BIAS,
    }


def piece_measures(pieces: list[Scores], piece_bytes: int, text: TextFacts, model: ModelFacts) -> dict[str, Value]:
    """The rates of a text whose pieces of so many bytes are compressed each by itself."""
    rate = raw_rate((total(piece.coded_bits) for piece in pieces), text.num_bytes)
    return {
        "piece_bytes": piece_bytes,
        "pieces": len(pieces),
        "piece_raw_rate": rate,
        "piece_adjusted_rate": adjusted_rate(rate, LMIC_PARAMETER_BYTES * model.num_parameters, text.num_bytes),
    }
