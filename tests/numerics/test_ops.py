"""Checks the exact operations against integer arithmetic bit for bit, and against float64 for closeness."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from llmzip.numerics import ops, tables

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def kernels() -> ops.Kernels:
    return ops.Kernels(CPU)


def float_bits(bits: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(bits.astype(np.int32)).view(torch.float32)


# -- square roots ------------------------------------------------------------------------------------------------------


def rounded_root(value: float) -> float:
    """The float32 nearest to the square root, from integers alone."""
    mantissa, exponent = math.frexp(value)
    m, e = int(mantissa * 2**24), exponent - 24
    if e % 2:
        m, e = 2 * m, e - 1
    square = m << 40
    n = math.isqrt(square)  # 32 bits or more, so one more bit that says "and a little" decides every rounding
    return tables.float32(Fraction(2 * n + (n * n != square)) * Fraction(2) ** (e // 2 - 21))


def edge_bits() -> np.ndarray:
    """Every exponent with mantissas at both ends, and just beside exact squares."""
    exponents = np.arange(1, 255)[:, None] << 23
    ends = exponents + np.array([0, 1, 2, 0x3FFFFF, 0x400000, 0x7FFFFE, 0x7FFFFF])
    squares = (np.arange(1, 4096, dtype=np.float32) ** 2).view(np.int32)[:, None] + np.array([-1, 0, 1])
    return np.concatenate([ends.ravel(), squares.ravel()])


def test_square_root_is_correctly_rounded_at_the_edges() -> None:
    v = float_bits(edge_bits())
    assert ops.square_root(v).tolist() == [rounded_root(x) for x in v.tolist()]


def test_square_root_of_random_bits_is_correctly_rounded(rng: np.random.Generator) -> None:
    v = float_bits(rng.integers(0x00800000, 0x7F800000, 20_000))
    assert ops.square_root(v).tolist() == [rounded_root(x) for x in v.tolist()]


def test_square_root_of_squares_is_exact() -> None:
    n = torch.arange(1, 4097, dtype=torch.float32)
    assert torch.equal(ops.square_root(n * n), n)


# -- quantisation ------------------------------------------------------------------------------------------------------

Q_MAX = [ops.ACT_MAX, ops.ACT_MAX_2, ops.NORM_MAX, ops.query_max(2), ops.query_max(64), ops.query_max(512)]


@pytest.mark.parametrize("q_max", Q_MAX)
def test_quantised_rows_stay_in_bounds_at_every_magnitude(q_max: int, rng: np.random.Generator) -> None:
    rows = rng.standard_normal((4000, 8)).astype(np.float32)
    rows *= np.float32(2.0) ** rng.integers(-149, 120, (4000, 1)).astype(np.float32)
    rows[0] = 0
    rows[1] = np.float32(3.4028235e38)
    rows[2, ::2] = -np.float32(3.4028235e38)
    rows[3] = np.float32(1e-45)
    x = torch.from_numpy(rows)
    x_q, scale = ops.quantise(x, q_max)
    assert torch.equal(x_q, x_q.round())
    peak = x.abs().amax(-1)
    normal = peak >= ops.TINY
    assert torch.equal(x_q.abs().amax(-1)[normal], torch.full((int(normal.sum()),), float(q_max)))
    assert x_q.abs().max() <= q_max
    assert torch.isfinite(scale).all() and (scale > 0).all()
    error = (x_q.double() * scale.double() - x.double()).abs().amax(-1)
    # Half a step, and the rounding of inverse, product and scale: a few units of 2^-24 of the peak.
    assert (error <= scale.double()[:, 0] / 2 + peak.double() * 2**-21).all()


def test_quantise_leaves_its_input_alone_and_sees_only_its_row(rng: np.random.Generator) -> None:
    x = torch.from_numpy(rng.standard_normal((7, 33)).astype(np.float32) * 5)
    before = x.clone()
    together = ops.quantise(x, 127)
    assert torch.equal(x, before)
    for row in range(7):
        alone = ops.quantise(x[row : row + 1], 127)
        assert torch.equal(alone[0][0], together[0][row]) and torch.equal(alone[1][0], together[1][row])


def test_quantise_heads_is_quantise_with_each_heads_bound(rng: np.random.Generator) -> None:
    bounds = [2047, 2047, 127, 127, 127]
    x = torch.from_numpy(rng.standard_normal((3, 4, len(bounds), 16)).astype(np.float32))
    x[0, 0, 1] = 0
    q_max = torch.tensor(bounds, dtype=torch.float32)[:, None]
    q_unit = torch.tensor([ops.inverse(q) for q in bounds], dtype=torch.float32)[:, None]
    x_q, scale = ops.quantise_heads(x, q_max, q_unit)
    for head, bound in enumerate(bounds):
        expected_q, expected_scale = ops.quantise(x[:, :, head], bound)
        assert torch.equal(x_q[:, :, head], expected_q) and torch.equal(scale[:, :, head], expected_scale)


@pytest.mark.parametrize("n", [1, 3, 127, 2047, 32512])
def test_inverse_is_the_nearest_float32(n: int) -> None:
    assert ops.inverse(n) == float(np.float32(1.0) / np.float32(n))


def test_query_max_is_the_largest_that_keeps_scores_exact() -> None:
    for head_dim in range(2, 514, 2):
        q_max = ops.query_max(head_dim)
        assert (q_max + 1).bit_count() == 1
        assert q_max * ops.KV_MAX * head_dim < 1 << 24
        assert (2 * q_max + 1) * ops.KV_MAX * head_dim >= 1 << 24
        assert q_max < 1 << 22  # what quantise takes


# -- elementwise operations --------------------------------------------------------------------------------------------


def test_rms_norm_is_close_to_float64(rng: np.random.Generator) -> None:
    x = torch.from_numpy(rng.standard_normal((50, 256)).astype(np.float32))
    x *= torch.logspace(-4, 4, 50)[:, None]
    weight = torch.from_numpy(rng.standard_normal(256).astype(np.float32))
    eps = float(np.float32(1e-6))
    double = x.double()
    true = double / (double.pow(2).mean(-1, keepdim=True) + eps).sqrt() * weight.double()
    torch.testing.assert_close(ops.rms_norm(x, weight, eps).double(), true, rtol=2e-4, atol=0)


def test_rms_norm_of_zeros_and_extremes_is_finite() -> None:
    x = torch.zeros(3, 64)
    x[1] = 1e18
    x[2, 5] = -1e-20
    y = ops.rms_norm(x, torch.ones(64), float(np.float32(1e-6)))
    assert torch.equal(y[0], torch.zeros(64))
    torch.testing.assert_close(y[1], torch.ones(64), rtol=1e-5, atol=0)
    assert torch.isfinite(y).all()


def test_silu_gate_is_close_to_float64(rng: np.random.Generator) -> None:
    table = torch.from_numpy(tables.exp2_table()).to(torch.float32) * 2.0**-20
    gate = torch.cat([torch.linspace(-40, 40, 4001), torch.tensor([0.0, -0.0, 1e30, -1e30, 1e-30])])[None]
    up = torch.from_numpy(rng.standard_normal(gate.shape).astype(np.float32) * 3)
    gate_before, up_before = gate.clone(), up.clone()
    y = (ops.silu(gate, table) * up).double()
    assert torch.equal(gate, gate_before) and torch.equal(up, up_before)
    sigmoid = torch.sigmoid(gate.double())
    true = gate.double() * sigmoid * up.double()
    # Half a step of 2^-10 bits in the exponential, and half a unit of the table's 2^-20.
    bound = (sigmoid * math.log(2) / 2048 * 1.01 + 2**-20) * (gate * up).double().abs()
    assert ((y - true).abs() <= bound).all()


def unit_table() -> torch.Tensor:
    return torch.from_numpy(tables.exp2_table()).to(torch.float32) * 2.0**-20


def test_gelu_tanh_is_close_to_float64() -> None:
    x = torch.cat([torch.linspace(-12, 12, 4801), torch.tensor([0.0, -0.0, 5e3, -5e3, 1e15, -1e15, 1e-30])])[None]
    before = x.clone()
    y = ops.gelu_tanh(x, unit_table()).double()
    assert torch.equal(x, before) and torch.isfinite(y).all()
    true = torch.nn.functional.gelu(x.double(), approximate="tanh")
    assert ((y - true).abs() <= 4e-4 * x.double().abs()).all()


def test_gelu_is_close_to_float64() -> None:
    normal = torch.from_numpy(np.append(tables.normal_table(), 0)).to(torch.float32) * 2.0**-24
    x = torch.cat([torch.linspace(-8, 8, 6401), torch.tensor([0.0, -0.0, 1e15, -1e15, 1e-30])])[None]
    y = ops.gelu(x, normal).double()
    true = torch.nn.functional.gelu(x.double())
    assert ((y - true).abs() <= 6e-5 * x.double().abs()).all()


@pytest.mark.parametrize("cap", [2.0, 30.0, 50.0])
def test_soft_cap_is_close_to_float64(cap: float) -> None:
    steps = 1024 / math.log(2)
    x = torch.cat([torch.linspace(-6 * cap, 6 * cap, 4001) * steps, torch.tensor([0.0, -0.0, 1e15, -1e15])])
    y = ops.soft_cap(x.clone()[None], cap, unit_table())[0].double() / steps
    true = cap * torch.tanh(x.double() / steps / cap)
    assert ((y - true).abs() <= cap * 4e-4).all()
    assert torch.equal(y.sign(), true.sign() * (y != 0))
    assert (y.abs() <= cap * (1 + 1e-6)).all()


def test_centred_rows_have_no_mean(rng: np.random.Generator) -> None:
    x = torch.from_numpy(rng.standard_normal((20, 300)).astype(np.float32)) + 3
    x[3] *= 1e6
    x[4, 7] = 500.0  # an outlier makes the steps of the mean coarse
    y = ops.centred(x).double()
    true = x.double() - x.double().mean(1, keepdim=True)
    assert ((y - true).abs() <= 1e-4 * x.double().abs().amax(1, keepdim=True)).all()
    assert torch.equal(ops.centred(x[4:5]), ops.centred(x)[4:5])


def test_rotate_leaves_the_rest_of_a_head_alone(rng: np.random.Generator) -> None:
    x = torch.from_numpy(rng.standard_normal((2, 3, 4, 16)).astype(np.float32))
    cos, sin = (
        torch.from_numpy(part).to(torch.float32)[:, None] * 2.0**-14
        for part in tables.rope_tables([1 << 60, 5 << 40], 3)
    )
    out = torch.empty_like(x)
    ops.rotate(x, cos, sin, out)
    assert torch.equal(out[..., 4:], x[..., 4:])
    part = torch.empty_like(x[..., :4])
    ops.rotate(x[..., :4].contiguous(), cos, sin, part)
    assert torch.equal(out[..., :4], part) and not torch.equal(part[:, 1:], x[:, 1:, :, :4])


def test_rotate_turns_pairs_of_halves(rng: np.random.Generator) -> None:
    positions, dim = 40, 16
    cos, sin = (
        torch.from_numpy(part).to(torch.float32)[:, None] * 2.0**-14
        for part in tables.rope_tables(tables.rope_steps(1e4, dim), positions)
    )
    x = torch.from_numpy(rng.standard_normal((3, positions, 5, dim)).astype(np.float32))
    y = torch.empty_like(x)
    ops.rotate(x, cos, sin, y)
    angle = torch.arange(positions).double()[:, None] * 1e4 ** (-torch.arange(0, dim, 2).double() / dim)
    pairs = torch.complex(x[..., : dim // 2].double(), x[..., dim // 2 :].double())
    turned = pairs * torch.polar(torch.ones_like(angle), angle)[:, None]
    torch.testing.assert_close(y.double(), torch.cat([turned.real, turned.imag], -1), rtol=0, atol=5e-4)


def test_exp2_index_cuts_and_clamps() -> None:
    last = tables.EXP2_SIZE - 1
    steps = torch.tensor([0.0, 0.5, 0.99, 1.0, 1023.9, last - 0.5, last, last + 1, 1e30, math.inf])
    assert ops.exp2_index(steps).tolist() == [0, 0, 0, 1, 1023, last - 1, last, last, last, last]


@pytest.mark.parametrize("shape", [(1, 1), (7,), (2, 3, 4), (2, 1, 3, 5, 6)])
def test_exp2_lookup_reads_the_table(shape: tuple[int, ...], rng: np.random.Generator) -> None:
    table = torch.from_numpy(tables.exp2_table())
    index = torch.from_numpy(rng.integers(0, tables.EXP2_SIZE, shape))
    found = ops.exp2_lookup(table, index)
    assert found.dtype == torch.int32
    assert torch.equal(found, table[index])


# -- products ----------------------------------------------------------------------------------------------------------

SHAPES = [(1, 1, 1), (1, 7, 5), (2, 3, 1), (3, 1025, 17), (5, 131, 1), (17, 2048, 33), (31, 1023, 9), (64, 520, 64)]


def int8_operands(shape: tuple[int, int, int], kind: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    rows, k, columns = shape
    if kind == "random":
        return rng.integers(-128, 128, (rows, k)), rng.integers(-127, 128, (columns, k))
    if kind == "highest":
        return np.full((rows, k), 127), np.full((columns, k), 127)
    if kind == "lowest":
        return np.full((rows, k), -128), np.full((columns, k), 127)
    # Pairs of products of one sign beside each other, where a 16-bit sum saturates, and then of the other sign.
    a, w = np.full((rows, k), -128), np.full((columns, k), 127)
    w[:, (np.arange(k) // 2) % 2 == 1] = -127
    return a, w


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", ["random", "highest", "lowest", "pairs"])
def test_both_int8_products_are_the_integer_product(
    kernels: ops.Kernels, shape: tuple[int, int, int], kind: str, rng: np.random.Generator
) -> None:
    a, w = int8_operands(shape, kind, rng)
    expected = torch.from_numpy((a @ w.T).astype(np.int32))
    a8, w8 = torch.from_numpy(a.astype(np.int8)), torch.from_numpy(w.astype(np.int8))
    assert torch.equal(kernels._mm_float(a8, w8), expected)
    assert torch.equal(kernels._int8_mm(a8, w8), expected)


def test_int8_products_at_the_documented_limit_of_their_length(kernels: ops.Kernels) -> None:
    k = 132_104
    a, w = torch.full((2, k), -128, dtype=torch.int8), torch.full((3, k), 127, dtype=torch.int8)
    expected = torch.full((2, 3), -128 * 127 * k, dtype=torch.int32)
    assert -(2**31) < -128 * 127 * k < -(2**31) + 128 * 127  # one more term would not fit
    assert torch.equal(kernels._mm_float(a, w), expected)
    assert torch.equal(kernels._int8_mm(a, w), expected)


def test_linear_with_one_plane_is_scaled_integers(kernels: ops.Kernels, rng: np.random.Generator) -> None:
    x = torch.from_numpy(rng.standard_normal((9, 77)).astype(np.float32))
    weight_q = torch.from_numpy(rng.integers(-127, 128, (21, 77)).astype(np.int8))
    weight_scale = torch.from_numpy(rng.uniform(0.001, 0.1, 21).astype(np.float32))
    x_q, scale = ops.quantise(x, ops.ACT_MAX)
    sums = (x_q.long() @ weight_q.long().T).to(torch.float32)
    assert torch.equal(kernels.linear(x, weight_q, weight_scale, 1), sums * scale * weight_scale)
    gain = tables.log2e_steps()
    assert torch.equal(kernels.linear(x, weight_q, weight_scale, 1, gain), sums * (scale * gain) * weight_scale)


def test_two_planes_carry_every_16_bit_value(kernels: ops.Kernels) -> None:
    limit = ops.ACT_MAX_2
    values = torch.arange(-limit, limit + 1, dtype=torch.float32)
    columns = 512
    x = torch.zeros(-(-len(values) // columns), columns + 1)
    x[:, 0] = limit  # the row's scale is then 1, give or take a rounding
    padded = torch.zeros(x.shape[0] * columns)
    padded[: len(values)] = values
    x[:, 1:] = padded.view(-1, columns)
    x_q, scale = ops.quantise(x, limit)
    assert torch.equal(x_q, x)
    identity = torch.eye(columns + 1, dtype=torch.int8)
    y = kernels.linear(x, identity, torch.ones(columns + 1), 2)
    assert torch.equal(y, x_q * scale)


def test_two_planes_are_close_to_the_float_product(kernels: ops.Kernels, rng: np.random.Generator) -> None:
    x = torch.from_numpy(rng.standard_normal((8, 300)).astype(np.float32))
    weight_q = torch.from_numpy(rng.integers(-127, 128, (40, 300)).astype(np.int8))
    true = x.double() @ weight_q.double().T
    one, two = (kernels.linear(x, weight_q, torch.ones(40), planes).double() - true for planes in (1, 2))
    assert one.abs().max() < 60
    assert two.abs().max() < one.abs().max() / 50


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_float_products_are_exact_below_2_to_the_24(kernels: ops.Kernels, rows: int, rng: np.random.Generator) -> None:
    for dim in (2, 32, 64, 128, 512):
        q_max = ops.query_max(dim)
        q = rng.integers(-q_max, q_max + 1, (3, rows, dim))
        k = rng.integers(-ops.KV_MAX, ops.KV_MAX + 1, (3, dim, 19))
        q[0], k[0] = q_max, ops.KV_MAX
        q[1, :, ::2], k[1] = -q_max, -ops.KV_MAX
        product = kernels.product(torch.from_numpy(q).float(), torch.from_numpy(k).float())
        assert torch.equal(product.long(), torch.from_numpy(q @ k))


def test_attention_weights_over_values_stay_exact() -> None:
    # The weights of VALUE_KEYS keys add up to WEIGHT_SUM, and each is rounded by 1/2 at most.
    assert ops.KV_MAX * (ops.WEIGHT_SUM + 1 + ops.VALUE_KEYS / 2) < 1 << 24


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (2, 5)])
def test_matrices_of_one_or_two_rows(shape: tuple[int, int], rng: np.random.Generator) -> None:
    kernels = ops.Kernels(CPU, [shape])
    weight = torch.from_numpy(rng.integers(-127, 128, shape)).to(torch.int8)
    x = torch.from_numpy(rng.integers(-127, 128, (4, shape[1]))).to(torch.float32)
    got = kernels.linear(x, weight, torch.ones(shape[0]), 1)
    assert torch.allclose(got, x @ weight.T.to(torch.float32), rtol=0, atol=0.5 * 127 * shape[1])


def test_kernels_say_what_they_chose(kernels: ops.Kernels) -> None:
    chosen = "native" if kernels.int8_native else "float"
    assert kernels.describe() == f"int8 products: {chosen}, float products: {kernels.float_dtype}"
