"""Checkpoints: everything a training needs to continue at the same bits. Must not know how it trains.

A checkpoint is one safetensors file, `step-NNNNNNNN.safetensors`, with JSON in its metadata. It is written under
another name and renamed, and only then is the one before removed: whenever the process dies, a whole one is left.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..errors import LLMZipError

FOLDER = "unfinished"
"""Name of the folder for checkpoints and tokens, inside the model's folder."""

_VERSION = 1
_PREFIX = "step-"
_SUFFIX = ".safetensors"


def save(folder: Path, step: int, tensors: Mapping[str, torch.Tensor], facts: Mapping[str, Any]) -> None:
    """Writes a checkpoint and removes older ones.

    Raises:
        LLMZipError: it cannot be written; the one before is kept.
    """
    path = folder / f"{_PREFIX}{step:08}{_SUFFIX}"
    unfinished = folder / f"{_PREFIX}{step:08}.tmp"
    stored = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    metadata = {"llmzip": json.dumps({"version": _VERSION, "step": step, "digest": _digest(stored), **facts})}
    try:
        save_file(stored, unfinished, metadata)
        _sync(unfinished)
        os.replace(unfinished, path)
        _sync(folder)
    except (OSError, SafetensorError) as error:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        kept = _steps(folder)
        last = f"; that of step {kept[-1]:,} is kept" if kept else ""
        raise LLMZipError(f"{folder}: the checkpoint of step {step:,} cannot be written: {error}{last}") from None
    for old in _steps(folder)[:-1]:
        (folder / f"{_PREFIX}{old:08}{_SUFFIX}").unlink(missing_ok=True)


def load(folder: Path) -> tuple[int, dict[str, torch.Tensor], dict[str, Any]]:
    """Reads the newest checkpoint; returns its step, tensors and facts.

    Raises:
        LLMZipError: there is none, or it is damaged or of another version.
    """
    steps = _steps(folder)
    if not steps:
        raise LLMZipError(f"{folder.parent}: no unfinished training here")
    path = folder / f"{_PREFIX}{steps[-1]:08}{_SUFFIX}"
    try:
        with safe_open(path, framework="pt") as reader:
            facts = json.loads((reader.metadata() or {})["llmzip"])
            tensors = {name: reader.get_tensor(name) for name in reader.keys()}  # noqa: SIM118 - not a dict
        version = facts.pop("version")
        step = int(facts.pop("step"))
        digest = facts.pop("digest", "")
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise LLMZipError(f"{path}: this checkpoint cannot be read: {error}") from None
    if version != _VERSION:
        raise LLMZipError(f"{path}: a checkpoint of version {version}, this llmzip reads version {_VERSION}")
    if digest != _digest(tensors):
        raise LLMZipError(f"{path}: this checkpoint is damaged: its digest is wrong")
    return step, tensors, facts


def remove(folder: Path) -> None:
    """Removes all checkpoints of a folder, the newest last."""
    for step in _steps(folder):
        (folder / f"{_PREFIX}{step:08}{_SUFFIX}").unlink()


def exists(folder: Path) -> bool:
    """Whether there is a checkpoint to continue from."""
    return bool(_steps(folder))


def restore(targets: Mapping[str, torch.Tensor], tensors: Mapping[str, torch.Tensor]) -> None:
    """Copies a checkpoint's tensors over those of a training.

    Raises:
        LLMZipError: the checkpoint is of another shape.
    """
    if targets.keys() != tensors.keys():
        odd = min(targets.keys() ^ tensors.keys())
        raise LLMZipError(f"the checkpoint is of a model of another shape: {odd} is only in one of them")
    for name, target in targets.items():
        if target.shape != tensors[name].shape or target.dtype != tensors[name].dtype:
            raise LLMZipError(
                f"the checkpoint is of a model of another shape: {name} is {tuple(tensors[name].shape)}, "
                f"not {tuple(target.shape)}"
            )
    with torch.no_grad():
        for name, target in targets.items():
            target.copy_(tensors[name])


def _digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """Returns the SHA-256 of names and values, in the order of the names."""
    sha = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        sha.update(name.encode() + b"\0")
        sha.update(tensor.flatten().view(torch.uint8).numpy().data)
    return sha.hexdigest()


def _steps(folder: Path) -> list[int]:
    """Returns the steps of all checkpoints in a folder, rising."""
    names = [path.name[len(_PREFIX) : -len(_SUFFIX)] for path in folder.glob(f"{_PREFIX}*{_SUFFIX}")]
    return sorted(int(name) for name in names if name.isdigit())


def _sync(path: Path) -> None:
    """Flushes a file or a folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
