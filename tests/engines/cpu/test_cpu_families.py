"""Checks that the compiled kernels give the bits of plain torch for every family, number of planes and odd size."""

from __future__ import annotations

import ctypes

import pytest
import torch
from forms import FORMS, SIZES, assert_same_bits, model_of

from llmzip.engines.cpu import kernels
from llmzip.engines.cpu.forward import CpuForward
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
def test_rows_of_masses_may_be_wider(level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Columns after the tokens of the model are 0, and nothing else is touched."""
    monkeypatch.setenv("LLMZIP_KERNELS", level)
    model = model_of("gemma2", "no lanes", 2)
    engine, vocab, more = ExactEngine(model, "cpu"), model.config.vocab_size, 21
    forward_pass = engine.forward_pass
    assert isinstance(forward_pass, CpuForward)
    hidden = torch.randn(7, model.config.hidden_size, generator=torch.Generator().manual_seed(3))
    out = torch.full((8, vocab + more), -1, dtype=torch.int32)
    buffers = forward_pass._take_buffers(0)
    forward_pass.library.masses(
        ctypes.byref(forward_pass._model), 7, hidden.data_ptr(), ctypes.byref(buffers.room), vocab + more,
        out.data_ptr(),
    )  # fmt: skip
    assert torch.equal(out[:7, :vocab], ExactEngine(model, "cpu", compiled=False).masses(hidden))
    assert not out[:7, vocab:].any()
    assert (out[7] == -1).all()
