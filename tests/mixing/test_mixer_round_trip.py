"""Checks that what the mixer codes comes back: any bytes, and tokens in rows with an engine that needs no weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mixer_samples as samples
import numpy as np
import pytest
import torch
from damage import damages
from hypothesis import example, given
from hypothesis import strategies as st

from llmzip.codec import rows
from llmzip.errors import CorruptError
from llmzip.format.plan import RowPlan
from llmzip.inference.progress import ByteMeter
from llmzip.mixing.mixer import MixDecoder, MixEncoder, decode_bytes, encode_bytes, table_bits
from llmzip.mixing.vocabulary import Vocabulary

MakeEngine = Callable[..., Any]

DATA = st.one_of(
    st.binary(min_size=1, max_size=400),
    st.text(min_size=1, max_size=200).map(str.encode),
    st.tuples(st.binary(min_size=1, max_size=20), st.integers(1, 200)).map(lambda pair: pair[0] * pair[1]),
    st.lists(st.sampled_from([b"(", b")", b"\n", b",", b"12", b"Ab", b"\xff", b"\0"]), min_size=1).map(b"".join),
)


def most_bytes(bits: float, decisions: int) -> float:
    """What a payload takes at most: the coder loses less than 2^-12 bits with a decision, and two bytes at the end."""
    return bits / 8 + decisions * 2**-15 + 2


def one_byte_each(ids: np.ndarray) -> int:
    return len(ids)


# -- bytes -------------------------------------------------------------------------------------------------------------


@given(data=DATA)
@example(data=b"\0")
@example(data=b"\xff")
def test_bytes_come_back(data: bytes) -> None:
    payload, bits = encode_bytes(data)
    assert decode_bytes(payload, len(data)) == data
    assert len(payload) < bits / 8 + 2


@pytest.mark.parametrize("name", samples.long_bytes())
def test_long_bytes_come_back(name: str) -> None:
    data = samples.long_bytes()[name]
    payload, bits = encode_bytes(data)
    assert decode_bytes(payload, len(data)) == data
    assert len(payload) < most_bytes(bits, 8 * len(data))


def test_every_single_byte_comes_back() -> None:
    for byte in range(256):
        payload, _ = encode_bytes(bytes([byte]))
        assert len(payload) <= 2 and decode_bytes(payload, 1) == bytes([byte])


def test_equal_bytes_give_equal_payloads() -> None:
    data = samples.csv(5000)
    assert encode_bytes(data) == encode_bytes(data)


def test_statistics_are_what_they_are_for() -> None:
    assert len(encode_bytes(samples.csv(40_000))[0]) < 40_000 / 3
    assert len(encode_bytes(samples.text(2000) * 10)[0]) < len(encode_bytes(samples.text(2000))[0]) * 1.1 + 20
    assert len(encode_bytes(bytes(100_000))[0]) < 60


def test_progress_of_bytes_adds_up() -> None:
    data, done = samples.text(300), []
    payload, _ = encode_bytes(data, done.append)
    assert sum(done) == 300
    done.clear()
    decode_bytes(payload, 300, done.append)
    assert done == [1] * 300


@pytest.mark.parametrize(
    ("num_tokens", "bits"), [(1, 12), (64, 12), (65, 13), (2048, 17), (2049, 18), (1 << 16, 22), (1 << 21, 22)]
)
def test_the_table_of_statistics_grows_with_the_tokens(num_tokens: int, bits: int) -> None:
    assert table_bits(num_tokens) == bits


# -- tokens with masses ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", samples.long_tokens())
def test_tokens_come_back(name: str) -> None:
    sample = samples.long_tokens()[name]
    payload, bits = samples.encode_tokens(sample)
    assert np.array_equal(samples.decode_tokens(sample, payload), sample.tokens)
    assert len(payload) < most_bytes(bits, 12 * len(sample.tokens))


@pytest.mark.parametrize("kind", ["hashed", "never", "none"])
@pytest.mark.parametrize("num_rows", [1, 7, 31, 32, 33, 64, 65, 200])
def test_any_number_of_rows(kind: str, num_rows: int) -> None:
    table = samples.word_table(40)
    for num_tokens in (200, 391):
        sample = samples.token_sample(kind, num_tokens, num_rows, table)
        payload, _ = samples.encode_tokens(sample)
        assert np.array_equal(samples.decode_tokens(sample, payload), sample.tokens)


@given(
    tokens=st.lists(st.integers(0, 4), min_size=1, max_size=80),
    words=st.lists(st.binary(max_size=2), min_size=5, max_size=5),
    num_rows=st.integers(1, 80),
)
def test_any_tokens_come_back(tokens: list[int], words: list[bytes], num_rows: int) -> None:
    array = np.array(tokens, dtype=np.int64)
    masses = samples.hashed_masses(array, 5)
    sample = samples.Tokens(array, min(num_rows, len(tokens)), masses, tuple(words))
    assert samples.decode_tokens(sample, samples.encode_tokens(sample)[0]).tolist() == tokens


def test_the_order_in_which_masses_come_does_not_matter() -> None:
    sample = samples.short_tokens()["hashed, 35 rows"]
    assert sample.masses is not None
    encoder = MixEncoder(samples.vocabulary(sample.table), sample.tokens, sample.rows, with_model=True)
    order = np.random.default_rng(1).permutation(len(sample.tokens)).astype(np.int64)
    for places in np.split(order, [1, 2, 30, 31]):
        encoder.add(places, sample.masses(places))
    assert encoder.finish() == samples.encode_tokens(sample)


def test_good_masses_make_short_payloads() -> None:
    table = samples.word_table(300)
    sizes = {
        kind: len(samples.encode_tokens(samples.token_sample(kind, 2000, 4, table))[0])
        for kind in ("right", "equal", "wrong")
    }
    assert sizes["right"] < 60 < sizes["equal"]


# -- tokens through an engine ------------------------------------------------------------------------------------------

VOCAB = 50


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return Vocabulary(list(samples.word_table(VOCAB)))


@pytest.mark.parametrize("num_rows", [1, 7, 32, 33, 64, 256])
def test_rows_with_an_engine(hash_engine: MakeEngine, vocabulary: Vocabulary, num_rows: int) -> None:
    num_tokens = 700
    tokens, plan = samples.drawn_tokens(num_tokens, VOCAB), RowPlan(num_tokens, num_rows, 3)
    expected = rows.FrameCoder(hash_engine(vocab_size=VOCAB), vocabulary).encode(tokens, plan)
    for batch_tokens in (1, 10, 64, 600, 1 << 20):
        engine = hash_engine(vocab_size=VOCAB, batch_tokens=batch_tokens)
        assert rows.FrameCoder(engine, vocabulary).encode(tokens, plan) == expected
    payload, bits = expected
    assert len(payload) < bits / 8 + 2
    done: list[int] = []
    engine = hash_engine(vocab_size=VOCAB, batch_tokens=13)
    found = rows.FrameCoder(engine, vocabulary).decode(payload, plan, ByteMeter(one_byte_each, num_tokens, done.append))
    assert np.array_equal(found, tokens)
    assert sum(done) == num_tokens


@pytest.mark.parametrize(("num_tokens", "num_rows"), [(1, 1), (2, 1), (2, 2), (3, 2), (13, 5), (33, 33), (65, 64)])
@pytest.mark.parametrize(("context", "overlap"), [(2, 1), (7, 6), (200, 30)])
def test_few_tokens_with_an_engine(
    hash_engine: MakeEngine, vocabulary: Vocabulary, num_tokens: int, num_rows: int, context: int, overlap: int
) -> None:
    tokens, plan = samples.drawn_tokens(num_tokens, VOCAB), RowPlan(num_tokens, num_rows, overlap)
    engine = hash_engine(vocab_size=VOCAB, context=context)
    payload, _ = rows.FrameCoder(engine, vocabulary).encode(tokens, plan)
    found = rows.FrameCoder(engine, vocabulary).decode(payload, plan, ByteMeter(one_byte_each, num_tokens))
    assert np.array_equal(found, tokens)


def test_rows_are_coded_with_the_engines_masses(hash_engine: MakeEngine, vocabulary: Vocabulary) -> None:
    """The payload is the mixer's own for the masses behind each token's context."""
    tokens, plan = samples.drawn_tokens(12, VOCAB), RowPlan(12, 3, 2)
    engine = hash_engine(vocab_size=VOCAB, context=16)
    encoder = MixEncoder(vocabulary, tokens, 3, with_model=True)
    for row in range(3):
        inputs = [engine.start_token, *tokens[4 * row : 4 * row + 3].tolist()]
        masses = engine.masses(engine.forward(np.array([inputs]))[0])
        encoder.add(np.arange(4 * row, 4 * row + 4), masses)
    assert encoder.finish() == rows.FrameCoder(engine, vocabulary).encode(tokens, plan)


def test_threads_change_nothing(hash_engine: MakeEngine, vocabulary: Vocabulary) -> None:
    tokens, plan = samples.drawn_tokens(300, VOCAB), RowPlan(300, 40, 3)
    found = set()
    for threads in (1, 3):
        torch.set_num_threads(threads)
        found.add(rows.FrameCoder(hash_engine(vocab_size=VOCAB), vocabulary).encode(tokens, plan))
    assert len(found) == 1


@pytest.mark.parametrize("other", [{"start_token": 4}, {"context": 8}])
def test_every_field_of_the_engine_matters(
    hash_engine: MakeEngine, vocabulary: Vocabulary, other: dict[str, int]
) -> None:
    tokens, plan = samples.drawn_tokens(60, VOCAB), RowPlan(60, 3, 2)
    payload, _ = rows.FrameCoder(hash_engine(vocab_size=VOCAB), vocabulary).encode(tokens, plan)
    engine = hash_engine(vocab_size=VOCAB, **other)
    assert rows.FrameCoder(engine, vocabulary).encode(tokens, plan)[0] != payload


# -- damage ------------------------------------------------------------------------------------------------------------


def test_damaged_payloads_give_tokens_or_a_corrupt_error(
    hash_engine: MakeEngine, vocabulary: Vocabulary, rng: np.random.Generator
) -> None:
    tokens, plan = samples.drawn_tokens(80, VOCAB), RowPlan(80, 8, 3)
    payload, _ = rows.FrameCoder(hash_engine(vocab_size=VOCAB), vocabulary).encode(tokens, plan)
    for damaged in damages(payload, rng):
        try:
            coder = rows.FrameCoder(hash_engine(vocab_size=VOCAB), vocabulary)
            ids = coder.decode(damaged, plan, ByteMeter(one_byte_each, 80))
            assert ids.shape == (80,) and ids.min() >= 0 and ids.max() < VOCAB
        except CorruptError as error:
            assert str(error).startswith("damaged: ")


def test_more_bytes_than_promised_stop_the_decoder_early(
    hash_engine: MakeEngine, vocabulary: Vocabulary, rng: np.random.Generator
) -> None:
    plan, steps = RowPlan(1 << 20, 1 << 6, 3), []
    with pytest.raises(CorruptError, match="more than the 1,000 bytes it should"):
        rows.FrameCoder(hash_engine(vocab_size=VOCAB), vocabulary).decode(
            rng.bytes(50), plan, ByteMeter(lambda ids: 7 * len(ids), 1000, steps.append)
        )
    assert len(steps) <= 5  # halves of steps


def test_bytes_of_damaged_payloads_are_bytes_or_a_corrupt_error(rng: np.random.Generator) -> None:
    data = samples.text(200)
    payload, _ = encode_bytes(data)
    wrong = refused = 0
    for number in range(150):
        place = int(rng.integers(len(payload)))
        damaged = (
            payload[:place],
            payload[:place] + bytes([payload[place] ^ int(rng.integers(1, 256))]) + payload[place + 1 :],
            rng.bytes(int(rng.integers(0, 300))),
        )[number % 3]
        try:
            found = decode_bytes(damaged, len(data))
            assert len(found) == len(data)
            wrong += found != data
        except CorruptError as error:
            assert str(error).startswith("damaged: ")
            refused += 1
    assert wrong + refused >= 140  # a change of the last byte may still lie in the last interval
    with pytest.raises(CorruptError):
        decode_bytes(b"\xff" * 3000, 3000)


def test_a_decoder_may_be_left_in_the_middle() -> None:
    sample = samples.short_tokens()["no masses"]
    payload, _ = samples.encode_tokens(sample)
    for steps in range(4):
        decoder = MixDecoder(samples.vocabulary(sample.table), payload, len(sample.tokens), sample.rows, False)
        for step in range(steps):
            assert decoder.step(None).tolist() == [sample.tokens[row * 13 + min(row, 1) + step] for row in range(3)]
        del decoder
