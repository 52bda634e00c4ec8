"""Builds the compiled kernels of the exact engine; everything else is in pyproject.toml.

They are optional: without a C++ compiler llmzip computes the same bits with plain torch, several times slower.
"""

import hashlib
from pathlib import Path

from setuptools import Extension, setup

NATIVE = "llmzip/engines/native"
HEADERS = ("attention", "kernels", "model", "products", "stages", "sums", "vectors")


def sources() -> str:
    """What engines/kernels.py compares, lest a library of other sources is used."""
    files = sorted(file for file in (Path(__file__).parent / NATIVE).iterdir() if file.suffix in (".cpp", ".h"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


setup(
    ext_modules=[
        Extension(
            "llmzip.engines.native._kernels",
            [f"{NATIVE}/{name}.cpp" for name in ("amx", "avx512", "avx2", "level")],
            define_macros=[("LLMZIP_SOURCES", f'"{sources()}"')],
            depends=[f"{NATIVE}/{name}.h" for name in HEADERS],
            # No contraction, no fast-math: each operation rounds once. The other two only free the compiler from
            # exceptions of the floating-point unit, which nobody looks at.
            extra_compile_args=[
                "-std=c++17", "-O3", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-fno-exceptions",
                "-fno-rtti", "-Wno-psabi",
            ],
            optional=True,
        )
    ]
)  # fmt: skip
