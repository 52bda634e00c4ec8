"""Checks that masses are the same bits however the engine is called: at once, in pieces, step by step, in any batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from llmzip.codec import rows
from llmzip.engines import reference
from llmzip.engines.arrays import Array
from llmzip.engines.exact import ExactEngine
from llmzip.errors import EngineError
from llmzip.format.plan import RowPlan
from llmzip.inference.progress import ByteMeter
from llmzip.numerics import ops, scalars

MakeEngine = Callable[..., ExactEngine]


def masses(engine: ExactEngine, hidden: Array) -> np.ndarray:
    """(B, T, V) from (B, T, hidden)."""
    return np.asarray(engine.masses(hidden.reshape(-1, hidden.shape[-1]))).reshape(*hidden.shape[:2], -1)


def in_pieces(engine: ExactEngine, ids: np.ndarray, sizes: list[int]) -> np.ndarray:
    """Masses of all positions, fed to a cache in pieces of these sizes, the last one again and again."""
    cache = engine.new_cache(ids.shape[0], max(sizes), ids.shape[1])
    parts, begin = [], 0
    while begin < ids.shape[1]:
        size = sizes[min(len(parts), len(sizes) - 1)]
        parts.append(masses(engine, engine.forward(ids[:, begin : begin + size], cache)))
        begin += size
        assert cache.length == min(begin, ids.shape[1])
    return np.concatenate(parts, 1)


def test_masses_are_in_bounds_and_not_flat(engine: ExactEngine, expected: np.ndarray) -> None:
    assert expected.dtype == np.int32 and expected.shape == (64, engine.context, engine.vocab_size)
    assert (expected.max(-1) == 1 << 20).all() and expected.min() >= 0
    share = (1 << 20) / expected.sum(-1)  # of the likeliest token
    assert share.max() > 0.5 and share.min() < 0.2
    assert len({row.tobytes() for row in expected[0]}) > 50  # positions differ


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_batches_at_once(engine: ExactEngine, ids: np.ndarray, expected: np.ndarray, batch: int) -> None:
    for begin in range(0, 64 if batch > 1 else 3, batch):
        part = ids[begin : begin + batch]
        assert np.array_equal(masses(engine, engine.forward(part)), expected[begin : begin + batch])


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_steps(engine: ExactEngine, ids: np.ndarray, expected: np.ndarray, batch: int) -> None:
    assert np.array_equal(in_pieces(engine, ids[:batch], [1]), expected[:batch])


@pytest.mark.parametrize(
    "sizes", [[96], [95, 1], [1, 95], [5], [16], [17, 3, 1], [1, 1, 40, 2], [30, 1], [48]], ids=str
)
def test_pieces(engine: ExactEngine, ids: np.ndarray, expected: np.ndarray, sizes: list[int]) -> None:
    for batch in (1, 5):
        assert np.array_equal(in_pieces(engine, ids[:batch], sizes), expected[:batch])


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads(engine: ExactEngine, ids: np.ndarray, expected: np.ndarray, threads: int) -> None:
    torch.set_num_threads(threads)
    assert np.array_equal(masses(engine, engine.forward(ids[:7])), expected[:7])
    assert np.array_equal(in_pieces(engine, ids[:2], [1]), expected[:2])


def test_a_prefix_does_not_see_what_follows(engine: ExactEngine, ids: np.ndarray, expected: np.ndarray) -> None:
    for length in (1, 2, 9, 13, 50):
        assert np.array_equal(masses(engine, engine.forward(ids[:2, :length])), expected[:2, :length])


def test_a_cache_that_was_used_and_reset_is_a_new_one(
    engine: ExactEngine, ids: np.ndarray, expected: np.ndarray
) -> None:
    cache = engine.new_cache(3, 20, 96)
    for begin in range(0, 80, 20):
        engine.forward(ids[10:13, begin : begin + 20] // 2, cache)
    cache.reset()
    assert cache.length == 0
    found = [masses(engine, engine.forward(ids[:3, begin : begin + 8], cache)) for begin in range(0, 96, 8)]
    assert np.array_equal(np.concatenate(found, 1), expected[:3])


def test_rows_of_a_cache_are_fed_apart_and_stepped_together(
    engine: ExactEngine, ids: np.ndarray, expected: np.ndarray
) -> None:
    cache = engine.new_cache(7, 10, 96)
    for part_rows in (slice(0, 3), slice(3, 4), slice(4, 7)):
        part = cache.rows(part_rows)
        for begin in range(0, 40, 10):
            engine.forward(ids[:7][part_rows, begin : begin + 10], part)
        assert part.length == 40 and cache.length == 0
    cache.adopt(part)
    assert cache.length == 40
    found = [masses(engine, engine.forward(ids[:7, n : n + 1], cache)) for n in range(40, 96)]
    assert np.array_equal(np.concatenate(found, 1), expected[:7, 40:])


@pytest.mark.parametrize("scores", [1, 64, 700, 5000])
def test_attention_in_small_pieces(
    engine: ExactEngine, ids: np.ndarray, expected: np.ndarray, scores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference, "_SCORES_PER_PIECE", scores)
    assert np.array_equal(masses(engine, engine.forward(ids[:3])), expected[:3])
    assert np.array_equal(in_pieces(engine, ids[:3], [33]), expected[:3])


@pytest.fixture
def float_kernels() -> Iterator[ops.Kernels]:
    """The products that a device without native int8 products and without exact float32 products would use."""
    kernels = ops.Kernels(torch.device("cpu"))
    kernels._int8_mm = kernels._mm_float
    kernels.float_dtype = torch.float64
    yield kernels


def test_every_form_of_the_products(
    engine: ExactEngine,
    ids: np.ndarray,
    expected: np.ndarray,
    float_kernels: ops.Kernels,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = ExactEngine(engine.model, compiled=False)
    monkeypatch.setattr(plain.forward_pass, "kernels", float_kernels)
    assert np.array_equal(masses(plain, plain.forward(ids[:4])), expected[:4])
    assert np.array_equal(in_pieces(plain, ids[:2], [7]), expected[:2])


def test_more_rows_of_masses_than_are_computed_at_once(
    engine: ExactEngine, ids: np.ndarray, expected: np.ndarray
) -> None:
    hidden = engine.forward(ids[:9])
    assert hidden[..., 0].size > 3 * reference._HEAD_ROWS
    for rows_at_once in (1, 255, 256, 257, 864):
        flat = hidden.reshape(-1, hidden.shape[-1])[:rows_at_once]
        assert np.array_equal(engine.masses(flat), expected[:9].reshape(-1, engine.vocab_size)[:rows_at_once])


def test_inputs_are_left_alone(engine: ExactEngine, ids: np.ndarray) -> None:
    given = ids[:2].copy()
    hidden = engine.forward(given)
    before = hidden.copy()
    first = engine.masses(hidden.reshape(-1, hidden.shape[-1])).copy()
    assert np.array_equal(hidden, before) and np.array_equal(given, ids[:2])
    assert np.array_equal(engine.masses(hidden.reshape(-1, hidden.shape[-1])), first)


def test_memory_of_a_step_covers_its_cache(engine: ExactEngine) -> None:
    for batch, chunk, positions in ((1, 1, 96), (3, 40, 60), (3, 1, 7), (2, 20, 10_000)):
        cache = engine.new_cache(batch, chunk, positions)
        used = sum(
            store.nbytes for layer in cache.layers for store in vars(layer).values() if isinstance(store, np.ndarray)
        )
        needed = engine.step_bytes(batch, chunk, positions)
        assert used < needed < used + batch * (1 << 20)


def test_a_cache_of_few_positions_is_as_good(engine: ExactEngine, ids: np.ndarray, expected: np.ndarray) -> None:
    for positions, sizes in ((1, [1]), (5, [1] * 5), (20, [8, 8, 4]), (33, [11, 11, 11])):
        cache = engine.new_cache(2, max(sizes), positions)
        parts = [
            masses(engine, engine.forward(part, cache))
            for part in np.split(ids[:2, :positions], np.cumsum(sizes)[:-1], 1)
        ]
        assert np.array_equal(np.concatenate(parts, 1), expected[:2, :positions])


def test_an_engine_may_be_shared_between_threads(engine: ExactEngine, ids: np.ndarray, expected: np.ndarray) -> None:
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda row: in_pieces(engine, ids[row : row + 1], [24]), range(8)))
    assert np.array_equal(np.concatenate(found), expected[:8])


def test_more_positions_than_the_context_are_refused(engine: ExactEngine, ids: np.ndarray) -> None:
    cache = engine.new_cache(1, 1, 200)
    for n in range(96):
        engine.forward(ids[:1, n : n + 1], cache)
    with pytest.raises(EngineError, match="97 positions exceed the model's context of 96"):
        engine.forward(ids[:1, :1], cache)
    with pytest.raises(EngineError, match="97 positions"):
        engine.forward(np.zeros((1, 97), dtype=np.int64))


@pytest.mark.parametrize("window", [None, 2200])
def test_more_keys_than_one_exact_product_takes(make_engine: MakeEngine, window: int | None) -> None:
    length = scalars.VALUE_KEYS + 150
    engine = make_engine(
        "window" if window else "grouped",
        max_position_embeddings=length,
        sliding_window=window,
        num_hidden_layers=1,
        hidden_size=16,
        intermediate_size=16,
        head_dim=8,
    )
    ids = np.random.default_rng(1).integers(100, size=(1, length))
    whole = masses(engine, engine.forward(ids)[:, -150:])
    pieces = in_pieces(engine, ids[:, :-40], [700])
    assert np.array_equal(pieces[:, -110:], whole[:, :110])
    cache = engine.new_cache(1, 700, length)
    for begin in (0, 700, 1400):
        engine.forward(ids[:, begin : min(begin + 700, length - 150)], cache)
    steps = [masses(engine, engine.forward(ids[:, n : n + 1], cache)) for n in range(length - 150, length)]
    assert np.array_equal(np.concatenate(steps, 1), whole)


# -- the same through rows ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("num_tokens", "num_rows", "overlap"), [(150, 1, 30), (150, 3, 39), (201, 64, 1), (50, 50, 7)])
def test_frames_are_the_same_for_every_batch_size_and_decode(
    shape: str, make_engine: MakeEngine, num_tokens: int, num_rows: int, overlap: int
) -> None:
    fields = {"max_position_embeddings": 40, "num_hidden_layers": 2 if shape == "norms, mixed windows" else 1}
    plan = RowPlan(num_tokens, num_rows, overlap)
    engines = [make_engine(shape, batch_tokens=size, **fields) for size in (7, 64, 1000)]
    tokens = np.random.default_rng(num_rows).integers(0, engines[0].vocab_size, num_tokens)
    frames = [rows.FrameCoder(engine).encode(tokens, plan) for engine in engines]
    assert frames[0] == frames[1] == frames[2]
    for engine in engines[:2]:
        assert np.array_equal(rows.FrameCoder(engine).decode(frames[0][0], plan, ByteMeter(len, num_tokens)), tokens)
