"""Measures of a scored text, as published work defines them: entropy, perplexity, rates; must not know models or files.

Almost all of them begin with the same number: how many bits the model needs to name each token that comes next,
added up over the text. A text that it expects is cheap, a surprising one is expensive. The measures differ in what
this total is divided by, so that texts, tokenizers and models can be compared, and in what else has to be paid: whole
bits, whole bytes, the model itself.

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
"""Size of the pieces that "Language Modeling Is Compression" (LMIC) compresses by themselves."""

LMIC_PARAMETER_BYTES = 2
"""What LMIC counts for a parameter of a model."""

CAPACITY_TOKENS = 1024
"""Tokens of the sequence over which Information Capacity averages the cost of attention."""

CAPACITY_BIAS = -24.0
"""The bias that the authors of Information Capacity fitted for mixed text."""

_SLACK_BITS = 1e-9
"""How far rounding may put the difference of two logarithms above a whole number of bits."""


@dataclass(frozen=True)
class TextFacts:
    """Sizes of a text, which its bits are divided by.

    Attributes:
        num_bytes: size in bytes.
        num_characters: number of Unicode code points; None if the text is not valid UTF-8.
        num_words: number of words, which are separated by white space; None likewise.
        zlib_bits: bits of the text compressed by zlib at level 9.
    """

    num_bytes: int
    num_characters: int | None
    num_words: int | None
    zlib_bits: int

    @classmethod
    def of(cls, data: bytes) -> TextFacts:
        """Counts the bytes, characters and words of a text, and what zlib makes of it."""
        zlib_bits = 8 * len(zlib.compress(data, 9))
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError:
            return cls(len(data), None, None, zlib_bits)
        return cls(len(data), len(text), len(text.split()), zlib_bits)


@dataclass(frozen=True)
class ModelFacts:
    """Sizes of a model, which some measures charge for.

    Attributes:
        num_parameters: number of parameters; a tied embedding counts once.
        weights_bytes: size of the weights as llmzip stores or holds them.
        flops_per_token: floating-point operations of one token's forward pass, on the average over a sequence of 1,024
            tokens; None if they are not known.
    """

    num_parameters: int
    weights_bytes: int
    flops_per_token: int | None


def is_seen_whole(num_tokens: int, context: int) -> bool:
    """Checks whether a text fits into one context, so that each token is predicted from all tokens before it."""
    return num_tokens <= context


def context_text(num_tokens: int, context: int) -> str:
    """Says for people how many tokens predictions are made from, which in a short text are fewer than the context."""
    return f"whole text ({num_tokens:,} of {context:,})" if is_seen_whole(num_tokens, context) else f"{context:,}"


def per(bits: float, count: int | None) -> float | None:
    """Divides bits by a number of bytes, characters or tokens; None if there are none or they are not known."""
    return bits / count if count else None


def perplexity(bits: float, count: int | None) -> float | None:
    """Computes the perplexity: between how many equally likely continuations the model hesitates, on the average.

    It is 2 to the mean number of bits. A perplexity of 8 per token means that the model is as uncertain as if it had to
    guess each token among 8, or, which is the same, that a token takes 3 bits. Longer tokens are harder to guess, so
    only the perplexity per word compares models with different tokenizers.

    Returns:
        the perplexity; None if there is nothing to count, or if it is beyond the range of floating-point numbers.
    """
    mean = per(bits, count)
    return None if mean is None or mean >= 1024 else 2.0**mean


def rank_bits(ranks: np.ndarray) -> int:
    """Counts the bits of LLMZip's simplest scheme: the tokens' ranks, written in decimal and compressed by zlib.

    A good model mostly gives rank 0, and long runs of equal numbers are easy for zlib. What the scheme loses against
    arithmetic coding is everything that the probabilities say beyond their order.

    Source: LLMZip, arXiv 2306.04050, "LLaMA+zlib" of its tables; the form of the list is that of its published code.

    Args:
        ranks: (N,) integers, 0 for the likeliest token.
    """
    return 8 * len(zlib.compress(" ".join(map(str, ranks.tolist())).encode("ascii"), 9))


def prefix_bits(bits: np.ndarray) -> int:
    """Counts the bits of LLMZip's token-by-token prefix code, in which each token takes a whole number of bits.

    A token of 2.1 bits takes 3. So the scheme loses half a bit per token or so, which hurts most where the model is
    sure: a token that it has no doubt about still takes a bit, unless its probability is 1.

    Source: LLMZip, arXiv 2306.04050, "token-by-token" scheme, "TbyT" of its tables: l_i = ceil(log2 1/q_i).

    Args:
        bits: (N,) float64, log2 1/q_i.
    """
    import numpy as np  # not before it is needed: --help must be quick

    return int(np.ceil(bits - _SLACK_BITS).sum())


def total(bits: np.ndarray) -> float:
    """Sums up the bits of a text: what a perfect coder would need with this model.

    Divided by the number of characters it is LLMZip's upper bound on the entropy of the language: whoever predicts
    better needs fewer bits, and nobody needs fewer than the entropy. It is also the BPC of sliding windows.

    Source: LLMZip, arXiv 2306.04050, eq. 9: H_ub = sum of -log2 q_i over the number of characters. "Compression
    Represents Intelligence Linearly", arXiv 2404.09937, BPC: the same sum, each window of the text scoring only the
    tokens that no window before it has scored.
    """
    return float(bits.sum())


def coded_bytes(bits: float) -> int:
    """Returns the number of whole bytes that hold some bits."""
    return math.ceil(bits / 8 - _SLACK_BITS)


def raw_rate(pieces: Iterable[float], num_bytes: int) -> float:
    """Divides the compressed size by the raw size; each piece is compressed by itself to whole bytes.

    0.25 means that a quarter is left. The model is free of charge here; `adjusted_rate` pays for it.

    Source: "Language Modeling Is Compression", arXiv 2309.10668, "raw compression rate" of Table 1.

    Args:
        pieces: coder's bits of each piece.
        num_bytes: size of the whole text.
    """
    return sum(map(coded_bytes, pieces)) / num_bytes


def adjusted_rate(rate: float, model_bytes: int, num_bytes: int) -> float:
    """Adds the model to the raw rate, as if it had to be sent along with the text.

    A model of 1 GB makes nothing smaller that is itself smaller than 1 GB: above 1, sending the plain text is cheaper.

    Source: "Language Modeling Is Compression", arXiv 2309.10668, "adjusted compression rate" of Table 1, with 2
    bytes for each parameter.
    """
    return rate + model_bytes / num_bytes


def information_capacity(
    bits: float, num_tokens: int, num_bytes: int, flops_per_token: int | None, bias: float = CAPACITY_BIAS
) -> float | None:
    """Sets the bits that a model saves per token against the logarithm of what a token costs it to compute.

    Larger models save more bits, and every doubling of the work saves about as many as the doubling before: dividing by
    the logarithm makes models of one family comparable. The formula is (8 bytes per token - bits per token + bias) /
    log2(FLOPs per token), here over the whole text, where the authors average samples of 1,024 tokens without their
    first one.

    Source: "Information Capacity", arXiv 2511.08066, and its published code, which has the bias.
    """
    if not num_tokens or flops_per_token is None or flops_per_token < 2:
        return None
    return (8 * num_bytes / num_tokens - bits / num_tokens + bias) / math.log2(flops_per_token)


def measures(scores: Scores, text: TextFacts, model: ModelFacts) -> dict[str, Value]:
    """Computes every measure of a scored text.

    Args:
        scores: the text's scores, with ranks.
        text: the text's sizes.
        model: the model's sizes.

    Returns:
        values by the names that JSON and CSV give them, the unit last; None where a value is not known.
    """
    bits, coded, num_tokens = total(scores.model_bits), total(scores.coded_bits), len(scores.tokens)
    rate = raw_rate([coded], text.num_bytes)
    schemes = {
        "arithmetic": coded,
        "prefix": prefix_bits(scores.model_bits),
        "ranks_zlib": None if scores.ranks is None else rank_bits(scores.ranks),
        "zlib": text.zlib_bits,
    }
    values: dict[str, Value] = {
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
        values[f"{name}_bits"] = size
        values[f"{name}_bits_per_byte"] = None if size is None else per(size, text.num_bytes)
        values[f"{name}_bits_per_character"] = None if size is None else per(size, text.num_characters)
    return values | {
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
    """Computes the rates of a text whose pieces of `piece_bytes` bytes are each compressed by itself."""
    rate = raw_rate((total(piece.coded_bits) for piece in pieces), text.num_bytes)
    return {
        "piece_bytes": piece_bytes,
        "pieces": len(pieces),
        "piece_raw_rate": rate,
        "piece_adjusted_rate": adjusted_rate(rate, LMIC_PARAMETER_BYTES * model.num_parameters, text.num_bytes),
    }
