"""Checks that the compiled kernels give the bits of plain torch for every family, number of planes and odd size."""

from __future__ import annotations

import pytest
from forms import FORMS, SIZES, assert_same_bits, model_of

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
