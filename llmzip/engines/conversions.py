"""Conversions of checkpoints, kept on the disk so that each is made once; must not know text.

A kept conversion is a shortcut and nothing else: its digest is compared when it is read, and one that is damaged, or
that cannot be written, is made anew.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from .._version import NUMERICS_VERSION
from ..errors import ModelUnsupportedError
from .config import ExactConfig
from .model import ExactModel, assemble
from .weights import load_model

_VERSION = 1
_LEAST_BYTES = 1 << 25
"""Of int8 weights; smaller models are converted in a blink."""


def load(
    folder: Path,
    context: int,
    start_token: int | None,
    planes: int | None,
    choose: Callable[[ExactModel], ExactModel],
) -> ExactModel:
    """The checkpoint in a folder as integers, from the last time if nothing has changed since.

    Args:
        folder: of a checkpoint in the Hugging Face layout.
        context, start_token: as in `weights.load_model`.
        planes: 1 or 2; None for what `choose` says.
        choose: gives the model with the number of planes that it should have.

    Raises:
        ModelError: as `weights.load_model`.
    """
    kept = _place(folder, context, start_token)
    model = None if kept is None else _read(kept)
    if model is None:
        model = choose(load_model(folder, 2, context, start_token)) if planes is None else None
        model = model or load_model(folder, planes or 2, context, start_token)
        # What was chosen is kept; what an archive asked for says nothing about what is best.
        if planes is None and kept is not None:
            _write(model, kept)
    if planes is not None and model.config.planes != planes:
        model = dataclasses.replace(model, config=dataclasses.replace(model.config, planes=planes))
    return model


def _place(folder: Path, context: int, start_token: int | None) -> Path | None:
    """Where a conversion is kept: named by the files that it comes from and by its settings."""
    sha = hashlib.sha256(f"{_VERSION} {NUMERICS_VERSION} {context} {start_token}\n".encode())
    try:
        for file in sorted([*folder.glob("*.safetensors"), *folder.glob("*.json")]):
            found = file.stat()
            sha.update(f"{file.resolve()}\0{found.st_size} {found.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
        base = os.environ.get("XDG_CACHE_HOME")
        return (Path(base) if base else Path.home() / ".cache") / "llmzip" / "models" / f"{sha.hexdigest()[:32]}.int8"
    except (OSError, RuntimeError):  # Path.home() raises the latter
        return None


def _read(path: Path) -> ExactModel | None:
    try:
        with safe_open(path, framework="pt") as reader:
            about = json.loads((reader.metadata() or {})["llmzip"])
            names = list(reader.keys())
            tensors = {name: reader.get_tensor(name) for name in names}
        model = assemble(ExactConfig.from_dict(about["config"]), tensors.get)
    except (OSError, SafetensorError, ModelUnsupportedError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return model if model.digest().hex() == about["digest"] else None


def _write(model: ExactModel, path: Path) -> None:
    tensors = {name: tensor.cpu().contiguous() for name, tensor in model.tensors().items()}
    if sum(tensor.numel() for tensor in tensors.values() if tensor.dtype == torch.int8) < _LEAST_BYTES:
        return
    about = json.dumps({"config": model.config.as_dict(), "digest": model.digest().hex()})
    with contextlib.suppress(OSError, SafetensorError):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".")
        os.close(descriptor)
        try:
            save_file(tensors, name, {"llmzip": about})
            os.replace(name, path)
        finally:
            Path(name).unlink(missing_ok=True)
