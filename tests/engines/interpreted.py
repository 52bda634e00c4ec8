"""Checks of the Triton kernels against plain torch, bit for bit, in Triton's interpreter; test_triton.py runs them.

They need a process of their own: whether kernels are compiled or interpreted is decided when Triton is imported.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
import torch
import triton
import triton.language as tl

from llmzip.codec import rows
from llmzip.engines import selftest
from llmzip.engines.exact import ExactEngine
from llmzip.engines.gpu import attention, choice, forward, frequencies, primitives, products, rowwise, support
from llmzip.engines.kv_cache import LayerCaches
from llmzip.engines.reference import KeysValues, Queries, TorchForward
from llmzip.engines.torch_arrays import on_device, operands_of
from llmzip.engines.torch_frequencies import TorchFrequencies
from llmzip.format.plan import RowPlan
from llmzip.inference.progress import ByteMeter
from llmzip.numerics import ops, scalars, tables

assert os.environ["TRITON_INTERPRET"] == "1" and support.interpreted()

# Numbers that are not used overflow here and there: memory that was never written, results for rows that are not there.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

SMALL = forward.Tiles(64, 64, 32, 16, 32, 32, 32, 1024, 64)
OCTAVE = torch.tensor(tables.exp2_octave(), dtype=torch.int32)
UNIT = torch.from_numpy(tables.exp2_table()).to(torch.float32) * 2.0**-20


def random(*sizes: int, salt: int = 0) -> torch.Tensor:
    return torch.randn(*sizes, generator=torch.Generator().manual_seed(salt + 1))


def integers(low: int, high: int, *sizes: int, salt: int = 0) -> torch.Tensor:
    return torch.randint(low, high + 1, sizes, generator=torch.Generator().manual_seed(salt + 1))


def extreme_rows(n: int, size: int) -> torch.Tensor:
    """Rows of zeros, of one value, with one spike, of the largest, smallest and subnormal magnitudes, with ties."""
    x = random(n, size, salt=n)
    kinds = [
        torch.zeros(size),
        torch.full((size,), -3.0),
        torch.eye(size)[size // 2] * 2.0**50,
        x[0] * 2.0**40,
        x[0] * 2.0**-60,
        torch.full((size,), 2.0**-140),
        torch.arange(size) - 63.5,
        torch.where(torch.arange(size) % 2 == 0, 127.0, -0.5),
    ]
    for row, kind in enumerate(kinds[:n]):
        x[row] = kind
    return x


# -- primitives --------------------------------------------------------------------------------------------------------


@triton.jit
def _nearest(x, out, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    tl.store(out + at, primitives.nearest(tl.load(x + at)))


@triton.jit
def _entries(octave, steps, out, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    tl.store(out + at, primitives.exp2_entry(octave, tl.load(steps + at)))


def test_nearest_rounds_ties_to_even() -> None:
    whole = integers(-(1 << 22) + 1, (1 << 22) - 1, 2000)
    x = torch.cat([whole + 0.5, whole * 2.0**-9, whole * 2.0**-20, torch.tensor([2.0**22, -(2.0**22), 0.5, -0.5])])
    x = torch.nn.functional.pad(x, (0, 8192 - len(x)))
    out = torch.empty(8192, dtype=torch.int32)
    _nearest[(1,)](x, out, BLOCK=8192)
    assert torch.equal(out, x.round().to(torch.int32))


def test_every_entry_of_the_exponential_table() -> None:
    size = 32768
    steps = torch.arange(size) + torch.tensor([0.0, 0.25, 0.999]).repeat(size)[:size]
    steps[-1] = float("inf")
    out = torch.empty(size, dtype=torch.int32)
    _entries[(1,)](OCTAVE, steps, out, BLOCK=size)
    expected = torch.from_numpy(tables.exp2_table())[steps.clamp(max=tables.EXP2_SIZE - 1).to(torch.int64)]
    assert torch.equal(out, expected)


# -- whole rows --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "size"), [(1, 16), (8, 48), (9, 576), (3, 2048)])
def test_norms_and_quantised_rows(n: int, size: int) -> None:
    x, weight = extreme_rows(n, size), random(size) + 1
    eps = ops.tables.float32(1e-5)
    expected = [ops.quantise(ops.rms_norm(x, weight, eps), 127), ops.quantise(x, 127)]
    q, scale = torch.empty(n, size, dtype=torch.int8), torch.empty(n)
    block = 1 << (size - 1).bit_length()
    for rows_at_once in (1, 4):
        grid = (-(-n // rows_at_once),)
        sizes = {"ROWS": rows_at_once, "BLOCK": block}
        rowwise.norm_quantise[grid](x, weight, q, scale, n, size, scalars.inverse(size), eps, **sizes)
        assert torch.equal(q, expected[0][0].to(torch.int8)) and torch.equal(scale[:, None], expected[0][1])
        rowwise.quantise[grid](x, q, scale, n, size, **sizes)
        assert torch.equal(q, expected[1][0].to(torch.int8)) and torch.equal(scale[:, None], expected[1][1])


def test_embedding_and_ids_that_there_are_not() -> None:
    weight, scale = integers(-127, 127, 50, 48).to(torch.int8), random(50).abs()
    ids, x = torch.tensor([0, 49, 7, 50, -1]), torch.empty(5, 48)
    rowwise.embed[(2,)](ids, weight, scale, 2.5, x, 5, 48, 50, ROWS=4, BLOCK=64)
    near = ids.clamp(0, 49)
    assert torch.equal(x, weight[near].to(torch.float32) * scale[near, None] * 2.5)


@pytest.mark.parametrize("floor_bits", [0, 8])
@pytest.mark.parametrize("vocab", [16, 130])
def test_masses(vocab: int, floor_bits: int) -> None:
    steps = torch.stack([random(vocab) * 3000, torch.zeros(vocab), random(vocab) * 2.0**40, -random(vocab).abs() - 1e6])
    table = torch.from_numpy(tables.exp2_table(floor_bits))
    expected = table[ops.exp2_index(steps.amax(-1, keepdim=True).add_(0.5) - steps, len(table))]
    rowwise.masses[(4,)](steps, steps.view(torch.int32), OCTAVE, vocab, FLOOR=floor_bits, BLOCK=64)
    assert torch.equal(steps.view(torch.int32), expected)


def test_value_peaks() -> None:
    scales, peak, out = random(2, 37, 3).abs(), random(2, 3).abs(), torch.empty(2, 3, 37)
    for begin in (0, 5):
        running = scales.transpose(1, 2).cummax(-1).values
        expected = torch.maximum(running, peak[..., None]) if begin else running
        rowwise.value_peaks[(6,)](scales, peak, out, torch.tensor([begin], dtype=torch.int32), 37, 3, BLOCK=16)
        assert torch.equal(out, expected) and torch.equal(peak, expected[..., -1])


# -- products ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "outputs", "terms"), [(1, 16, 16), (35, 48, 80), (3, 40, 2048)])
def test_products(n: int, outputs: int, terms: int) -> None:
    q, weight = integers(-127, 127, n, terms), integers(-127, 127, 2 * outputs, terms, salt=1)
    q[0], weight[0], weight[1], weight[outputs] = 127, 127, -127, 127  # sums beyond 2^24
    scale, r = random(n).abs() + 2.0**-30, random(2 * outputs).abs()
    y = (q @ weight.T).to(torch.float32) * scale[:, None] * r
    q8, w8 = q.to(torch.int8), weight.to(torch.int8)
    sizes = {"K": terms, "BM": 16, "BN": 16, "BK": 32}
    count = -(-n // 16) * -(-outputs // 16)

    x = random(n, outputs)
    added = x + y[:, :outputs]
    products.add_product[(count,)](q8, scale, w8, r, x, n, N=outputs, **sizes)
    assert torch.equal(x, added)

    gain = tables.log2e_steps()
    logits = torch.empty(n, 2 * outputs)
    products.head_product[(-(-n // 16) * -(-2 * outputs // 16),)](
        q8, scale, w8, r, gain, logits, n, N=2 * outputs, **sizes
    )
    assert torch.equal(logits, (q @ weight.T).to(torch.float32) * (scale * gain)[:, None] * r)

    gate, up = y.chunk(2, -1)
    products.gate_product[(count,)](q8, scale, w8, r, x, OCTAVE, gain, n, N=outputs, **sizes)
    assert torch.equal(x, ops.silu(gate.contiguous(), UNIT) * up)


# -- attention ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("heads", "groups", "dim", "begin", "new", "window"),
    [
        (4, 1, 32, 0, 9, 0),
        (3, 3, 64, 20, 3, 0),
        (6, 2, 32, 50, 1, 0),
        (4, 2, 32, 90, 5, 21),  # the ring has come round
        (2, 1, 32, 40, 1, 1),
    ],
)
@pytest.mark.parametrize("kind", ["random", "ties", "extremes"])
def test_attention(heads: int, groups: int, dim: int, begin: int, new: int, window: int, kind: str) -> None:
    compare_attention(heads, groups, dim, begin, new, window, kind)


def compare_attention(heads: int, groups: int, dim: int, begin: int, new: int, window: int, kind: str) -> None:
    rows_, seen = 2, begin + new
    q_max = scalars.query_max(dim)
    q = integers(-q_max, q_max, rows_, new, heads, dim)
    k, v = (integers(-127, 127, rows_, groups, seen, dim, salt=salt) for salt in (1, 2))
    q_scale = random(rows_, new, heads).abs() * (0.02 if kind == "random" else 100.0)
    k_scale, v_scale = (random(rows_, groups, seen, salt=salt).abs() + 2.0**-20 for salt in (3, 4))
    if kind == "ties":
        k[:], k_scale[:], v[:], v_scale[:] = 0, 1.0, 127, 1.0
    if kind == "extremes":
        q[:], k[:, :, ::2], k[:, :, 1::2] = q_max, 127, -127
        v[:, :, ::3] = -127
        q_scale[:] = 2.0**-12
    slots = 32 * -(-(max(window, 1) - 1 + new if window and seen > 64 else seen) // 32)
    keys = torch.empty(rows_, groups, slots, dim, dtype=torch.int8)
    values = torch.empty(rows_, groups, dim, slots, dtype=torch.int8)
    key_scale, value_scale = (torch.full((rows_, groups, slots), float("nan")) for _ in range(2))
    for p in range(max(0, seen - slots), seen):
        keys[:, :, p % slots], values[..., p % slots] = k[:, :, p], v[:, :, p]
        key_scale[:, :, p % slots], value_scale[:, :, p % slots] = k_scale[:, :, p], v_scale[:, :, p]
    peaks = v_scale.cummax(-1).values[..., begin:].contiguous()

    model = selftest.compiled_model(hidden=16, mlp=16)
    placed = on_device(model, torch.device("cpu"))
    plain = TorchForward(placed, operands_of(placed))
    share = heads // groups
    queries = Queries(
        q.to(torch.float32).view(rows_, new, groups, share, dim).permute(0, 2, 3, 1, 4),
        q_scale.view(rows_, new, groups, share, 1).permute(0, 2, 3, 1, 4),
        peaks,
    )
    stored = KeysValues(k.to(torch.float32).transpose(2, 3), v.to(torch.float32), k_scale, v_scale)
    expected = plain._attend(queries, stored, offset=begin, window=window)
    if window and new == 1:  # plain torch is only given what is seen
        part = stored.part(slice(None), slice(max(0, seen - window), seen))
        expected = plain._attend(queries, part, offset=0, window=window)
    expected = expected.permute(0, 3, 1, 2, 4).reshape(rows_, new, heads, dim)

    high = (q + 128) >> 8
    out = torch.empty(rows_, new, heads, dim)
    tile = 16
    attention.attend[(rows_ * groups, -(-new * share // tile))](
        high.to(torch.int8), (q - 256 * high).to(torch.int8), q_scale, keys, key_scale, values, value_scale, peaks, out,
        OCTAVE, torch.tensor([begin], dtype=torch.int32), new, slots, H=heads, G=groups, D=dim, WINDOW=window,
        BQ=tile, BS=32, STAGES=2,
    )  # fmt: skip
    assert torch.equal(out, expected)


def test_attention_to_more_keys_than_float32_sums_take() -> None:
    compare_attention(2, 1, 32, 2300, 1, 0, "ties")


# -- whole models ------------------------------------------------------------------------------------------------------


def both(tiles: forward.Tiles = SMALL, **shape: Any) -> tuple[ExactEngine, forward.GpuForward]:
    model = selftest.compiled_model(**shape)
    plain = ExactEngine(model, compiled=False)
    kernels, _ = support.load()
    assert kernels is not None
    return plain, forward.GpuForward(plain.model, kernels, plain.operands, tiles)


@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"heads": 3, "kv_heads": 1, "dim": 64, "unrotated": (0,)},
        {"heads": 2, "kv_heads": 2, "dim": 128, "hidden": 16, "windows": (1, 16)},
        {"local_rope_steps": tuple(range(1 << 50, 17 << 50, 1 << 50)), "rope_steps": tuple(range(1, 17)),
         "attention_scale": 3.0, "norm_eps": 1.0},
        {"floor_bits": 8},
    ],
)  # fmt: skip
def test_prefill_steps_and_masses(shape: dict[str, Any]) -> None:
    plain, own = both(**shape)
    ids = integers(0, 49, 2, 38).numpy()
    expected = plain.forward(ids)
    assert torch.equal(own.forward(ids[:1, :35], None), expected[:1, :35])
    cache = own.new_cache(2, plain._slots(16, 38))
    found = [own.forward(part, cache) for part in np.split(ids, [1, 17, 37], 1)]  # 20: more than promised
    assert torch.equal(torch.cat(found, 1), expected)
    some = expected[0, :5].contiguous()
    assert torch.equal(own.masses(some), plain.masses(some))


@pytest.mark.parametrize("size", [2.0**-60, 2.0**10])
def test_magnitudes(size: float) -> None:
    plain, own = both(forward.Tiles(keys=32))
    for zero in (False, True):
        own._model.embedding_scale.mul_(size)
        for layer in own._model.layers:
            layer.down_scale.mul_(size)
        if zero:
            own._model.embedding_q.zero_()
        ids = integers(0, 49, 2, 9).numpy()
        expected = plain.forward(ids)
        assert torch.equal(own.forward(ids, None), expected)
        assert torch.equal(own.masses(expected[0]), plain.masses(expected[0]))


def test_rows_one_after_the_other_and_a_context_that_begins_anew() -> None:
    plain, own = both(forward.Tiles(keys=32))
    ids = integers(0, 49, 3, 10).numpy()
    expected = plain.forward(ids)
    cache: LayerCaches[Any] = own.new_cache(3, [10, 10])
    parts = [cache.rows(slice(0, 2)), cache.rows(slice(2, 3))]
    found = [own.forward(some, part) for some, part in zip((ids[:2, :8], ids[2:, :8]), parts, strict=True)]
    cache.adopt(parts[0])
    assert torch.equal(torch.cat(found), expected[:, :8])
    assert torch.equal(own.forward(ids[:, 8:9], cache), expected[:, 8:9])
    cache.reset()
    assert torch.equal(own.forward(ids[:, :3], cache), expected[:, :3])


# -- frequencies -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vocab", [16, 17, 50, 257, 4096, 50257])
@pytest.mark.parametrize("bits", [20, 24])
@pytest.mark.parametrize("floor_bits", [0, 8])
def test_frequencies(vocab: int, bits: int, floor_bits: int) -> None:
    assert not frequencies._fails(vocab, torch.device("cpu"), bits, floor_bits)
    plain = TorchFrequencies(vocab, bits, floor_bits)
    own = frequencies.frequencies(vocab, torch.device("cpu"), bits, floor_bits)
    assert isinstance(own, frequencies.DeviceFrequencies)
    masses, tokens = integers(0, 1 << 20 + floor_bits, 5, vocab).to(torch.int32), integers(0, vocab - 1, 5).numpy()
    masses[:, 3] = 1 << 20 + floor_bits
    for name in ("intervals", "bounds"):
        assert np.array_equal(getattr(own, name)(masses, tokens), getattr(plain, name)(masses, tokens))
    assert len(own.group_bounds(masses[:0])[0]) == len(own.sums(masses[:0], tokens[:0])) == 0


# -- the engine --------------------------------------------------------------------------------------------------------


def test_the_engine_takes_them_and_codes_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model = selftest.compiled_model(hidden=16, mlp=16, heads=2, kv_heads=1)
    own, plain = ExactEngine(model), ExactEngine(model, compiled=False)
    assert (own.kernels_text, plain.kernels_text) == ("triton", "torch")
    tokens = integers(0, 49, 10).numpy()
    plan = RowPlan(10, 3, 4)
    payload, bits = rows.FrameCoder(plain).encode(tokens, plan)
    assert rows.FrameCoder(own).encode(tokens, plan) == (payload, bits)
    assert np.array_equal(rows.FrameCoder(own).decode(payload, plan, ByteMeter(len, 1000)), tokens)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (selftest.tiny_model(2), "the model has two planes of activations, sizes that do not fit"),
        (selftest.compiled_model(dim=48), "the model has sizes that do not fit"),
        (selftest.compiled_model(rope_steps=(1, 2)), "the model has heads rotated only in part"),
        (selftest.compiled_model(logit_cap=3.0), "the model has soft caps"),
    ],
)
def test_models_that_they_do_not_know(model: Any, reason: str) -> None:
    assert ExactEngine(model).kernels_text == f"torch, without the Triton kernels ({reason})"


def test_a_trial_finds_kernels_with_other_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, own = both(forward.Tiles(keys=32), context=4, hidden=16, mlp=16)
    plain.operands.extend(4)
    monkeypatch.setattr(choice, "_trials", {})
    assert choice.trial(own, plain.forward_pass) == ""
    for broken, reason in ((torch.zeros_like, "they failed their self-test"), (None, "they failed: 'NoneType'")):
        monkeypatch.setattr(choice, "_trials", {})
        monkeypatch.setattr(own, "masses", broken)
        assert choice.trial(own, plain.forward_pass).startswith(reason)
