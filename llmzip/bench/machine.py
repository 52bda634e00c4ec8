"""What the figures were measured on: processor, memory, versions, load; must not import torch or know compressors."""

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

_PACKAGE = Path(__file__).parents[1]
_PACKAGES = ("torch", "constriction", "numpy", "tokenizers", "zstandard", "brotli")
_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm", "sve")
_GIT_SECONDS = 10
_SOURCES = (".py", ".c", ".cpp", ".cu", ".h")
_NOT_IN_ARCHIVES = ("bench", "cli", "training", "embedded")


def facts() -> dict[str, Any]:
    """The machine now."""
    return {
        **_lasting(),
        "commit": _git("rev-parse", "HEAD"),
        "uncommitted_changes": None if (changes := _git("status", "--porcelain")) is None else bool(changes),
        "load_average": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def digest() -> str:
    """Of what lasts: figures of two machines must not be taken for those of one."""
    return hashlib.sha256(json.dumps(_lasting(), sort_keys=True).encode()).hexdigest()[:16]


@functools.cache
def code_digest() -> str:
    """Of the sources that can change a size or a speed: the version stays the same while a program is being written."""
    sha256 = hashlib.sha256()
    for file in sorted(file for file in _PACKAGE.rglob("*") if file.suffix in _SOURCES):
        if file.relative_to(_PACKAGE).parts[0] not in _NOT_IN_ARCHIVES:
            sha256.update(file.read_bytes())
    return sha256.hexdigest()[:16]


@functools.cache
def _lasting() -> dict[str, Any]:
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
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    lines: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        lines.setdefault(key.strip(), value.strip())
    known = set(lines.get("flags", lines.get("Features", "")).split())
    return lines.get("model name") or platform.processor() or platform.machine(), [f for f in _FLAGS if f in known]


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    """What git says of the sources; None if they are not in a repository of their own."""
    if not (_PACKAGE.parent / ".git").exists():
        return None
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(
            ["git", "-C", str(_PACKAGE.parent), "--no-optional-locks", *arguments],
            capture_output=True, timeout=_GIT_SECONDS, check=True,
        )  # fmt: skip
        return done.stdout.decode("utf-8", "replace").strip()
    return None
