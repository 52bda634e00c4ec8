"""Checks that the compiled kernels give the bits of plain torch for every family, number of planes and odd size."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from forms import FORMS, SIZES, assert_same_bits, ids_of, model_of

from llmzip.engines.cpu import kernels
from llmzip.engines.exact import ExactEngine

LEVELS = [level for level in kernels.LEVELS[1:] if kernels.library(level) is not None]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("planes", [1, 2])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("form", FORMS)
def test_bits_are_those_of_torch(
    form: str, size: str, planes: int, level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMZIP_KERNELS", level)
    model = model_of(form, size, planes)
    compiled, plain = ExactEngine(model, "cpu"), ExactEngine(model, "cpu", compiled=False)
    assert compiled.kernels_text == level
    assert not compiled.is_slower
    assert_same_bits(compiled, plain)


@pytest.mark.parametrize("level", LEVELS)
def test_byte_tokens_have_the_mass_0(level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMZIP_KERNELS", level)
    model = model_of("gemma2", "no lanes", 2)
    compiled = ExactEngine(model, "cpu", byte_tokens=21)
    plain = ExactEngine(model, "cpu", compiled=False, byte_tokens=21)
    hidden = np.random.default_rng(3).standard_normal((7, model.config.hidden_size), dtype=np.float32)
    masses = compiled.masses(hidden)
    assert masses.shape == (7, model.config.vocab_size + 21) and not masses[:, model.config.vocab_size :].any()
    assert np.array_equal(masses, plain.masses(torch.from_numpy(hidden)))


@pytest.mark.parametrize("level", LEVELS)
def test_queries_that_do_not_fit_are_left_to_torch(level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Heads of 2 values have queries up to 65,535, which no int16 holds."""
    monkeypatch.setenv("LLMZIP_KERNELS", level)
    engine = ExactEngine(model_of("llama", "odd", head_dim=2), "cpu")
    assert engine.is_slower
    assert engine.kernels_text == "torch, without the compiled kernels (the model has heads of 2 values)"


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("windows", [(0, 0), (9, 1)])
def test_positions_can_be_taken_back(level: str, windows: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read and taken back leaves no trace: the largest value scale before it counts again."""
    monkeypatch.setenv("LLMZIP_KERNELS", level)
    model = model_of("llama", windows=windows)
    compiled, plain = ExactEngine(model, "cpu"), ExactEngine(model, "cpu", compiled=False)
    cache, read, found = compiled.new_cache(2, 40, 150), ids_of(model, 2, 0), []
    for seed in range(24):
        kept = ids_of(model, 2, 5, 2 * seed)
        found.append(compiled.forward(kept, cache))
        read = np.concatenate([read, kept], 1)
        compiled.forward(ids_of(model, 2, 1 + seed % 3, 2 * seed + 1), cache)
        cache.length = read.shape[1]
    assert np.array_equal(np.concatenate(found, 1), plain.forward(read))
