"""Checks the exponentials of the kernels against every entry of the table, at the steps around it."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from llmzip.engines.cpu import kernels
from llmzip.numerics import tables

NATIVE = Path(kernels.__file__).with_name("native")
FLAGS = ("-std=c++17", "-O2", "-ffp-contract=off", "-fPIC", "-shared", "-w")
EXPORTED = """
extern "C" void exponentials_of_steps(const int32_t* entries, int64_t count, const float* steps, int32_t* out) {
    Model m = {};
    m.octave = entries;
    const Octave octave = octave_of(&m);
    for (int64_t i = 0; i < count; i += LANES) store(out + i, exp2_of(octave, load<vf>(steps + i)));
}
"""
LEVELS = {"avx2": "avx2.cpp", "avx512": "avx512.cpp"}
"""Levels that compute exponentials in their own way; AMX does it as AVX-512."""


@pytest.mark.parametrize("level", LEVELS)
def test_every_entry_is_that_of_the_table(level: str, tmp_path: Path) -> None:
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("there is no C++ compiler")
    if kernels.library(level) is None:
        pytest.skip(f"this processor has no {level}")
    source, built = NATIVE / LEVELS[level], tmp_path / "octave.so"
    code = source.read_text().replace('#include "kernels.h"\n', '#include "kernels.h"\n' + EXPORTED)
    (tmp_path / source.name).write_text(code)
    subprocess.run([compiler, *FLAGS, "-I", NATIVE, tmp_path / source.name, "-o", built], check=True)
    table = np.array(tables.exp2_table(), dtype=np.int32)
    steps = np.arange(len(table), dtype=np.float32)
    steps = np.concatenate([steps, np.nextafter(steps[1:], 0), np.float32([30000, 1e30, np.inf, len(table), 0.99])])
    steps = np.concatenate([steps, np.zeros(-len(steps) % 16, np.float32)])
    octave, found = np.array(tables.exp2_octave(), dtype=np.int32), np.empty(len(steps), np.int32)
    pointers = (array.ctypes.data_as(ctypes.c_void_p) for array in (steps, found))
    ctypes.CDLL(str(built)).exponentials_of_steps(
        octave.ctypes.data_as(ctypes.c_void_p), ctypes.c_int64(len(steps)), *pointers
    )
    assert np.array_equal(found, table[np.minimum(steps, len(table) - 1).astype(np.int64)])
