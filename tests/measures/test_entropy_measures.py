"""The measures of `llmzip entropy` against numbers worked out by hand."""

from __future__ import annotations

import math
import zlib

import numpy as np
import pytest

from llmzip.measures import entropy
from llmzip.measures.entropy import ModelFacts, TextFacts
from llmzip.measures.scoring import Scores
from llmzip.models.config import ExactConfig
from llmzip.training.shapes import PRESETS

MODEL = ModelFacts(num_parameters=1000, weights_bytes=700, flops_per_token=1 << 20)


def scores_of(bits: list[float], ranks: list[int]) -> Scores:
    array = np.array(bits)
    return Scores(np.zeros(len(bits), np.int64), array + 0.5, array, np.array(ranks), None, None, 31, 15)


def test_facts_of_a_text() -> None:
    text = "Größe  der\nWelt: 世界".encode()
    assert TextFacts.of(text) == TextFacts(len(text), 19, 4, 8 * len(zlib.compress(text, 9)))
    assert TextFacts.of(b"caf\xe9 au lait") == TextFacts(12, None, None, 8 * len(zlib.compress(b"caf\xe9 au lait", 9)))
    assert TextFacts.of(b" \n").num_words == 0


def test_per_and_perplexity() -> None:
    assert entropy.per(12.0, 8) == 1.5
    assert entropy.per(12.0, None) is None and entropy.per(12.0, 0) is None
    assert entropy.perplexity(12.0, 4) == 8.0
    assert entropy.perplexity(12.0, None) is None and entropy.perplexity(0.0, 0) is None
    assert entropy.perplexity(1e6, 2) is None  # beyond the floating-point numbers


def test_ranks_go_through_zlib_as_decimals() -> None:
    ranks = np.array([0, 0, 3, 0, 4095, 17], dtype=np.int32)
    assert entropy.rank_bits(ranks) == 8 * len(zlib.compress(b"0 0 3 0 4095 17", 9))


def test_prefix_code_takes_whole_bits_for_each_token() -> None:
    assert entropy.prefix_bits(np.array([1.0, 1.1, 2.5, 0.0, 9.0])) == 1 + 2 + 3 + 0 + 9
    # A difference of logarithms may be a hair above what it should be.
    assert entropy.prefix_bits(np.array([3.0000000000000004, math.log2(3 << 30) - math.log2(3 << 27)])) == 6


def test_prefix_codes_of_any_distribution_exist() -> None:
    masses = np.random.default_rng(5).integers(1, 1 << 20, 300)
    lengths = np.ceil(np.log2(masses.sum()) - np.log2(masses))
    assert entropy.prefix_bits(np.log2(masses.sum()) - np.log2(masses)) == lengths.sum()
    assert (2.0**-lengths).sum() <= 1  # Kraft's inequality


def test_rates_count_whole_bytes_and_the_model() -> None:
    assert entropy.raw_rate([8.0, 9.0, 0.5], 10) == 0.4
    assert entropy.raw_rate([8.0000000000001], 10) == 0.1
    assert entropy.adjusted_rate(0.4, 2000, 1000) == 2.4


def test_information_capacity_by_hand() -> None:
    # 4 bytes and 6 bits a token: 32 - 6 - 24 = 2 bits beyond the bias, for 2^20 operations.
    assert entropy.information_capacity(600.0, 100, 400, 1 << 20) == pytest.approx(2 / 20)
    assert entropy.information_capacity(600.0, 100, 400, 1 << 20, bias=0.0) == pytest.approx(26 / 20)
    assert entropy.information_capacity(600.0, 100, 400, None) is None
    assert entropy.information_capacity(0.0, 0, 0, 1 << 20) is None


