"""Checks that a CUDA device gives the CPU's bits: masses, frequencies and whole archives; skipped without one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import llmzip
from llmzip.engines import selftest
from llmzip.engines.devices import all_of
from llmzip.engines.exact import ExactEngine
from llmzip.engines.gpu import devices, support
from llmzip.engines.gpu.frequencies import DeviceFrequencies, frequencies
from llmzip.engines.torch_frequencies import TorchFrequencies

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

TEXT = b"The archive that a GPU makes is the archive that a laptop makes; each of them reads the other's. " * 12


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_masses_are_those_of_the_cpu(
    shape: str, make_engine: Callable[..., ExactEngine], ids: np.ndarray, expected: np.ndarray, batch: int
) -> None:
    engine = make_engine(shape, device="cuda")
    here = ids[:batch]
    whole = engine.masses(engine.forward(here).flatten(0, 1))
    assert np.array_equal(whole.cpu().numpy().reshape(expected[:batch].shape), expected[:batch])
    cache = engine.new_cache(batch, 30, here.shape[1])
    parts = [engine.forward(here[:, :30], cache)]
    parts += [engine.forward(here[:, n : n + 1], cache) for n in range(30, here.shape[1])]
    stepped = engine.masses(torch.cat(parts, 1).flatten(0, 1))
    assert torch.equal(stepped, whole)


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_reduced_precision_changes_nothing(
    make_engine: Callable[..., ExactEngine], precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpu, cuda = make_engine("two planes"), make_engine("two planes", device="cuda")
    ids = np.arange(64)[None] % cpu.vocab_size
    right = cpu.masses(cpu.forward(ids)[0])
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision(precision)
        assert np.array_equal(cuda.masses(cuda.forward(ids)[0]).cpu(), right)
        with torch.autocast("cuda", torch.float16):
            assert np.array_equal(cuda.masses(cuda.forward(ids)[0]).cpu(), right)
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("vocab_size", [17, 4096, 50257])
def test_intervals_are_those_of_the_cpu(vocab_size: int) -> None:
    generator = torch.Generator().manual_seed(vocab_size)
    masses = torch.randint((1 << 20) + 1, (40, vocab_size), generator=generator, dtype=torch.int32)
    tokens = torch.randint(vocab_size, (40,), generator=generator).numpy()
    split = TorchFrequencies(vocab_size)
    assert np.array_equal(split.intervals(masses.cuda(), tokens), split.intervals(masses, tokens))


@pytest.mark.parametrize("level", [1, 6, 9])
def test_archives_are_those_of_the_cpu_and_decode_on_either(level: int) -> None:
    archive = llmzip.compress(TEXT, level=level, device="cuda")
    assert archive == llmzip.compress(TEXT, level=level, device="cpu")
    assert llmzip.info(archive).archives[0].frames[0].method in ("lm", "mixed")
    for device in ("cpu", "cuda", "cuda:0"):
        assert llmzip.decompress(archive, device=device) == TEXT


# -- the kernels -------------------------------------------------------------------------------------------------------

HAVE_KERNELS = torch.cuda.is_available() and not support.unavailable(torch.device("cuda"))
kernels = pytest.mark.skipif(not HAVE_KERNELS, reason="no Triton, or a device that it does not know")

FORMS: list[dict[str, Any]] = [
    {},
    {"heads": 3, "kv_heads": 1, "dim": 64},
    {"heads": 8, "kv_heads": 1, "dim": 64, "unrotated": (0,)},
    {"heads": 6, "kv_heads": 2, "dim": 128, "hidden": 256, "mlp": 304},
    {"heads": 5, "kv_heads": 5, "dim": 256, "hidden": 16, "mlp": 16},
    {"windows": (1, 16), "embedding_gain": 1.0},
    {"attention_scale": 3.0, "norm_eps": 1.0},
    {"floor_bits": 8},
]


def both(**form: Any) -> tuple[ExactEngine, ExactEngine]:
    model = selftest.compiled_model(**form)
    own = ExactEngine(model, "cuda")
    assert own.kernels_text == "triton"
    return own, ExactEngine(model, "cpu", compiled=False)


def some_ids(rows: int, length: int, salt: int = 1) -> np.ndarray:
    return np.random.default_rng(salt).integers(0, 50, (rows, length))


@kernels
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("rows", "length"), [(1, 1), (1, 128), (7, 30), (200, 9)])
def test_kernels_give_the_bits_of_the_cpu(form: dict[str, Any], rows: int, length: int) -> None:
    own, plain = both(**form)
    ids = some_ids(rows, length)
    expected = plain.forward(ids)
    assert torch.equal(own.forward(ids).cpu(), expected)
    flat = expected.flatten(0, 1)
    assert torch.equal(own.masses(flat.cuda()).cpu(), plain.masses(flat))


@kernels
def test_more_keys_than_are_exact_at_once() -> None:
    own, plain = both(context=4400, windows=(0, 2100))
    ids = some_ids(1, 4400)
    assert torch.equal(own.forward(ids).cpu(), plain.forward(ids))


@kernels
@pytest.mark.parametrize("size", [2.0**-60, 2.0**-20, 2.0**10])
def test_magnitudes(size: float) -> None:
    model, ids = selftest.compiled_model(), some_ids(3, 40)
    for scale in (model.embedding_scale, *(layer.down_scale for layer in model.layers)):
        np.multiply(scale, np.float32(size), out=scale)
    for zero in (False, True):
        if zero:
            model.embedding_q.rows[:] = 0
        expected = ExactEngine(model, "cpu", compiled=False).forward(ids)
        assert torch.equal(ExactEngine(model, "cuda").forward(ids).cpu(), expected)


@kernels
@pytest.mark.parametrize("form", FORMS[:3])
def test_recorded_steps(form: dict[str, Any]) -> None:
    """Steps of two caches in turn, windows that move, contexts that begin anew, some rows first."""
    own, plain = both(**form)
    texts = [some_ids(5, 128, salt) for salt in (1, 2)]
    expected = [plain.forward(ids) for ids in texts]
    caches = [own.new_cache(5, 16, 128) for _ in texts]
    for turn in range(3):
        found: list[list[torch.Tensor]] = [[], []]
        for cache, ids, parts in zip(caches, texts, found, strict=True):
            cache.reset()
            halves = [cache.rows(slice(0, 2)), cache.rows(slice(2, 5))]  # type: ignore[union-attr]
            begun = [own.forward(ids[some, :7], half) for some, half in zip((slice(0, 2), slice(2, 5)), halves, strict=True)]  # fmt: skip # noqa: E501
            cache.adopt(halves[0])  # type: ignore[arg-type]
            parts.append(torch.cat(begun))
        for step in range(7, 128):
            for cache, ids, parts in zip(caches, texts, found, strict=True):
                parts.append(own.forward(ids[:, step : step + 1], cache))
        for parts, right in zip(found, expected, strict=True):
            assert torch.equal(torch.cat(parts, 1).cpu(), right), turn


@kernels
@pytest.mark.parametrize("floor_bits", [0, 8])
@pytest.mark.parametrize("vocab_size", [16, 50, 4096, 50257, 128256, 262144])
def test_frequencies_are_those_of_the_cpu(vocab_size: int, floor_bits: int) -> None:
    plain = TorchFrequencies(vocab_size, floor_bits=floor_bits)
    own = frequencies(vocab_size, torch.device("cuda"), floor_bits=floor_bits)
    assert isinstance(own, DeviceFrequencies)
    generator = torch.Generator().manual_seed(vocab_size)
    peak = 1 << 20 + floor_bits
    masses = torch.randint(peak + 1, (300, vocab_size), generator=generator, dtype=torch.int32)
    masses[0], masses[1], masses[:, 3] = peak, 0, peak
    tokens = torch.randint(vocab_size, (300,), generator=generator).numpy()
    assert np.array_equal(own.intervals(masses.cuda(), tokens), plain.intervals(masses, tokens))
    (sums, bounds), found = plain.group_bounds(masses), own.group_bounds(masses.cuda())
    assert torch.equal(found[0].cpu(), sums) and torch.equal(found[1].cpu(), bounds)
    groups = tokens // plain.group_size
    inner = own.symbol_bounds(masses.cuda(), *found, groups)
    assert torch.equal(inner.cpu(), plain.symbol_bounds(masses, sums, bounds, groups))


@kernels
def test_frames_side_by_side() -> None:
    """Several threads on one engine, as frames have them."""
    own, plain = both()
    texts = [some_ids(6, 90, salt) for salt in range(4)]
    expected = [plain.forward(ids) for ids in texts]
    wrong: list[str] = []

    def work(number: int) -> None:
        try:
            with torch.inference_mode():
                copies = devices.HostCopies()
                for _ in range(3):
                    cache = own.new_cache(6, 16, 90)
                    ids = texts[number]
                    parts = [copies.fetch(own.forward(ids[:, n : n + 1], cache)).copy() for n in range(90)]
                    found = torch.cat([torch.from_numpy(part) for part in parts], 1)
                    if not torch.equal(found, expected[number]):
                        wrong.append(f"bits of {number}")
        except Exception as error:
            wrong.append(repr(error))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@kernels
def test_rows_that_do_not_fit_are_refused_before_they_are_allocated() -> None:
    own, _ = both()
    rows = devices.most_rows(own, 16, 128)
    assert 1 < rows <= 1 << 20
    assert own.step_bytes(rows, 16, 128) <= torch.cuda.mem_get_info()[1]


@kernels
def test_without_the_kernels_the_bits_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    own, plain = both()
    monkeypatch.setenv("LLMZIP_KERNELS", "none")
    without = ExactEngine(selftest.compiled_model(), "cuda")
    assert without.kernels_text == "torch, without the Triton kernels (LLMZIP_KERNELS=none)"
    ids = some_ids(3, 50)
    assert torch.equal(without.forward(ids), own.forward(ids))
    assert torch.equal(without.forward(ids).cpu(), plain.forward(ids))


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one CUDA device")
def test_every_device_gives_the_same() -> None:
    ids = some_ids(3, 50)
    expected = ExactEngine(selftest.compiled_model(), "cpu").forward(ids)
    for device in all_of("cuda"):
        selftest.check(device)
        assert np.array_equal(ExactEngine(selftest.compiled_model(), device).forward(ids).cpu(), expected)
