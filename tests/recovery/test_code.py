"""The code of recovery data: its field, its transform, and that any blocks determine the others."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmzip.recovery import code, field

ELEMENTS = st.integers(0, field.ORDER)


def slow_product(first: int, second: int) -> int:
    out = 0
    for bit in range(16):
        if second >> bit & 1:
            out ^= first << bit
    for bit in reversed(range(16, 32)):
        if out >> bit & 1:
            out ^= 0x1100B << (bit - 16)
    return out


@given(ELEMENTS, ELEMENTS)
def test_products(first: int, second: int) -> None:
    assert field.product(first, second) == slow_product(first, second)
    words = np.array([first], dtype=np.uint16)
    assert field.multiply(words, np.array([second], dtype=np.uint16)) == slow_product(first, second)
    if first:
        assert field.product(first, field.inverse(first)) == 1


@pytest.mark.parametrize("size", [1, 2, 8, 64])
@pytest.mark.parametrize("coset", [0, 1, 5, 100])
def test_the_transform_is_evaluation_and_has_an_inverse(size: int, coset: int) -> None:
    rng = np.random.default_rng(size)
    words = rng.integers(0, 1 << 16, (size, 3)).astype(np.uint16)
    once = words.copy()
    field.evaluate(once, coset * size)
    again = once.copy()
    field.interpolate(again, coset * size)
    assert np.array_equal(again, words)
    # A polynomial of degree below n has the same values however many coefficients are 0.
    longer = np.zeros((4 * size, 3), dtype=np.uint16)
    longer[:size] = words
    begin = coset * size // (4 * size) * (4 * size)
    field.evaluate(longer, begin)
    place = coset * size - begin
    assert np.array_equal(longer[place : place + size], once)


def test_the_derivative_obeys_the_rule_of_products() -> None:
    """(f g)' = f' g + f g', at 64 points, for polynomials whose product has a degree below 64."""
    rng = np.random.default_rng(2)

    def values(coefficients: np.ndarray) -> np.ndarray:
        words = coefficients.copy()
        field.evaluate(words, 0)
        return words

    first, second = np.zeros((2, 64, 1), dtype=np.uint16)
    first[:30], second[:30] = rng.integers(0, 1 << 16, (2, 30, 1))
    product = field.multiply(values(first), values(second))
    field.interpolate(product, 0)
    left = values(field.differentiate(product))
    right = field.multiply(values(field.differentiate(first)), values(second))
    right ^= field.multiply(values(first), values(field.differentiate(second)))
    assert np.array_equal(left, right)
    line = np.zeros((4, 1), dtype=np.uint16)
    line[1] = 7
    assert field.differentiate(line).ravel().tolist() == [7, 0, 0, 0]  # X_1 is x


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_any_blocks_determine_the_others(data: st.DataObject) -> None:
    num_parity, num_blocks = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 90))
    words = data.draw(st.integers(1, 5))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    blocks = rng.integers(0, 1 << 16, (num_blocks, words)).astype(np.uint16)
    maker = code.ParityMaker(num_parity, words)
    for begin in range(0, num_blocks, maker.points):
        maker.add(blocks[begin : begin + maker.points])
    parity = maker.finish()
    count = data.draw(st.integers(0, min(num_parity, num_blocks)))
    lost = sorted(rng.choice(num_blocks, count, replace=False).tolist())
    lost_parity = rng.choice(num_parity, data.draw(st.integers(0, num_parity - count)), replace=False).tolist()
    restorer = code.Restorer(num_parity, num_blocks, lost_parity, lost)
    table = np.zeros((restorer.size, words), dtype=np.uint16)
    table[:num_parity] = parity
    table[restorer.first_block : restorer.first_block + num_blocks] = blocks
    table[lost_parity] = 1
    table[[restorer.first_block + number for number in lost]] = 2
    assert np.array_equal(restorer.restore(table), blocks[lost])


def test_too_much_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be restored"):
        code.Restorer(4, 20, [1], [2, 3, 4, 5])