def test_all_measures_of_a_text() -> None:
    text = TextFacts(num_bytes=10, num_characters=8, num_words=2, zlib_bits=144)
    values = entropy.measures(scores_of([1.0, 2.25, 4.0], [0, 1, 7]), text, MODEL)
    assert (values["total_bits"], values["bits_per_byte"], values["bits_per_character"]) == (7.25, 0.725, 7.25 / 8)
    assert values["perplexity_per_token"] == pytest.approx(2 ** (7.25 / 3))
    assert values["perplexity_per_word"] == pytest.approx(2 ** (7.25 / 2))
    assert (values["arithmetic_bits"], values["prefix_bits"]) == (8.75, 1 + 3 + 4)
    assert values["prefix_bits_per_character"] == 1.0 and values["zlib_bits_per_byte"] == 14.4
    assert values["ranks_zlib_bits"] == 8 * len(zlib.compress(b"0 1 7", 9))
    assert (values["raw_rate"], values["adjusted_rate"], values["adjusted_rate_as_stored"]) == (0.2, 200.2, 70.2)
    assert values["information_capacity"] == pytest.approx((80 / 3 - 7.25 / 3 - 24) / 20)
    assert (values["context"], values["stride"], values["tokens"], values["bytes"]) == (31, 15, 3, 10)


def test_bytes_that_are_no_text_have_no_characters() -> None:
    text = TextFacts(num_bytes=10, num_characters=None, num_words=None, zlib_bits=144)
    values = entropy.measures(scores_of([1.0, 2.25, 4.0], [0, 1, 7]), text, MODEL)
    missing = {name for name, value in values.items() if value is None}
    schemes = {f"{scheme}_bits_per_character" for scheme in ("arithmetic", "prefix", "ranks_zlib", "zlib")}
    assert missing == {"characters", "words", "bits_per_character", "perplexity_per_word", *schemes}


def test_pieces() -> None:
    text = TextFacts(num_bytes=10, num_characters=10, num_words=2, zlib_bits=144)
    pieces = [scores_of([1.0, 6.0], [0, 0]), scores_of([7.75], [0])]
    values = entropy.piece_measures(pieces, 5, text, MODEL)
    # 8 bits are 1 byte, 8.25 bits are 2.
    assert values == {"piece_bytes": 5, "pieces": 2, "piece_raw_rate": 0.3, "piece_adjusted_rate": 200.3}


def config_of(name: str) -> ExactConfig:
    """The shape of an embedded model."""
    shape = PRESETS[name]
    return ExactConfig(
        vocab_size=shape.vocab_size, hidden_size=shape.hidden_size, mlp_size=shape.mlp_size,
        num_layers=shape.num_layers, num_heads=shape.num_heads, num_kv_heads=shape.num_kv_heads,
        head_dim=shape.head_dim, rope_theta=shape.rope_theta, norm_eps=shape.norm_eps,
        windows=(shape.sequence,) * shape.num_layers, planes=1, context=16384, start_token=0,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["small", "base"])
def test_operations_of_a_token_are_a_third_of_those_that_train_it(name: str) -> None:
    shape, config = PRESETS[name], config_of(name)
    # The training's formula sees half of the window; the average of 1 to n is half of n + 1.
    half = 2 * shape.num_layers * shape.num_heads * shape.head_dim
    assert config.flops_per_token(shape.sequence) == shape.flops_per_token // 3 + half


def test_operations_by_hand() -> None:
    config = ExactConfig(
        vocab_size=16, hidden_size=8, mlp_size=10, num_layers=2, num_heads=2, num_kv_heads=1, head_dim=4,
        rope_theta=10000.0, norm_eps=1e-6, windows=(0, 2), planes=1, context=64, start_token=0, gated=False,
    )  # fmt: skip
    products = 2 * ((8 + 2 * 4) * 8 + 8 * 8 + 2 * 8 * 10) + 16 * 8
    seen = (1 + 2 + 3 + 4) + (1 + 2 + 2 + 2)
    assert config.flops_per_token(4) == 2 * products + 2 * 2 * 8 * seen // 4
