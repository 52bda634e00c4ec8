"""The machine that figures were measured on: processor, memory, versions, load. Imports no torch."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import time
from pathlib import Path
from typing import Any

from .._version import FORMAT_VERSION, __version__
from ..system import processor

_PACKAGE = Path(__file__).parents[1]
_PACKAGES = ("torch", "constriction", "numpy", "tokenizers", "zstandard", "brotli")
_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm", "sve")
_GIT_SECONDS = 10
_SOURCES = (".py", ".c", ".cpp", ".cu", ".h")
_NOT_IN_ARCHIVES = ("bench", "cli", "training", "embedded")  # packages that change neither sizes nor speeds


def facts() -> dict[str, Any]:
    """Returns what is known about the machine, and its load now."""
    return {
        **_lasting(),
        "commit": _git("rev-parse", "HEAD"),
        "uncommitted_changes": None if (changes := _git("status", "--porcelain")) is None else bool(changes),
        "load_average": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def digest() -> str:
    """Returns a digest of the machine's lasting facts, so that figures of two machines are kept apart."""
    return hashlib.sha256(json.dumps(_lasting(), sort_keys=True).encode()).hexdigest()[:16]


@functools.cache
def code_digest() -> str:
    """Returns a digest of the sources that can change a size or speed, because edits do not change the version."""
    sha256 = hashlib.sha256()
    for file in sorted(file for file in _PACKAGE.rglob("*") if file.suffix in _SOURCES):
        if file.relative_to(_PACKAGE).parts[0] not in _NOT_IN_ARCHIVES:
            sha256.update(file.read_bytes())
    return sha256.hexdigest()[:16]


@functools.cache
def _lasting() -> dict[str, Any]:
    """Returns the facts that stay the same from run to run."""
    model, flags = _processor()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = None
    with contextlib.suppress(ValueError, OSError, AttributeError):
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "llmzip": __version__,
        "archive_format": FORMAT_VERSION,
        "processor": model,
        "processor_flags": flags,
        "cores": cores,
        "memory_bytes": memory,
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
    }


def _processor() -> tuple[str, list[str]]:
    """Returns the name of the processor, and those of its features that the kernels use."""
    known = processor.instructions()
    return processor.name() or platform.machine(), [flag for flag in _FLAGS if flag in known]


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    """Returns what git prints about the sources; None if they are not in a repository of their own."""
    if not (_PACKAGE.parent / ".git").exists():
        return None
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(
            ["git", "-C", str(_PACKAGE.parent), "--no-optional-locks", *arguments],
            capture_output=True, timeout=_GIT_SECONDS, check=True,
        )  # fmt: skip
        return done.stdout.decode("utf-8", "replace").strip()
    return None
