"""What the machine can do: number format, compiling, speed. Must not know texts, checkpoints or plans."""

from __future__ import annotations

import importlib.util
import os
import resource
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

_MATRIX = 1536
"""Rows and columns of the products that a CPU's speed is measured on; six times that on a GPU."""

_SMALL_MATRIX = 384
"""The same for comparing number formats: where bfloat16 is emulated, large products take half a minute."""

_RUNS = 5
"""Runs of each product for the speed."""

_DTYPE_RUNS = 30
"""Runs of each number format; about 20 ms in all, half a second where bfloat16 is emulated."""

_BF16_GAIN = 1.3
"""How much faster than float32 bfloat16 must be to be used on a CPU: some only emulate it."""

_SLOW_SECONDS = 1.0
"""A call that takes so long is measured once."""

_CACHE_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"
_COMPILERS = ("g++", "clang++", "c++")


def synchronise(device: torch.device) -> None:
    """Waits until the device has done all its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def matrix_flops(device: torch.device, dtype: torch.dtype) -> float:
    """Measures the floating-point operations per second of large square matrix products: the best of a few runs."""
    size = _MATRIX * (6 if device.type == "cuda" else 1)
    return 2 * size**3 / min(_product_seconds(device, _square(device, dtype, size)) for _ in range(_RUNS + 1))


def choose_dtype(device: torch.device) -> torch.dtype:
    """Returns bfloat16 where the device computes it in hardware, else float32.

    The weights at the end depend on this choice, so other programs on the machine must not change it. Hence products on
    one thread (two threads of which one has lost its core wait for each other), the formats in turn (a load that comes
    and goes slows both), and the best of many runs of less than a scheduler's time slice.
    """
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        operands = {dtype: _square(device, dtype, _SMALL_MATRIX) for dtype in (torch.bfloat16, torch.float32)}
        best = dict.fromkeys(operands, float("inf"))
        for _ in range(_DTYPE_RUNS):
            for dtype, operand in operands.items():
                best[dtype] = min(best[dtype], _product_seconds(device, operand))
    finally:
        torch.set_num_threads(threads)
    return torch.bfloat16 if best[torch.float32] / best[torch.bfloat16] >= _BF16_GAIN else torch.float32


def _square(device: torch.device, dtype: torch.dtype, size: int) -> torch.Tensor:
    return torch.randn(size, size, device=device).to(dtype)


def _product_seconds(device: torch.device, operand: torch.Tensor) -> float:
    """Measures the time of one product of a square matrix with itself."""
    synchronise(device)
    start = time.perf_counter()
    torch.mm(operand, operand)
    synchronise(device)
    return time.perf_counter() - start


def can_compile(device: torch.device) -> bool:
    """Whether torch.compile has what it needs here: Triton for CUDA, a C++ compiler for the CPU."""
    if device.type == "cuda":
        return importlib.util.find_spec("triton") is not None
    return any(shutil.which(name) for name in _COMPILERS)


def compile_in(folder: Path) -> None:
    """Makes torch.compile keep its files in a folder of this training alone.

    The cache that all programs of a user share may hold what a killed process left half written, and that breaks every
    later run; here each process begins with an empty one.
    """
    if os.environ.get(_CACHE_VARIABLE) != str(folder):
        shutil.rmtree(folder, ignore_errors=True)
        os.environ[_CACHE_VARIABLE] = str(folder)


def seconds_per_call(device: torch.device, call: Callable[[], Any], calls: int = 3) -> float:
    """Measures the median time of some calls after one that compiles and fills caches, or of that one if it is slow."""
    times: list[float] = []
    for _ in range(calls + 1):
        synchronise(device)
        start = time.perf_counter()
        call()
        synchronise(device)
        times.append(time.perf_counter() - start)
        if times[0] >= _SLOW_SECONDS:
            return times[0]
    return sorted(times[1:])[calls // 2]


def peak_bytes(device: torch.device) -> int:
    """Returns the memory that this process has taken at most so far, on a GPU that of its tensors, in bytes."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
