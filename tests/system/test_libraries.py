"""Checks what a program is told where the kernels were not compiled, and that their variable cannot be misspelt."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import llmzip
from llmzip.engines import devices
from llmzip.engines.cpu import kernels
from llmzip.engines.gpu import support
from llmzip.errors import EngineError, SettingsError
from llmzip.mixing import library
from llmzip.system import libraries

PACKAGE = Path(llmzip.__file__).parent
USES = """
import platform, sys, warnings
platform.machine = lambda: sys.argv[1]
import llmzip
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    llmzip.Compressor()
    llmzip.Decompressor()
    llmzip.open(sys.argv[2], "wb").close()
    with open(sys.argv[2], "rb") as file:
        assert llmzip.decompress(file.read()) == b""
for one in told:
    print(one.category.__name__, one.filename, one.lineno, one.message)
"""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources, without what was compiled of them."""
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copytree(PACKAGE, folder / "llmzip", ignore=shutil.ignore_patterns("*.so", "*.pyd", "__pycache__"))
    return folder


@pytest.fixture
def told(checkout: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """The warnings of a program that uses the sources, on a kind of processor."""

    def run(machine: str, **variables: str) -> list[str]:
        (tmp_path / "uses.py").write_text(USES)
        kept = {name: value for name, value in os.environ.items() if name != libraries.VARIABLE}
        done = subprocess.run(
            [sys.executable, tmp_path / "uses.py", machine, tmp_path / "out"],
            capture_output=True, text=True, check=False, env=kept | {"PYTHONPATH": str(checkout)} | variables,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    return run


@pytest.mark.parametrize("machine", ["x86_64", "AMD64"])
def test_a_program_is_warned_once_where_it_uses_what_is_not_compiled(
    machine: str, told: Callable[..., list[str]], tmp_path: Path
) -> None:
    (line,) = told(machine)
    assert line.startswith(f"PerformanceWarning {tmp_path / 'uses.py'} 7 llmzip works without its compiled kernels")
    assert "pip install -e ." in line


def test_there_is_no_warning_where_nothing_can_be_done_or_it_was_chosen(told: Callable[..., list[str]]) -> None:
    assert told("aarch64") == []
    assert told("x86_64", LLMZIP_KERNELS="none") == []


@pytest.mark.skipif(kernels.library("") is None, reason="the kernels were not built")
def test_there_is_no_warning_with_the_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libraries, "_has_warned", False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        llmzip.Decompressor()
    assert libraries._has_warned


@pytest.mark.parametrize("value", ["bogus", "AVX2", " none", "0", "avx2,amx"])
def test_a_misspelt_choice_is_refused_by_whoever_asks(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(libraries.VARIABLE, value)
    for asks in (kernels.chosen, library.chosen, lambda: support.unavailable(torch.device("cuda"))):
        with pytest.raises(SettingsError, match=r"LLMZIP_KERNELS: .* is none of none, portable, avx2, avx512, amx"):
            asks()
    monkeypatch.setattr(libraries, "_has_warned", False)
    with pytest.raises(SettingsError):
        llmzip.compress(b"text")


def test_every_level_may_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    levels = {*kernels.LEVELS, *library.LEVELS} - {""}
    assert levels < set(libraries.CHOICES)
    for level in libraries.CHOICES:
        monkeypatch.setenv(libraries.VARIABLE, level)
        assert libraries.wanted() == level


def test_children_of_a_process_that_used_cuda_compute_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "_is_in_bad_fork", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert devices.find("auto") == "cpu"
    with pytest.raises(EngineError, match="method spawn"):
        devices.find("cuda")
