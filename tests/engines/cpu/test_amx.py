"""Checks the kernels for AMX on processors without it: tiles.h emulates the tiles that their source uses.

Everything but the tiles is what an AMX processor runs, AVX-512 with VNNI included.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest
from forms import FORMS, SIZES, assert_same_bits, model_of

from llmzip.engines.cpu import kernels
from llmzip.engines.cpu.forward import CpuForward
from llmzip.engines.exact import ExactEngine

TILES = Path(__file__).with_name("tiles.h")
NATIVE = Path(kernels.__file__).with_name("native")
FLAGS = ("-std=c++17", "-O3", "-mavx512bw", "-ffp-contract=off", "-fno-math-errno", "-fPIC", "-shared", "-w")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library of the kernels for AMX, compiled with emulated tiles."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("there is no C++ compiler")
    if kernels.library("avx512") is None:
        pytest.skip("this processor has no AVX-512 with VNNI")
    path = tmp_path_factory.mktemp("amx") / "amx.so"
    subprocess.run([compiler, *FLAGS, "-include", TILES, NATIVE / "amx.cpp", "-o", path], check=True)
    return path


@pytest.fixture(scope="module")
def emulated(built: Path) -> kernels.Library:
    return kernels.Library(ctypes.CDLL(str(built)), "amx")


@pytest.mark.parametrize("planes", [1, 2])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("form", FORMS)
def test_bits_are_those_of_torch(form: str, size: str, planes: int, emulated: kernels.Library) -> None:
    model = model_of(form, size, planes)
    compiled, plain = ExactEngine(model, "cpu"), ExactEngine(model, "cpu", compiled=False)
    compiled.forward_pass = CpuForward(model, emulated, compiled.operands)
    assert compiled.forward_pass.name == "amx"
    assert_same_bits(compiled, plain)


def test_the_tiles_are_emulated(built: Path) -> None:
    """The library has no instruction of AMX: on a processor with AMX, too, the tests run the emulation."""
    objdump = shutil.which("objdump")
    if objdump is None:
        pytest.skip("there is no objdump")
    code = subprocess.run([objdump, "-d", built], capture_output=True, text=True, check=True).stdout
    assert "vpdpbusd" in code
    assert "tdpbssd" not in code
    assert "tileloadd" not in code
