"""A cache of passed self-tests, so that not every run repeats the test; must not know models.

The test takes a tenth of a second. A file's name is a hash of everything that the result depends on: the engine's
source and the compiled library, torch's build where torch computes, the processor, and the environment variables that
choose instructions or libraries. Only passed tests are stored. GPUs are tested each time, because their drivers change
without a trace here.
"""

from __future__ import annotations

import functools
import hashlib
import os
import platform
from pathlib import Path

import numpy as np

from ..system import cache, processor, threads
from . import selftest
from .arrays import HOST
from .cpu import kernels

_COMPUTING = ("numerics", "models", "engines")
"""Packages whose source the result depends on."""

_VARIABLES = (
    "ATEN_", "BLIS_", "DNNL_", "GLIBC_", "GOMP_", "KMP_", "LD_", "LLMZIP_", "MKL_", "OMP_", "ONEDNN_", "OPENBLAS_",
    "TORCH_",
)  # fmt: skip
"""Beginnings of the names of variables that may change how torch, its libraries or the kernels compute."""

_PROCESSOR = ("vendor_id", "cpu family", "model", "stepping", "microcode", "flags", "CPU ", "Features")
"""Beginnings of the names of facts that tell processors apart; other facts change all the time."""


@functools.cache
def check(device: str, *, by_torch: bool = False) -> str:
    """Runs `selftest.check`, on a CPU only if the same software has not passed it on the same processor before.

    Args:
        device, by_torch: as for `selftest.check`.

    Returns:
        Why the next run will repeat it, if the result could not be stored; else an empty string.
    """
    by_torch = by_torch or kernels.chosen()[0] is None
    path = _place(by_torch) if device == HOST else None
    if path is not None and _holds(path):
        return ""
    is_sound = selftest.check(device, by_torch=by_torch)
    if device != HOST or not is_sound:
        return ""
    if path is not None and cache.replace(path, lambda name: Path(name).write_text(selftest.TRANSCRIPT, "ascii")):
        return ""
    return "without a writable cache folder, so each run repeats the self-test"


def _holds(path: Path) -> bool:
    try:
        return path.read_bytes() == selftest.TRANSCRIPT.encode()
    except OSError:
        return False


def _place(by_torch: bool) -> Path | None:
    folder = cache.folder("selftest")
    if folder is None:
        return None
    try:
        return folder / hashlib.sha256("\n".join(_facts(by_torch)).encode("utf-8", "surrogateescape")).hexdigest()[:32]
    except OSError:
        return None


def _facts(by_torch: bool) -> list[str]:
    """Returns everything that the result depends on."""
    package = Path(__file__).parents[1]
    sources = (file for name in _COMPUTING for file in (package / name).rglob("*.py"))
    files = [*sources, *kernels.FOLDER.glob(f"{kernels.STEM}*.*")]
    return [
        selftest.TRANSCRIPT,
        *(hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(files)),
        f"{np.__version__} {threads.count()}",
        *(_torch_facts() if by_torch else ()),
        *(platform.system(), platform.release(), platform.version(), platform.machine()),
        *_processor(),
        *(f"{name}={value}" for name, value in sorted(os.environ.items()) if name.startswith(_VARIABLES)),
    ]


def _torch_facts() -> list[str]:
    """Returns what decides about how torch computes."""
    import torch

    from ..numerics import ops

    library = Path(torch.__file__).parent / "lib"
    return [
        # Torch's libraries are too large to read: the size and time of installation of each stand for it.
        *(f"{file.name} {file.stat().st_size} {file.stat().st_mtime_ns}" for file in sorted(library.glob("libtorch*"))),
        torch.__version__,
        torch.__config__.show(),  # with the processor's capability, as torch sees it
        f"{ops._precision_settings()} {torch.get_default_dtype()}",
    ]


def _processor() -> list[str]:
    """Returns what tells this processor from others."""
    known = [f"{name}: {value}" for name, value in processor.facts().items() if name.startswith(_PROCESSOR)]
    return known or [processor.name()]
