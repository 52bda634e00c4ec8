"""Checks rows in lockstep with an engine that needs no weights: plans, contexts that begin again, order, damage."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from damage import damages

from llmzip.codec import levels, rows
from llmzip.errors import CorruptError, LLMZipError, ResourceError
from llmzip.format import headers
from llmzip.format.headers import LM, FrameHeader
from llmzip.format.plan import RowPlan, header_plan, profile_plan
from llmzip.inference import passes
from llmzip.inference.progress import ByteMeter
from llmzip.mixing.coder import Encoder
from llmzip.settings import CompressSettings

MakeEngine = Callable[..., Any]


def by_the_format(make_engine: MakeEngine, tokens: list[int], plan: RowPlan, **engine_fields: int) -> bytes:
    """The payload as docs/format.md section 4 has it: one token after the other, every context from its beginning."""
    engine = make_engine(**engine_fields)
    split = engine.readout().frequencies
    num_tokens, num_rows = plan.num_tokens, plan.num_rows
    lengths = [num_tokens // num_rows + (row < num_tokens % num_rows) for row in range(num_rows)]
    starts = [sum(lengths[:row]) for row in range(num_rows)]
    encoder = Encoder()
    context: list[list[int]] = [[] for _ in range(num_rows)]
    for step in range(max(lengths)):
        intervals = []
        for row in range(num_rows):
            if step >= lengths[row]:
                continue
            if len(context[row]) == engine.context:
                context[row] = context[row][-plan.overlap :]
            context[row].append(tokens[starts[row] + step - 1] if step else engine.start_token)
            hidden = engine.forward(np.array([context[row]]))
            token = np.array([tokens[starts[row] + step]])
            intervals.append(split.intervals(engine.masses(hidden[:, -1]), token)[0])
        group_left, group_frequency, left, frequency = np.array(intervals).T
        encoder.encode(group_left, group_frequency)
        encoder.encode(left, frequency)
    return encoder.finish()


def random_tokens(num_tokens: int, vocab_size: int, rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, vocab_size, num_tokens)


def one_byte_each(ids: np.ndarray) -> int:
    return len(ids)


# -- plans -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("profile", "num_tokens", "num_rows"),
    [
        (0, 1, 1), (0, 127, 1), (0, 128, 1), (0, 255, 1), (0, 256, 2), (0, 32767, 255), (0, 32768, 256),
        (0, 1 << 21, 256),
        (1, 1, 1), (1, 1023, 1), (1, 1024, 2), (1, 65535, 127), (1, 65536, 128), (1, 1 << 21, 128),
        (2, 4095, 1), (2, 8191, 1), (2, 8192, 2), (2, 262143, 63), (2, 262144, 64), (2, 1 << 21, 64),
    ],
)  # fmt: skip
def test_profiles_have_the_formats_rows(profile: int, num_tokens: int, num_rows: int) -> None:
    assert profile_plan(profile, num_tokens, 512).num_rows == num_rows


@pytest.mark.parametrize(
    ("context", "overlaps"),
    [(2, (1, 1, 1)), (7, (1, 3, 5)), (8, (1, 4, 6)), (512, (64, 256, 384)), (131072, (16384, 65536, 98304))],
)
def test_profiles_have_the_formats_overlap(context: int, overlaps: tuple[int, int, int]) -> None:
    assert tuple(profile_plan(profile, 9, context).overlap for profile in range(3)) == overlaps
    assert all(1 <= overlap < context for overlap in overlaps)


def test_headers_of_profiles_and_of_records() -> None:
    assert header_plan(FrameHeader(LM, 2000, 5, num_tokens=1024, profile=1, last=True), 64) == RowPlan(1024, 2, 32)
    assert header_plan(
        FrameHeader(LM, 2000, 5, num_tokens=1024, profile=3, rows=1000, overlap=63, last=True), 64
    ) == RowPlan(1024, 1000, 63)
    with pytest.raises(CorruptError, match="overlap 64 with a context of 64"):
        header_plan(FrameHeader(LM, 2000, 5, num_tokens=1024, profile=3, rows=1000, overlap=64, last=True), 64)


@pytest.mark.parametrize("num_tokens", [1, 2, 7, 12, 100])
def test_rows_cover_the_tokens_in_order(num_tokens: int) -> None:
    for num_rows in range(1, num_tokens + 1):
        plan = RowPlan(num_tokens, num_rows, 1)
        slices = plan.row_slices()
        assert [n for part in slices for n in range(part.start, part.stop)] == list(range(num_tokens))
        lengths = [part.stop - part.start for part in slices]
        assert lengths == sorted(lengths, reverse=True) and lengths[0] - lengths[-1] <= 1
        assert plan.long_rows == sum(length > plan.full_steps for length in lengths)


@pytest.mark.parametrize("context", [2, 3, 5, 16])
def test_segments_predict_every_input_once_and_never_too_much(context: int) -> None:
    for overlap in range(1, context):
        for length in range(1, 4 * context):
            for skipped in range(min(length, context // 2 + 1)):
                predicted = []
                for segment in passes.segments(0, length, context, overlap, skipped):
                    assert 0 < segment.end - segment.begin <= context
                    assert segment.known == (skipped if segment.begin == 0 else overlap)
                    predicted += range(segment.begin + segment.known, segment.end)
                assert predicted == list(range(skipped, length))


# -- coding ------------------------------------------------------------------------------------------------------------

PLANS = [(1, 1), (2, 1), (2, 2), (3, 2), (7, 1), (7, 7), (8, 1), (9, 1), (13, 5), (31, 1), (40, 3), (41, 40), (64, 9)]


@pytest.mark.parametrize(("num_tokens", "num_rows"), PLANS)
@pytest.mark.parametrize(("context", "overlap"), [(2, 1), (7, 1), (7, 3), (7, 6), (8, 4), (200, 30)])
def test_payload_is_that_of_the_format(
    hash_engine: MakeEngine, num_tokens: int, num_rows: int, context: int, overlap: int, rng: np.random.Generator
) -> None:
    plan = RowPlan(num_tokens, num_rows, overlap)
    fields = {"vocab_size": 16 if overlap % 2 else 100, "context": context}
    tokens = random_tokens(num_tokens, fields["vocab_size"], rng)
    payload, bits = rows.FrameCoder(hash_engine(**fields)).encode(tokens, plan)
    assert payload == by_the_format(hash_engine, tokens.tolist(), plan, **fields)
    assert bits / 8 - 1 < len(payload) < bits / 8 + 2
    decoded = rows.FrameCoder(hash_engine(**fields)).decode(payload, plan, ByteMeter(one_byte_each, num_tokens))
    assert decoded.tolist() == tokens.tolist()


@pytest.mark.parametrize("batch_tokens", [1, 3, 10, 64, 600, 1 << 20])
def test_batch_size_changes_nothing(hash_engine: MakeEngine, batch_tokens: int, rng: np.random.Generator) -> None:
    num_tokens = 800
    tokens = random_tokens(num_tokens, 50, rng)
    for num_rows, context, overlap in ((1, 300, 80), (2, 500, 10), (30, 16, 9), (400, 2, 1)):
        plan = RowPlan(num_tokens, num_rows, overlap)
        fields = {"vocab_size": 50, "context": context}
        expected = rows.FrameCoder(hash_engine(**fields)).encode(tokens, plan)
        engine = hash_engine(**fields, batch_tokens=batch_tokens)
        assert rows.FrameCoder(engine).encode(tokens, plan) == expected
        assert engine.most_tokens <= batch_tokens
        decoded = rows.FrameCoder(engine).decode(expected[0], plan, ByteMeter(one_byte_each, num_tokens))
        assert np.array_equal(decoded, tokens)


@pytest.mark.parametrize("other", [{"start_token": 4}, {"context": 8}, {"vocab_size": 17}])
def test_every_field_of_the_engine_matters(
    hash_engine: MakeEngine, other: dict[str, int], rng: np.random.Generator
) -> None:
    plan, tokens = RowPlan(60, 3, 2), random_tokens(60, 16, rng)
    payload, _ = rows.FrameCoder(hash_engine()).encode(tokens, plan)
    assert rows.FrameCoder(hash_engine(**other)).encode(tokens, plan)[0] != payload


def test_overlap_matters(hash_engine: MakeEngine, rng: np.random.Generator) -> None:
    tokens = random_tokens(60, 16, rng)
    payloads = {rows.FrameCoder(hash_engine()).encode(tokens, RowPlan(60, 3, overlap))[0] for overlap in range(1, 7)}
    assert len(payloads) == 6


def test_progress_adds_up(hash_engine: MakeEngine, rng: np.random.Generator) -> None:
    tokens, plan = random_tokens(500, 16, rng), RowPlan(500, 11, 3)
    seen: list[int] = []
    payload, _ = rows.FrameCoder(hash_engine(batch_tokens=40)).encode(
        tokens, plan, lambda ids: seen.extend(ids.tolist())
    )
    assert sorted(seen) == sorted(tokens.tolist())
    sizes = np.arange(16) + 1
    done: list[int] = []
    rows.FrameCoder(hash_engine()).decode(
        payload, plan, ByteMeter(lambda ids: int(sizes[ids].sum()), 10**6, done.append)
    )
    assert sum(done) == sizes[tokens].sum()
    assert len(done) == 46


# -- damage ------------------------------------------------------------------------------------------------------------


def test_more_bytes_than_promised_stop_the_decoder_early(hash_engine: MakeEngine, rng: np.random.Generator) -> None:
    plan = RowPlan(1 << 20, 1, 3)
    with pytest.raises(CorruptError, match="more than the 100 bytes it should"):
        rows.FrameCoder(hash_engine()).decode(rng.bytes(50), plan, ByteMeter(lambda ids: 7 * len(ids), 100))


def test_damaged_payloads_give_tokens_or_a_corrupt_error(hash_engine: MakeEngine, rng: np.random.Generator) -> None:
    plan, tokens = RowPlan(80, 8, 3), random_tokens(80, 17, rng)
    payload, _ = rows.FrameCoder(hash_engine(vocab_size=17)).encode(tokens, plan)
    messages = set()
    for damaged in damages(payload, rng):
        try:
            ids = rows.FrameCoder(hash_engine(vocab_size=17)).decode(damaged, plan, ByteMeter(one_byte_each, 80))
            assert ids.shape == (80,) and ids.min() >= 0 and ids.max() < 17
        except CorruptError as error:
            messages.add(str(error).split("(")[0].strip())
    # 17 tokens in groups of 8: the last group has 7 places that no token fills.
    assert "damaged: the compressed data names a token that does not exist" in messages


def test_rows_that_do_not_fit_the_memory_are_refused_before_they_take_it(hash_engine: MakeEngine) -> None:
    class Huge(hash_engine):  # type: ignore[misc, valid-type]
        def step_bytes(self, rows: int, chunk: int, positions: int) -> int:
            assert chunk <= positions or positions == 2
            return rows << 40

        def new_cache(self, rows: int, chunk: int, positions: int) -> object:
            raise AssertionError("the cache was allocated")

    with pytest.raises(ResourceError, match=r"decoding 50 rows at once needs 54975\.6 GB of memory on cpu") as caught:
        rows.FrameCoder(Huge()).decode(b"", RowPlan(100, 50, 1), ByteMeter(one_byte_each, 100))
    assert isinstance(caught.value, LLMZipError)


@pytest.mark.parametrize("step_bytes", [1, 1 << 20, 1 << 30])
@pytest.mark.parametrize("rows_asked", [None, 1, 3])
def test_no_plan_has_rows_that_a_reader_refuses(step_bytes: int, rows_asked: int | None) -> None:
    class Engine:
        context, stepwise = 1024, False

        def step_bytes(self, rows: int, chunk: int, positions: int) -> int:
            return rows * step_bytes

    for level in range(1, 10):
        for num_tokens in (1, 65_536, 65_537, 500_000, 1 << 21):
            plan, profile = levels.level_plan(level, num_tokens, Engine(), CompressSettings(rows=rows_asked))
            record = {"rows": plan.num_rows, "overlap": plan.overlap} if profile == 3 else {}
            header = FrameHeader(LM, 1 << 21, 9, num_tokens=num_tokens, profile=profile, **record)
            assert plan.steps <= headers.MAX_STEPS and headers.is_readable(header, alone=False)
