"""Checks that the compiled kernels give the bits of plain torch: every instruction set, shape, call pattern, thread."""

from __future__ import annotations

import ctypes
import dataclasses
import os
import platform
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llmzip.cli.main import main
from llmzip.engines import exact, selftest
from llmzip.engines.cpu import kernels
from llmzip.engines.cpu.frequencies import CpuFrequencies
from llmzip.engines.exact import ExactEngine
from llmzip.engines.frequencies import Frequencies
from llmzip.engines.torch_frequencies import TorchFrequencies
from llmzip.inference import load
from llmzip.models.model import ExactModel
from llmzip.system import libraries
from llmzip.system.threads import workers

LEVELS = [level for level in kernels.LEVELS[1:] if kernels.library(level) is not None]

pytestmark = pytest.mark.skipif(not LEVELS, reason="the compiled kernels were not built")


@pytest.fixture(params=LEVELS)
def level(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("LLMZIP_KERNELS", request.param)
    return str(request.param)


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def some_ids(rows: int, length: int, vocab: int = 50, salt: int = 1) -> np.ndarray:
    return np.random.default_rng(salt).integers(0, vocab, (rows, length))


def engines(model: ExactModel) -> tuple[ExactEngine, ExactEngine]:
    compiled = ExactEngine(model, "cpu")
    assert "without" not in compiled.kernels_text
    return compiled, ExactEngine(model, "cpu", compiled=False)


def same(model: ExactModel, ids: np.ndarray) -> None:
    compiled, plain = engines(model)
    hidden, expected = compiled.forward(ids), plain.forward(ids)
    assert np.array_equal(hidden, expected)
    flat = expected.reshape(-1, expected.shape[-1])
    assert np.array_equal(compiled.masses(np.asarray(flat)), plain.masses(flat))


@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"heads": 4, "kv_heads": 4, "dim": 16},
        {"heads": 3, "kv_heads": 1, "dim": 64},
        {"heads": 8, "kv_heads": 1, "dim": 96},
        {"heads": 6, "kv_heads": 2, "dim": 128, "hidden": 256, "mlp": 304},
        {"heads": 5, "kv_heads": 5, "dim": 256, "hidden": 16, "mlp": 16},
        {"unrotated": (0,), "rope_steps": (1 << 61, 3 << 55)},
        {"windows": (1, 16), "embedding_gain": 1.0},
        {"attention_scale": 3.0},
        {"norm_eps": 1.0},
        {"floor_bits": 8},
    ],
)
def test_shapes(level: str, shape: dict[str, Any]) -> None:
    model = selftest.compiled_model(**shape)
    for rows, length in ((1, 1), (1, 128), (7, 30), (2, 129 if model.config.context > 128 else 127)):
        same(model, some_ids(rows, length))


def test_more_keys_than_are_exact_at_once(level: str) -> None:
    """Sums of values go beyond 2^24 from 2,048 keys on."""
    same(selftest.compiled_model(context=4400, windows=(0, 2100)), some_ids(1, 4400))


@pytest.mark.parametrize("size", [2.0**-60, 2.0**-20, 2.0**10])
def test_magnitudes(level: str, size: float) -> None:
    model = selftest.compiled_model()
    layers = tuple(
        dataclasses.replace(
            layer,
            down_scale=layer.down_scale * np.float32(size),
            gate_up_scale=layer.gate_up_scale / np.float32(max(size, 1.0)),
        )
        for layer in model.layers
    )
    model = dataclasses.replace(model, embedding_scale=model.embedding_scale * np.float32(size), layers=layers)
    same(model, some_ids(3, 40))
    same(dataclasses.replace(model, embedding_q=np.zeros_like(model.embedding_q.rows)), some_ids(3, 40))


