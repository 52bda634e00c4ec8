"""Checks that masses and archives are the golden bits under every instruction set and library setting, in processes."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import llmzip

GOLDEN = Path(__file__).parents[1] / "contract" / "golden" / "engine.json"
SCRIPT = Path(__file__).with_name("transcript.py")
X86 = platform.machine().lower() in ("x86_64", "amd64")

SETTINGS: dict[str, dict[str, str]] = {
    "plain": {},
    "ATen AVX2": {"ATEN_CPU_CAPABILITY": "avx2"},
    "ATen default": {"ATEN_CPU_CAPABILITY": "default"},
    "oneDNN AVX2": {"ONEDNN_MAX_CPU_ISA": "AVX2"},
    "oneDNN SSE4.1": {"ONEDNN_MAX_CPU_ISA": "SSE41"},
    "MKL AVX2": {"MKL_ENABLE_INSTRUCTIONS": "AVX2"},
    "MKL SSE4.2": {"MKL_ENABLE_INSTRUCTIONS": "SSE4_2"},
    "all lowest": {
        "ATEN_CPU_CAPABILITY": "default",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
    },
    "one thread": {"OMP_NUM_THREADS": "1"},
    "kernels for AVX2": {"LLMZIP_KERNELS": "avx2"},
    "kernels for AVX-512": {"LLMZIP_KERNELS": "avx512"},
    "no kernels": {"LLMZIP_KERNELS": "none"},
    "oneDNN bfloat16": {"DNNL_DEFAULT_FPMATH_MODE": "BF16", "ONEDNN_DEFAULT_FPMATH_MODE": "BF16"},
}
NAMES = {name for setting in SETTINGS.values() for name in setting}


def transcript(setting: dict[str, str]) -> dict[str, Any]:
    """What the script prints under a setting; everything else that could choose an instruction set is unset."""
    kept = {name: value for name, value in os.environ.items() if name not in NAMES}
    path = os.pathsep.join(filter(None, [str(Path(llmzip.__file__).parents[1]), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, str(SCRIPT)],
        env={**kept, "PYTHONPATH": path, "OMP_NUM_THREADS": "2", **setting},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def golden() -> dict[str, str]:
    """The stored hashes; LLMZIP_UPDATE_GOLDEN=1 stores new ones first."""
    if os.environ.get("LLMZIP_UPDATE_GOLDEN") == "1":
        hashes = transcript({})["hashes"]
        GOLDEN.write_text(json.dumps(hashes, indent=2) + "\n", encoding="ascii")
    return json.loads(GOLDEN.read_text(encoding="ascii"))


@pytest.mark.parametrize("name", SETTINGS)
def test_hashes_are_the_golden_ones(name: str, golden: dict[str, str]) -> None:
    setting = SETTINGS[name]
    found = transcript(setting)
    assert found["hashes"] == golden
    # A setting that nobody heeds would prove nothing.
    assert found["setting"]["threads"] == int(setting.get("OMP_NUM_THREADS", "2"))
    capability = setting.get("ATEN_CPU_CAPABILITY")
    if X86 and capability:
        assert found["setting"]["capability"].lower() == capability
    if X86 and "ONEDNN_MAX_CPU_ISA" in setting:
        # Without VNNI the native products saturate; the self-test must have seen that.
        assert "int8 products: float" in found["setting"]["products"]


def test_golden_hashes_differ_from_each_other(golden: dict[str, str]) -> None:
    assert len(set(golden.values())) == len(golden) >= 5
    assert all(len(value) == 64 for value in golden.values())
