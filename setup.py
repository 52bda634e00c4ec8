"""Builds the compiled kernels of the exact engine and the compiled mixer; everything else is in pyproject.toml.

They are optional: without a C++ compiler llmzip computes the same bits with torch and numba, several times slower. Only
where there is no constriction (pyproject.toml) is the library of the mixer needed: the coder is in it.
"""

import hashlib
from pathlib import Path

from setuptools import Extension, setup


def library(name: str, folder: str) -> Extension:
    """All sources of a folder as one library, which tells their digest: llmzip/system/libraries.py compares it."""
    files = sorted(file for file in (Path(__file__).parent / folder).iterdir() if file.suffix in (".cpp", ".h"))
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]
    return Extension(
        name,
        [f"{folder}/{file.name}" for file in files if file.suffix == ".cpp"],
        define_macros=[("LLMZIP_SOURCES", f'"{digest}"')],
        depends=[f"{folder}/{file.name}" for file in files if file.suffix == ".h"],
        # No contraction, no fast-math: each operation rounds once. The other two only free the compiler from exceptions
        # of the floating-point unit, which nobody looks at.
        extra_compile_args=[
            "-std=c++17", "-O3", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-fno-exceptions",
            "-fno-rtti", "-Wno-psabi",
        ],
        optional=True,
    )  # fmt: skip


setup(
    ext_modules=[
        library("llmzip.engines.cpu.native._kernels", "llmzip/engines/cpu/native"),
        library("llmzip.mixing.native._mixer", "llmzip/mixing/native"),
    ]
)