@given(parts=st.lists(st.integers(1, 70), min_size=1, max_size=9), rows=st.integers(1, 5), data=st.data())
def test_any_call_pattern(parts: list[int], rows: int, data: st.DataObject) -> None:
    """Prefill in pieces, steps, windows that move, some rows after the others: the same states."""
    length = min(128, sum(parts))
    compiled, plain = engines(selftest.compiled_model(windows=(data.draw(st.integers(1, 40)), 0)))
    ids = some_ids(rows, length)
    cache, at, found = compiled.new_cache(rows, max(parts), length), 0, []
    for part in parts:
        new = ids[:, at : min(at + part, length)]
        if not new.shape[1]:
            break
        if data.draw(st.booleans()):
            middle = data.draw(st.integers(0, rows))
            halves = [cache.rows(slice(0, middle)), cache.rows(slice(middle, rows))]
            pieces = [
                (half, new[a:b]) for half, (a, b) in zip(halves, ((0, middle), (middle, rows)), strict=True) if a < b
            ]
            found.append(np.concatenate([compiled.forward(some, half) for half, some in pieces]))
            cache.adopt(pieces[0][0])
        else:
            found.append(compiled.forward(new, cache))
        at += new.shape[1]
    assert np.array_equal(np.concatenate(found, 1), plain.forward(ids[:, :at]))
    cache.reset()
    assert np.array_equal(compiled.forward(ids[:, : parts[0]], cache), plain.forward(ids[:, : parts[0]]))


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads(threads: int) -> None:
    before = torch.get_num_threads()
    compiled, plain = engines(selftest.compiled_model())
    ids = some_ids(7, 100)
    expected = plain.forward(ids)
    try:
        torch.set_num_threads(threads)
        assert np.array_equal(compiled.forward(ids), expected)
        assert np.array_equal(compiled.masses(expected.reshape(700, -1)), plain.masses(expected.reshape(700, -1)))
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_engines_side_by_side(two_threads: None) -> None:
    model = selftest.compiled_model()
    compiled, plain = engines(model)
    other = ExactEngine(model, "cpu")
    texts = [some_ids(4, 60, salt=salt) for salt in range(6)]
    expected = [plain.forward(ids) for ids in texts]
    wrong: list[int] = []

    def work(engine: ExactEngine, order: list[int]) -> None:
        wrong.extend(n for n in order * 3 if not np.array_equal(engine.forward(texts[n]), expected[n]))

    threads = [
        threading.Thread(target=work, args=(engine, order))
        for engine, order in ((compiled, [0, 1, 2, 3]), (compiled, [3, 4, 5, 0]), (other, [5, 2, 1, 4]))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_process_has_threads_of_its_own(two_threads: None) -> None:
    compiled, plain = engines(selftest.compiled_model(hidden=16, mlp=16))
    ids = some_ids(4, 3)
    expected = plain.forward(ids)
    assert np.array_equal(compiled.forward(ids), expected)
    child = os.fork()
    if not child:
        os._exit(0 if np.array_equal(compiled.forward(ids), expected) else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_an_error_in_a_thread_is_raised(two_threads: None) -> None:
    def fail() -> None:
        raise ValueError("here")

    done: list[int] = []
    with pytest.raises(ValueError, match="here"):
        workers.run([lambda: done.append(1), fail, lambda: done.append(2)])
    assert sorted(done) == [1, 2]


def test_what_turns_the_kernels_off(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model, ids = selftest.compiled_model(), some_ids(2, 9)
    expected = ExactEngine(model, "cpu").forward(ids)

    def text() -> str:
        engine = ExactEngine(model, "cpu")
        assert np.array_equal(engine.forward(ids), expected)
        return engine.kernels_text

    assert text() in kernels.LEVELS[1:]
    found, _ = kernels.chosen()
    assert found is not None
    monkeypatch.setattr(found, "failed", True)
    assert text() == "torch, without the compiled kernels (they failed their self-test)"
    monkeypatch.setattr(found, "failed", False)
    monkeypatch.setenv("LLMZIP_KERNELS", "none")
    assert text() == "torch, without the compiled kernels (LLMZIP_KERNELS=none)"
    monkeypatch.delenv("LLMZIP_KERNELS")
    monkeypatch.setattr(kernels, "FOLDER", tmp_path)
    (tmp_path / "_kernels.so").write_bytes(b"no library")
    kernels.library.cache_clear()
    try:
        assert "not built, or from other sources" in text()
    finally:
        kernels.library.cache_clear()


def test_kernels_with_a_wrong_floor_fail_the_self_test(monkeypatch: pytest.MonkeyPatch) -> None:
    found, _ = kernels.chosen()
    assert found is not None
    masses = found.masses

    def coarse(model: Any, *rest: Any) -> None:
        """Masses of a model without floor_bits."""
        changed = kernels.Model.from_buffer_copy(model._obj)
        changed.floor_bits = 0
        masses(ctypes.byref(changed), *rest)

    monkeypatch.setattr(found, "failed", False)
    assert selftest._check_compiled()
    monkeypatch.setattr(found, "masses", coarse)
    assert not selftest._check_compiled() and found.failed


@pytest.mark.parametrize(
    ("machine", "levels", "reason"),
    [
        ("aarch64", ("", "", "", ""), "there are none for this kind of processor, aarch64"),
        ("x86_64", ("", "", "", ""), "this processor lacks the instructions that they need"),
        ("x86_64", kernels.LEVELS, "not built, or from other sources: install llmzip again"),
    ],
)
def test_why_there_are_no_kernels(
    machine: str, levels: tuple[str, ...], reason: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("LLMZIP_KERNELS", raising=False)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(kernels, "LEVELS", levels)
    if any(levels):  # this processor may have one: there must be no library
        monkeypatch.setattr(kernels, "FOLDER", tmp_path)
    for cached in (kernels.library, kernels._why_none):
        cached.cache_clear()
    try:
        assert kernels.chosen() == (None, reason)
        engine = ExactEngine(selftest.compiled_model(), "cpu")
        assert engine.kernels_text == f"torch, without the compiled kernels ({reason})"
    finally:
        for cached in (kernels.library, kernels._why_none):
            cached.cache_clear()


def test_kernels_of_other_sources_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libraries, "sources", lambda folder: "0123456789abcdef")
    kernels.library.cache_clear()
    try:
        assert kernels.chosen()[0] is None
    finally:
        kernels.library.cache_clear()


def test_kernels_with_other_bits_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    found, _ = kernels.chosen()
    assert found is not None
    selftest._check_compiled()
    assert not found.failed
    forward = found.forward

    def broken(*arguments: Any) -> None:
        forward(*arguments[:5], arguments[6], arguments[5], *arguments[7:])  # cosines for sines

    monkeypatch.setattr(found, "forward", broken)
    selftest._check_compiled()
    assert found.failed
    found.failed = False


def test_ids_that_there_are_not() -> None:
    compiled, _ = engines(selftest.compiled_model())
    for wrong in (-1, 50):
        with pytest.raises(IndexError):
            compiled.forward(np.array([[1, wrong]]))
        with pytest.raises(IndexError):
            compiled.readout().frequencies.intervals(np.ones((1, 50), dtype=np.int32), np.array([wrong]))
    assert compiled.forward(np.zeros((2, 0), dtype=np.int64)).shape == (2, 0, 48)


def test_only_cpus_have_them() -> None:
    assert exact.ExactEngine(selftest.compiled_model(), "cpu", compiled=False).kernels_text == "torch"


def test_the_command_line_says_why_it_is_slower(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "tide.txt"
    text.write_text("The tide comes in, and the tide goes out, and the harbour master writes it down.\n" * 4)
    line = "llmzip: slower than it could be: torch, without the compiled kernels (LLMZIP_KERNELS=none)\n"
    for level, verbose in (("none", "-v"), ("none", "-q"), ("", "-vv")):
        monkeypatch.setenv("LLMZIP_KERNELS", level)
        load.forget()
        assert main(["-f", "-m", "small", verbose, str(text), str(text)]) == 0
        assert capfd.readouterr().err.count(line) == (verbose == "-v")
    load.forget()


# -- frequencies -------------------------------------------------------------------------------------------------------


@given(
    level=st.sampled_from(LEVELS or [""]),
    vocab_size=st.sampled_from([16, 17, 31, 256, 1000, 4096, 4100, 300_000]),
    rows=st.integers(0, 5),
    seed=st.integers(0, 9),
    floor_bits=st.sampled_from([0, 1, 8]),
)
def test_frequencies_are_those_of_torch(level: str, vocab_size: int, rows: int, seed: int, floor_bits: int) -> None:
    rng = np.random.default_rng(seed)
    peak = 1 << 20 + floor_bits
    masses = rng.integers(peak + 1, size=(rows, vocab_size), dtype=np.int32)
    masses[masses % 5 < seed % 4] = 0
    if rows:
        masses[0], masses[-1] = peak, 0
        masses[np.arange(rows), rng.integers(vocab_size, size=rows)] = peak
    tokens, targets = rng.integers(vocab_size, size=rows), rng.integers(1 << 24, size=rows)
    library = kernels.library(level)
    assert library is not None
    compiled = CpuFrequencies(library, vocab_size, floor_bits=floor_bits)
    plain = TorchFrequencies(vocab_size, floor_bits=floor_bits)

    def everything(split: Frequencies) -> list[np.ndarray]:
        sums, bounds = split.group_bounds(masses)
        inner = split.symbol_bounds(masses, sums, bounds, tokens // split.group_size)
        tables = [split.host(table) for table in (sums, bounds, inner)]
        about_tokens = [split.intervals(masses, tokens), *split.mass_and_total(masses, tokens)]
        return [*tables, *about_tokens, *split.find(masses, targets), *split.likeliest(masses, min(9, vocab_size))]

    for one, other in zip(everything(compiled), everything(plain), strict=True):
        assert np.array_equal(one, other)


def test_groups_that_do_not_exist_are_refused(level: str) -> None:
    library = kernels.library(level)
    assert library is not None
    split = CpuFrequencies(library, 100)
    masses = np.full((3, 100), 1 << 20, dtype=np.int32)
    sums, bounds = split.group_bounds(masses)
    with pytest.raises(IndexError):
        split.symbol_bounds(masses, sums, bounds, np.array([0, split.num_groups, 0]))
    with pytest.raises(ValueError, match="sums of shape"):
        split.symbol_bounds(masses, sums[:2], bounds, np.array([0, 0, 0]))
    with pytest.raises(ValueError, match="masses of shape"):
        split.sums(masses.astype(np.int64), np.array([0, 0, 0]))
    with pytest.raises(ValueError, match="2 tokens for 3 rows"):
        split.sums(masses, np.array([0, 0]))
