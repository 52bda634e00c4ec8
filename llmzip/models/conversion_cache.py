"""Conversions of checkpoints, kept on the disk so that each is made once; must not know text.

A kept conversion is a shortcut and nothing else: its digest is compared when it is read, and one that is damaged, or
that cannot be written, is made anew. Context, start token and planes do not change the weights, so one conversion
serves all; beside it lie the choices of planes that were measured.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from .._version import NUMERICS_VERSION
from ..errors import ModelUnsupportedError
from ..system import cache as kept_files
from . import families
from .config import ExactConfig
from .model import ExactModel, assemble
from .weights import load_model

_VERSION = 3
_LEAST_BYTES = 1 << 25
"""Of int8 weights; smaller models are converted in a blink."""


def load(
    folder: Path,
    context: int,
    start_token: int | None,
    planes: int | None,
    choose: Callable[[ExactModel], tuple[int, int]],
) -> ExactModel:
    """The checkpoint in a folder as integers, from the last time if nothing has changed since.

    Args:
        folder: of a checkpoint in the Hugging Face layout.
        context, start_token: as in `weights.load_model`.
        planes: 1 or 2; None for what `choose` says.
        choose: gives the number of planes that a model should have, and how many tokens of its context that took.

    Raises:
        ModelError: as `weights.load_model`.
    """
    kept = _place(folder)
    whole = None if kept is None else _read(kept)
    if whole is None:
        # With all positions, so that it serves whatever is asked for.
        whole = load_model(folder)
        if kept is not None:
            _write(whole, kept)
    first = whole.config.start_token if start_token is None else start_token
    try:
        model = whole.with_settings(planes or 2, min(context, whole.config.context), first)
    except ModelUnsupportedError as error:
        raise ModelUnsupportedError(f"model {folder}: {error}") from None
    return model if planes is not None else _with_chosen_planes(model, kept, choose)


def _with_chosen_planes(
    model: ExactModel, kept: Path | None, choose: Callable[[ExactModel], tuple[int, int]]
) -> ExactModel:
    """The model with the number of planes that was chosen for it before, or is chosen now."""
    config, path = model.config, None if kept is None else kept.with_suffix(".planes")
    number = None if path is None else _chosen(path, config)
    if number is None:
        number, tokens = choose(model)
        if path is not None and _is_large(model):
            found = [*_choices(path), [config.context, config.start_token, tokens, number]]
            kept_files.replace(path, lambda name: Path(name).write_text(json.dumps(found), encoding="ascii"))
    return model.with_settings(number, config.context, config.start_token)


def _chosen(path: Path, config: ExactConfig) -> int | None:
    """The number of planes that was chosen with these settings, or with others that gave the same tokens to look at."""
    for context, start_token, tokens, number in _choices(path):
        # Fewer tokens than the context holds are the whole text.
        same = context == config.context or (tokens < context and tokens <= config.context)
        if same and start_token == config.start_token and number in (1, 2):
            return number
    return None


def _choices(path: Path) -> list[list[int]]:
    """Choices so far: context, start token, tokens, planes."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return []
    if not isinstance(found, list):
        return []
    return [x for x in found if isinstance(x, list) and len(x) == 4 and all(type(value) is int for value in x)]


def _place(folder: Path) -> Path | None:
    """Where a conversion is kept: named by the files that it comes from."""
    sha = hashlib.sha256(f"{_VERSION} {NUMERICS_VERSION}\n".encode())
    try:
        for file in sorted([*folder.glob("*.safetensors"), *folder.glob("*.json")]):
            found = file.stat()
            sha.update(f"{file.resolve()}\0{found.st_size} {found.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
    except OSError:
        return None
    base = kept_files.folder("models")
    return None if base is None else base / f"{sha.hexdigest()[:32]}.int8"


def _read(path: Path) -> ExactModel | None:
    """The kept conversion; None if there is none, or one that is damaged in any way."""
    try:
        with safe_open(path, framework="pt") as reader:
            about = json.loads((reader.metadata() or {})["llmzip"])
            names = list(reader.keys())
            tensors = {name: reader.get_tensor(name) for name in names}
        model = assemble(ExactConfig.from_dict(about["config"]), tensors.get)
        return model if model.digest().hex() == about["digest"] else None
    except (OSError, SafetensorError, ModelUnsupportedError, RecursionError, *families.MISSTATED):
        return None


def _is_large(model: ExactModel) -> bool:
    return sum(t.numel() for t in model.tensors().values() if t.dtype == torch.int8) >= _LEAST_BYTES


def _write(model: ExactModel, path: Path) -> None:
    if not _is_large(model):
        return
    tensors = {name: tensor.cpu().contiguous() for name, tensor in model.tensors().items()}
    about = json.dumps({"config": model.config.as_dict(), "digest": model.digest().hex()})
    with contextlib.suppress(SafetensorError):
        kept_files.replace(path, lambda name: save_file(tensors, name, {"llmzip": about}))
