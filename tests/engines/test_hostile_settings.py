"""Checks that what a caller does to torch, numpy or decimal in the same process changes no bit of the masses."""

from __future__ import annotations

import contextlib
import decimal
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from llmzip.codec.writer import ArchiveWriter
from llmzip.engines.exact import ExactEngine
from llmzip.inference import load
from llmzip.models.choice import choose_model
from llmzip.numerics import tables
from llmzip.settings import CompressSettings, EngineSettings

TEXT = b"A caller may have changed everything that torch lets a caller change, and must still get the same archive."


@contextlib.contextmanager
def matmul_precision(precision: str) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextlib.contextmanager
def flush_denormal() -> Iterator[None]:
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot flush subnormal numbers")
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


@contextlib.contextmanager
def deterministic_algorithms() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@contextlib.contextmanager
def mkldnn_precision(precision: str) -> Iterator[None]:
    """The newer switch for reduced precision of oneDNN's products."""
    settings = getattr(torch.backends.mkldnn, "matmul", None)
    if settings is None or not hasattr(settings, "fp32_precision"):
        pytest.skip("this torch has no such switch")
    before = settings.fp32_precision
    settings.fp32_precision = precision
    try:
        yield
    finally:
        settings.fp32_precision = before


@contextlib.contextmanager
def without_mkldnn() -> Iterator[None]:
    """torch.backends.mkldnn.flags would also touch, and warn about, the precision."""
    torch._C._set_mkldnn_enabled(False)
    try:
        yield
    finally:
        torch._C._set_mkldnn_enabled(True)


@contextlib.contextmanager
def default_device(device: str) -> Iterator[None]:
    with torch.device(device):
        yield


@contextlib.contextmanager
def gradients() -> Iterator[None]:
    with torch.enable_grad(), torch.autograd.set_detect_anomaly(True, check_nan=True):
        yield


@contextlib.contextmanager
def threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


SETTINGS: dict[str, Callable[[], Any]] = {
    "medium precision": lambda: matmul_precision("medium"),
    "high precision": lambda: matmul_precision("high"),
    "autocast to bfloat16": lambda: torch.autocast("cpu", torch.bfloat16),
    "autocast to float16": lambda: torch.autocast("cpu", torch.float16),
    "default float64": lambda: default_dtype(torch.float64),
    "default bfloat16": lambda: default_dtype(torch.bfloat16),
    "flushed subnormals": flush_denormal,
    "deterministic algorithms": deterministic_algorithms,
    "no oneDNN": without_mkldnn,
    "oneDNN bfloat16": lambda: mkldnn_precision("bf16"),
    "oneDNN tf32": lambda: mkldnn_precision("tf32"),
    "another default device": lambda: default_device("meta"),
    "gradients": gradients,
    "many threads": lambda: threads(5),
    "numpy raises": lambda: np.errstate(all="raise"),
}


@pytest.fixture(scope="module")
def engines(make_engine: Callable[..., ExactEngine]) -> list[ExactEngine]:
    """The embedded model's engine, and one with norms, biases and windows."""
    embedded = load.load(choose_model("default"), EngineSettings()).engine
    return [embedded, make_engine("norms, mixed windows"), make_engine("biases")]


def masses(engine: ExactEngine) -> np.ndarray:
    """Of a prefill and of some steps, on ids that are the same in every call."""
    ids = np.arange(4 * 33).reshape(4, 33) * 7919 % engine.vocab_size
    cache = engine.new_cache(4, 25, 33)
    parts = [engine.forward(ids[:, :25], cache)] + [engine.forward(ids[:, n : n + 1], cache) for n in range(25, 33)]
    masses = [engine.masses(part.reshape(-1, part.shape[-1])) for part in parts]
    return np.concatenate([engine.readout().fetch(part) for part in masses])


@pytest.fixture(scope="module")
def expected(engines: list[ExactEngine]) -> list[np.ndarray]:
    return [masses(engine) for engine in engines]


@pytest.mark.parametrize("name", SETTINGS)
def test_masses_do_not_change(name: str, engines: list[ExactEngine], expected: list[np.ndarray]) -> None:
    for engine, right in zip(engines, expected, strict=True):
        with SETTINGS[name]():
            found = masses(engine)
        assert np.array_equal(found, right)


@pytest.mark.parametrize("name", SETTINGS)
def test_engines_that_are_made_under_a_setting_are_the_same(
    name: str, make_engine: Callable[..., ExactEngine], expected: list[np.ndarray]
) -> None:
    with SETTINGS[name]():
        found = masses(make_engine("norms, mixed windows"))
    assert np.array_equal(found, expected[1])


@pytest.mark.parametrize("name", SETTINGS)
def test_archives_do_not_change(name: str) -> None:
    def archive() -> bytes:
        writer = ArchiveWriter(CompressSettings())
        return writer.write(TEXT) + writer.finish()

    right = archive()
    with SETTINGS[name]():
        assert archive() == right


@pytest.mark.parametrize(
    "context",
    [
        decimal.Context(prec=3),
        decimal.Context(rounding=decimal.ROUND_FLOOR),
        decimal.Context(rounding=decimal.ROUND_UP, prec=10),
        decimal.Context(Emax=9, Emin=-9),
        decimal.Context(traps=[decimal.Inexact, decimal.Rounded]),
    ],
    ids=["precision", "floor", "up", "exponents", "traps"],
)
def test_tables_do_not_depend_on_the_callers_decimal_context(context: decimal.Context) -> None:
    def made() -> tuple[Any, ...]:
        tables.exp2_table.cache_clear()
        tables.log2e_steps.cache_clear()
        cos, sin = tables.rope_tables(tables.rope_steps(10000.0, 64), 50)
        return (
            tables.rope_steps(10000.0, 64),
            cos.tolist(),
            sin.tolist(),
            tables.exp2_table().tolist(),
            tables.log2e_steps(),
            tables.attention_factor(80),
        )

    right = made()
    with decimal.localcontext(context):
        assert made() == right
