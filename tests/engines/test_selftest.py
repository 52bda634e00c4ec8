"""Checks the start-up test of a device, what it refuses, and that failed allocations become errors of llmzip."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from llmzip.engines import selftest
from llmzip.engines.cpu import kernels
from llmzip.errors import EngineError, ResourceError
from llmzip.numerics import ops
from llmzip.system import memory

CPU = "cpu"


@pytest.fixture(autouse=True)
def _verdicts_are_forgotten() -> Iterator[None]:
    """What a test with wrong operations found out of the kernels must not turn them off for other tests."""
    library = kernels.chosen()[0]
    yield
    selftest.check.cache_clear()
    if library is not None:
        library.failed = False


def test_this_device_gives_the_stored_transcript() -> None:
    assert selftest.transcript(CPU) == selftest.TRANSCRIPT
    assert selftest.check(CPU, by_torch=True)


def test_the_stored_hashes_are_those_of_plain_torch_and_of_the_kernels() -> None:
    assert selftest.long_transcript(compiled=False) == selftest.LONG_TRANSCRIPT
    if kernels.chosen()[0] is not None:
        assert selftest.transcript(CPU, compiled=True) == selftest.TRANSCRIPT
        assert selftest.long_transcript(compiled=True) == selftest.LONG_TRANSCRIPT


def test_the_kernels_are_tested_without_torch_unless_it_computes_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "floor", None)  # plain torch needs it
    selftest.check.cache_clear()
    if kernels.chosen()[0] is not None:
        assert selftest.check(CPU)
    with pytest.raises(TypeError):
        selftest.check(CPU, by_torch=True)


@pytest.mark.parametrize("planes", [1, 2])
def test_the_tiny_models_predictions_are_neither_flat_nor_certain(planes: int) -> None:
    engine = selftest.ExactEngine(selftest.tiny_model(planes))
    masses = np.asarray(engine.masses(engine.forward(np.arange(40)[None] % engine.vocab_size)[0]))
    share = (1 << 20) / masses.sum(-1)
    assert share.min() < 0.2 and share.max() < 0.999
    assert len({row.tobytes() for row in masses}) == 40


def test_a_device_with_other_bits_is_refused_with_both_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selftest, "TRANSCRIPT", "0" * 64)
    selftest.check.cache_clear()
    with pytest.raises(EngineError, match=r"the self-test gives [0-9a-f]{16}, not 0{16}"):
        selftest.check(CPU)


@pytest.mark.parametrize("name", ["TRANSCRIPT", "LONG_TRANSCRIPT"])
def test_kernels_with_other_hashes_are_turned_off(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    library = kernels.chosen()[0]
    if library is None:
        pytest.skip("there are no compiled kernels here")
    monkeypatch.setattr(selftest, name, "0" * 64)
    assert not selftest._check_compiled() and library.failed


@pytest.mark.parametrize("name", ["floor", "matmul", "sqrt", "mul", "sub"])
def test_a_device_whose_operations_are_off_is_noticed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for a device with a wrong kernel: one operation of torch gives results that are off a little."""
    original = getattr(torch, name)
    calls = 0

    def wrong(*arguments: object, **options: object) -> torch.Tensor:
        nonlocal calls
        calls += 1
        result = original(*arguments, **options)
        return result * (1 + 2**-9) if result.is_floating_point() else result

    monkeypatch.setattr(torch, name, wrong)
    selftest.check.cache_clear()
    with pytest.raises(EngineError, match="device cpu"):
        selftest.check(CPU, by_torch=True)
    assert calls > 0


def test_float_products_without_any_exact_form_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    original = torch.matmul
    monkeypatch.setattr(torch, "matmul", lambda *operands: original(*operands) + 1)
    with pytest.raises(EngineError, match="neither float32 nor float64 products of integers are exact"):
        ops.Kernels(torch.device(CPU))


def test_a_native_product_that_saturates_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    original = torch._int_mm
    monkeypatch.setattr(torch, "_int_mm", lambda *operands: original(*operands).clamp(-(1 << 17), 1 << 17))
    products = ops.Kernels(torch.device(CPU))
    assert not products.int8_native and "int8 products: float" in products.describe()
    a, w = torch.full((3, 100), -128, dtype=torch.int8), torch.full((5, 100), 127, dtype=torch.int8)
    assert torch.equal(products._int8_mm(a, w), torch.full((3, 5), -128 * 127 * 100, dtype=torch.int32))


@pytest.mark.parametrize(
    "error", [RuntimeError("DefaultCPUAllocator: can't allocate memory"), torch.OutOfMemoryError("CUDA out of memory")]
)
def test_failed_allocations_become_resource_errors(error: RuntimeError) -> None:
    with pytest.raises(ResourceError, match="not enough memory"), memory.allocations_checked():
        raise error


def test_other_errors_of_torch_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="shape"), memory.allocations_checked():
        raise RuntimeError("shape mismatch")


def test_free_memory_is_known_and_reasonable() -> None:
    free = memory.free_bytes(CPU)
    assert free is None or 1 << 20 < free < 1 << 50
