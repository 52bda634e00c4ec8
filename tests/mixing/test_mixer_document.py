"""Checks the mixer's payloads against the mixer as docs/numerics.md has it, decision by decision."""

from __future__ import annotations

import math

import mixer_by_the_document as document
import mixer_samples as samples
import numpy as np
import pytest

from llmzip.mixing.coder import Encoder
from llmzip.mixing.mixer import encode_bytes
from llmzip.mixing.predictor import find_blocks, new_decision
from llmzip.mixing.state import new_learned

BYTES = {
    **samples.short_bytes(),
    "longer text": samples.text(1500, seed=8),
    "longer csv": samples.csv(1200),
    "lines above are forgotten": b"".join(b"ab;%d\n" % n + b"x" * length for n, length in enumerate((9, 8160, 30, 5))),
}
TOKENS = {
    **samples.short_tokens(),
    "hashed, 33 rows": samples.token_sample("hashed", 300, 33, samples.word_table(90)),
    "no masses, 65 rows": samples.token_sample("none", 900, 65, samples.word_table(40)),
    "equal": samples.token_sample("equal", 60, 4, samples.word_table(300)),
}


def payload_and_bits(decisions: list[document.Decision]) -> tuple[bytes, float]:
    """What the documented intervals of the decisions code to."""
    left, frequency = np.array([document.interval(k, bit) for k, bit in decisions], dtype=np.int64).T
    encoder = Encoder()
    encoder.encode(left, frequency)
    return encoder.finish(), -sum(math.log2((k if bit else 65536 - k) / 65536) for k, bit in decisions)


@pytest.mark.parametrize("name", BYTES)
def test_bytes_are_coded_as_documented(name: str) -> None:
    data = BYTES[name]
    payload, bits = payload_and_bits(document.decisions_of([bytes([i]) for i in range(256)], data, 1, None))
    found, found_bits = encode_bytes(data)
    assert found.hex() == payload.hex()
    assert found_bits == pytest.approx(bits, rel=1e-9)


@pytest.mark.parametrize("name", TOKENS)
def test_tokens_are_coded_as_documented(name: str) -> None:
    sample = TOKENS[name]
    masses = None if sample.masses is None else sample.masses(np.arange(len(sample.tokens)))
    payload, bits = payload_and_bits(document.decisions_of(sample.table, sample.tokens.tolist(), sample.rows, masses))
    found, found_bits = samples.encode_tokens(sample)
    assert found.hex() == payload.hex()
    assert found_bits == pytest.approx(bits, rel=1e-9)


def test_blocks_are_found_as_documented_in_a_table_that_is_full(rng: np.random.Generator) -> None:
    mixer = document.Mixer([b"a", b"b"], 1, 1)
    learned, decision = new_learned(1, 12), new_decision(1)
    keys = rng.integers(0, 1 << 32, 900)
    for _ in range(2000):
        hashes, treelet = rng.choice(keys, 18), int(rng.integers(3))
        token = document.Token(0, [], hashes.tolist(), [], None)
        mixer._find_blocks(token, treelet)
        find_blocks(learned, decision, 0, hashes[None], treelet)
        assert decision.block[0].tolist() == token.blocks
        for block in token.blocks:
            # Often equal, so that it matters which of two makes room.
            state = int(rng.integers(1, 6))
            learned.blocks[block, 1] = mixer.blocks[block][1] = state
    assert {block: list(row) for block, row in mixer.blocks.items() if any(row)} == {
        block: row.tolist() for block, row in enumerate(learned.blocks) if row.any()
    }


@pytest.mark.parametrize("table_bits", [12, 20, 22])
def test_every_bit_of_the_table_is_used(table_bits: int, rng: np.random.Generator) -> None:
    learned, decision = new_learned(1, table_bits), new_decision(1)
    seen = set()
    for _ in range(40):
        find_blocks(learned, decision, 0, rng.integers(0, 1 << 32, (1, 18)), 5)
        seen |= set(decision.block[0].tolist())
    used = np.array(sorted(seen))
    assert [bool((used >> bit & 1).any()) for bit in range(table_bits)] == [True] * table_bits
