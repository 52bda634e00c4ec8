"""That a processor passed the self-test, kept so that not every run repeats it; must not know models.

The test takes a tenth of a second. What it depends on is the file's name: the engine's source and the compiled
library, torch's build, the processor, and the settings in the environment that choose instructions or libraries. Only
a test that was passed is kept. GPUs are tested each time: their drivers change without a trace here.
"""

from __future__ import annotations

import functools
import hashlib
import os
import platform
from pathlib import Path

import torch

from ..numerics import ops
from ..system import cache, processor
from . import selftest
from .cpu import kernels

_COMPUTING = ("numerics", "models", "engines")
_VARIABLES = (
    "ATEN_", "BLIS_", "DNNL_", "GLIBC_", "GOMP_", "KMP_", "LD_", "LLMZIP_", "MKL_", "OMP_", "ONEDNN_", "OPENBLAS_",
    "TORCH_",
)  # fmt: skip
"""How the names of variables begin that may change how torch, its libraries or the kernels compute."""

_PROCESSOR = ("vendor_id", "cpu family", "model", "stepping", "microcode", "flags", "CPU ", "Features")
"""How the names of facts begin that tell processors apart; other facts change all the time."""


@functools.cache
def check(device: torch.device) -> str:
    """As `selftest.check`, but on a CPU only if the same software has not passed it on the same processor before.

    Returns:
        why it will be run the next time too, if that is so for want of a place to keep the result.
    """
    path = _place() if device.type == "cpu" else None
    if path is not None and _holds(path):
        return ""
    is_sound = selftest.check(device)
    if device.type != "cpu" or not is_sound:
        return ""
    if path is not None and cache.replace(path, lambda name: Path(name).write_text(selftest.TRANSCRIPT, "ascii")):
        return ""
    return "without a cache folder that can be written, so that each run tests the processor anew"


def _holds(path: Path) -> bool:
    try:
        return path.read_bytes() == selftest.TRANSCRIPT.encode()
    except OSError:
        return False


def _place() -> Path | None:
    folder = cache.folder("selftest")
    if folder is None:
        return None
    try:
        return folder / hashlib.sha256("\n".join(_facts()).encode("utf-8", "surrogateescape")).hexdigest()[:32]
    except OSError:
        return None


def _facts() -> list[str]:
    """All that the result depends on."""
    package = Path(__file__).parents[1]
    sources = (file for name in _COMPUTING for file in (package / name).rglob("*.py"))
    files = [*sources, *kernels.FOLDER.glob(f"{kernels.STEM}*.*")]
    library = Path(torch.__file__).parent / "lib"
    return [
        selftest.TRANSCRIPT,
        *(hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(files)),
        # Torch's libraries are too large to read: when they were installed, and what they say of themselves.
        *(f"{file.name} {file.stat().st_size} {file.stat().st_mtime_ns}" for file in sorted(library.glob("libtorch*"))),
        torch.__version__,
        torch.__config__.show(),  # with the processor's capability, as torch sees it
        f"{torch.get_num_threads()} {ops._precision_settings()} {torch.get_default_dtype()}",
        *(platform.system(), platform.release(), platform.version(), platform.machine()),
        *_processor(),
        *(f"{name}={value}" for name, value in sorted(os.environ.items()) if name.startswith(_VARIABLES)),
    ]


def _processor() -> list[str]:
    """Returns what tells this processor from others."""
    known = [f"{name}: {value}" for name, value in processor.facts().items() if name.startswith(_PROCESSOR)]
    return known or [processor.name()]
