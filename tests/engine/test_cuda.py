"""Checks that a CUDA device gives the CPU's bits: masses, frequencies and whole archives; skipped without one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

import llmzip
from llmzip.engines.exact import ExactEngine
from llmzip.engines.freqs import Frequencies

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

TEXT = b"The archive that a GPU makes is the archive that a laptop makes; each of them reads the other's. " * 12


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_masses_are_those_of_the_cpu(
    shape: str, make_engine: Callable[..., ExactEngine], ids: torch.Tensor, expected: torch.Tensor, batch: int
) -> None:
    engine = make_engine(shape, device="cuda")
    here = ids[:batch].cuda()
    whole = engine.masses(engine.forward(here).flatten(0, 1))
    assert torch.equal(whole.cpu().view_as(expected[:batch]), expected[:batch])
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
    ids = torch.arange(64)[None] % cpu.vocab_size
    right = cpu.masses(cpu.forward(ids)[0])
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision(precision)
        assert torch.equal(cuda.masses(cuda.forward(ids.cuda())[0]).cpu(), right)
        with torch.autocast("cuda", torch.float16):
            assert torch.equal(cuda.masses(cuda.forward(ids.cuda())[0]).cpu(), right)
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("vocab_size", [17, 4096, 50257])
def test_intervals_are_those_of_the_cpu(vocab_size: int) -> None:
    generator = torch.Generator().manual_seed(vocab_size)
    masses = torch.randint((1 << 20) + 1, (40, vocab_size), generator=generator, dtype=torch.int32)
    tokens = torch.randint(vocab_size, (40,), generator=generator)
    split = Frequencies(vocab_size)
    assert torch.equal(split.intervals(masses.cuda(), tokens.cuda()).cpu(), split.intervals(masses, tokens))


@pytest.mark.parametrize("level", [1, 6, 9])
def test_archives_are_those_of_the_cpu_and_decode_on_either(level: int) -> None:
    archive = llmzip.compress(TEXT, level=level, device="cuda")
    assert archive == llmzip.compress(TEXT, level=level, device="cpu")
    assert llmzip.info(archive).archives[0].frames[0].method in ("lm", "mixed")
    for device in ("cpu", "cuda", "cuda:0"):
        assert llmzip.decompress(archive, device=device) == TEXT
