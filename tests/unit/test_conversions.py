"""Checks that conversions of checkpoints are kept, told apart and never trusted; and how planes are chosen."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from llmzip.engines import conversions, planes
from llmzip.engines.exact import ExactEngine
from llmzip.engines.model import ExactModel
from llmzip.engines.weights import load_model

Make = Callable[..., tuple[dict[str, Any], dict[str, torch.Tensor]]]
Write = Callable[..., Path]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of kept conversions, with every model large enough for it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(conversions, "_LEAST_BYTES", 0)
    return tmp_path / "cache" / "llmzip" / "models"


@pytest.fixture
def folder(random_checkpoint: Make, write_checkpoint: Write, tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "m", *random_checkpoint())


class Chooser:
    """Chooses a number of planes and counts how often it was asked."""

    def __init__(self, number: int) -> None:
        self.number, self.calls = number, 0

    def __call__(self, model: ExactModel) -> ExactModel:
        self.calls += 1
        return dataclasses.replace(model, config=dataclasses.replace(model.config, planes=self.number))


@pytest.mark.parametrize("number", [1, 2])
def test_a_conversion_is_made_once(cache: Path, folder: Path, number: int) -> None:
    choose = Chooser(number)
    models = [conversions.load(folder, 50, None, None, choose) for _ in range(3)]
    assert choose.calls == 1
    assert {model.digest() for model in models} == {load_model(folder, number, 50).digest()}
    assert len(list(cache.iterdir())) == 1


def test_an_archives_planes_win(cache: Path, folder: Path) -> None:
    choose = Chooser(2)
    assert conversions.load(folder, 50, None, 1, choose).digest() == load_model(folder, 1, 50).digest()
    assert not choose.calls and not cache.exists()
    conversions.load(folder, 50, None, None, choose)
    assert conversions.load(folder, 50, None, 1, choose).digest() == load_model(folder, 1, 50).digest()
    assert conversions.load(folder, 50, None, 2, choose).digest() == load_model(folder, 2, 50).digest()
    assert choose.calls == 1


def test_other_settings_and_changed_files_are_converted_anew(cache: Path, folder: Path) -> None:
    choose = Chooser(1)
    conversions.load(folder, 50, None, None, choose)
    conversions.load(folder, 40, None, None, choose)
    conversions.load(folder, 50, 3, None, choose)
    assert choose.calls == 3
    weights = folder / "model.safetensors"
    stamp = weights.stat().st_mtime_ns
    os.utime(weights, ns=(stamp + 10**9, stamp + 10**9))
    conversions.load(folder, 50, None, None, choose)
    assert choose.calls == 4 and len(list(cache.iterdir())) == 4


@pytest.mark.parametrize("where", [0.0, 0.3, 0.6, 0.999])
def test_a_damaged_conversion_is_made_anew(cache: Path, folder: Path, where: float) -> None:
    choose = Chooser(1)
    digest = conversions.load(folder, 50, None, None, choose).digest()
    (kept,) = cache.iterdir()
    data = bytearray(kept.read_bytes())
    data[int(where * len(data))] ^= 0x55
    kept.write_bytes(data)
    assert conversions.load(folder, 50, None, None, choose).digest() == digest
    assert choose.calls == 2
    assert conversions.load(folder, 50, None, None, choose).digest() == digest
    assert choose.calls == 2  # and kept again


@pytest.mark.parametrize("content", [b"", b"{}", b"\0" * 100])
def test_rubbish_in_the_cache_is_replaced(cache: Path, folder: Path, content: bytes) -> None:
    choose = Chooser(1)
    digest = conversions.load(folder, 50, None, None, choose).digest()
    (kept,) = cache.iterdir()
    kept.write_bytes(content)
    assert conversions.load(folder, 50, None, None, choose).digest() == digest and choose.calls == 2


def test_without_a_place_for_it_nothing_is_kept(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(conversions, "_LEAST_BYTES", 0)
    choose = Chooser(2)
    for _ in range(2):
        assert conversions.load(folder, 50, None, None, choose).digest() == load_model(folder, 2, 50).digest()
    assert choose.calls == 2


def test_small_models_are_not_kept(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    conversions.load(folder, 50, None, None, Chooser(1))
    assert not (tmp_path / "cache").exists()


def test_outliers_ask_for_a_second_plane(random_checkpoint: Make) -> None:
    from llmzip.engines.convert import convert

    config, tensors = random_checkpoint()
    rows = [torch.randint(100, (40,), generator=torch.Generator().manual_seed(3))]
    plain = convert(config, tensors, 2, 50)
    # One input of the norms is a hundred times the others, and the matrices behind them hardly look at it.
    spiky = dict(tensors)
    for name, tensor in tensors.items():
        if "layernorm" in name:
            spiky[name] = tensor.clone()
            spiky[name][5] *= 300
        if name.endswith(("q_proj.weight", "k_proj.weight", "v_proj.weight", "gate_proj.weight", "up_proj.weight")):
            spiky[name] = tensor.clone()
            spiky[name][:, 5] /= 300
    device = torch.device("cpu")
    outliers = convert(config, spiky, 1, 50)

    def with_planes(model: ExactModel, number: int) -> float:
        return planes.code_bits(ExactEngine(Chooser(number)(model)), rows[0])

    models = {"plain": plain, "outliers": outliers}
    bits = {name: [with_planes(model, number) for number in (1, 2)] for name, model in models.items()}
    for name, model in models.items():
        expected = 2 if bits[name][0] > 1.002 * bits[name][1] else 1
        assert planes.choose(model, rows, device).config.planes == expected, bits
    assert abs(bits["outliers"][0] - bits["outliers"][1]) > 3 * abs(bits["plain"][0] - bits["plain"][1])
    assert planes.choose(plain, [], device).config.planes == 1
