"""Checks the network that corrects probabilities: its file, and what the compiled one computes, in numpy."""

from __future__ import annotations

import hashlib
from pathlib import Path

import mixer_samples as samples
import numpy as np
import pytest

from llmzip.errors import EngineError
from llmzip.mixing import network, tables
from llmzip.mixing.mixer import MixEncoder
from llmzip.mixing.network import CHOICES, INPUTS, ROWS, UNITS
from llmzip.mixing.stored import stored_file
from llmzip.mixing.vocabulary import Vocabulary

NUMERICS = Path(__file__).parents[2] / "docs" / "numerics.md"
STORED = network.unpacked(network.FILE.read_bytes())
VOCAB = 300


def test_the_file_has_the_documents_digest() -> None:
    digest = hashlib.sha256(network.FILE.read_bytes()).hexdigest()
    assert digest == network.DIGEST
    assert f"`{digest}`" in NUMERICS.read_text(encoding="utf-8").partition("### 10.11")[2]


def test_weights_keep_the_sums_within_32_bits() -> None:
    """The bounds of numerics section 10.8."""
    assert max(np.abs(STORED.first).max(), np.abs(STORED.row).max()) <= 1 << 13
    assert max(np.abs(STORED.second).max(), np.abs(STORED.bias).max()) <= 1 << 12
    assert np.abs(STORED.output.astype(int)).max() <= 1 << 14
    assert all(table.any() for table in STORED)


def test_packed_and_back() -> None:
    assert network.packed(STORED) == network.FILE.read_bytes()
    for wrong in (b"", network.packed(STORED)[:-2], network.packed(STORED) + b"\0\0"):
        with pytest.raises(ValueError, match="of a network"):
            network.unpacked(wrong)


def test_a_missing_or_damaged_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "network.bin"
    with pytest.raises(EngineError, match=r"network\.bin, part of llmzip's mixer, is missing or damaged; install"):
        stored_file(file, network.DIGEST)
    data = bytearray(network.FILE.read_bytes())
    file.write_bytes(data)
    assert stored_file(file, network.DIGEST) == data
    data[77] ^= 1
    file.write_bytes(data)
    with pytest.raises(EngineError, match="missing or damaged"):
        stored_file(file, network.DIGEST)


def test_pairs_of_inputs_lie_side_by_side() -> None:
    made = network.network()
    assert made.first.shape == (48, UNITS, 2) and made.second.shape == (UNITS // 2, UNITS, 2)
    for number in range(INPUTS):
        assert np.array_equal(made.first[number // 2, :, number % 2], STORED.first[number])
    assert not made.first[46, :, 1].any() and not made.first[47].any()
    for number in range(UNITS):
        assert np.array_equal(made.second[number // 2, :, number % 2], STORED.second[number])


def test_what_states_have_seen_is_a_logarithm() -> None:
    seen = tables.states().seen.astype(int)
    assert np.abs(tables.seen_logits()[: len(seen)] - 256 * np.log1p(seen)).max() <= 1
    assert not tables.seen_logits()[0] and not tables.seen_logits()[len(seen) :].any()


def samples_and_bits(num_tokens: int) -> tuple[np.ndarray, float]:
    """All decisions of tokens in one row, and the bits that the encoder says they take."""
    generator = np.random.default_rng(5)
    tokens = generator.integers(VOCAB, size=num_tokens)
    tokens[num_tokens // 3 :] = tokens[: num_tokens - num_tokens // 3]
    masses = generator.integers(1 << 16, size=(num_tokens, VOCAB)).astype(np.int32)
    masses[np.arange(num_tokens), tokens] <<= generator.integers(6, size=num_tokens).astype(np.int32)
    vocabulary = Vocabulary(samples.word_table(VOCAB))
    encoder = MixEncoder(vocabulary, tokens, 1, with_model=True)
    decisions = int(vocabulary.tree.depth[vocabulary.tree.leaf[tokens]].sum())
    kept = encoder.keep_samples(decisions, 1)
    encoder.add(np.arange(num_tokens), masses)
    _, bits = encoder.finish()
    return kept, bits


def test_the_coded_probabilities_are_the_documents() -> None:
    """Output weights that learn, by the formulas of numerics sections 10.7 and 10.8."""
    kept, bits = samples_and_bits(400)
    squash = tables.squash_table().astype(np.int64)
    output = STORED.output.astype(np.int64) << 15
    cost = 0.0
    corrected = 0
    for sample in kept.astype(np.int64):
        values, rows, bit = sample[:INPUTS], sample[INPUTS:-1], int(sample[-1])
        first = values @ STORED.first.astype(np.int64) + 256 * STORED.row.astype(np.int64)[rows].sum(0)
        hidden = np.clip(first >> 13, 0, 8191)
        unit = np.clip((hidden @ STORED.second.astype(np.int64) + 256 * STORED.bias.astype(np.int64)) >> 12, 0, 4095)
        correction = np.clip(((output >> 15) @ unit + 2048) >> 12, -2815, 2815)
        logit = int(np.clip(values[INPUTS - 3] + correction, -2815, 2815))
        corrected += logit != values[INPUTS - 3]
        probability = int(squash[logit + 2815])
        cost -= np.log2((probability if bit else 65536 - probability) / 65536)
        step = (((bit << 16) - probability) * 128 + 4096) >> 13
        output = np.clip(output + step * unit, -(1 << 29), 1 << 29)
    assert corrected > len(kept) // 2
    assert cost == pytest.approx(bits, rel=1e-5)


def test_samples_have_their_ranges() -> None:
    kept, _ = samples_and_bits(120)
    rows = kept[:, INPUTS : INPUTS + CHOICES]
    assert rows.min() >= 0 and rows.max() < ROWS
    first, last = (0, 16, 32, 56, 72), (16, 32, 56, 72, 88)
    assert all(
        (begin <= column).all() and (column < end).all() for begin, end, column in zip(first, last, rows.T, strict=True)
    )
    assert set(np.unique(kept[:, -1])) == {0, 1}
    assert (rows[0] == [0, 16, rows[0, 2], 56, 72]).all()  # the root, no match, at the text's beginning
