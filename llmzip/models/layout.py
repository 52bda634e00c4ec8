"""What a model's place holds: the files of a checkpoint, the int8 form or a GGUF file; imports no torch.

A place is a folder in the Hugging Face layout or with the int8 form, or a GGUF file, whose metadata and tensors are
read as those of the checkpoint that it was made from.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from ..errors import ModelError, ModelNotFoundError, ModelUnsupportedError
from .mishaps import reason

CONFIG = "config.json"
INT8 = "model.llmzw"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"


def is_gguf(place: Path) -> bool:
    """Whether a model's place is a GGUF file rather than a folder."""
    return place.is_file()


def model_files(place: Path) -> list[Path]:
    """Returns the files of a model: those that are directly in its folder, or the parts of a GGUF file.

    Raises:
        ModelUnsupportedError: a GGUF file that is not the first of its parts.
    """
    if is_gguf(place):
        from .gguf.reader import part_files

        return part_files(place)
    return sorted(file for file in place.iterdir() if file.is_file())


def read_config(place: Path) -> dict[str, Any]:
    """Reads a checkpoint's config.json, or what a GGUF file has in its place.

    Raises:
        ModelNotFoundError: it is missing.
        ModelUnsupportedError: it cannot be read.
    """
    if is_gguf(place):
        from .gguf.architectures import config as gguf_config
        from .gguf.reader import open_gguf

        return gguf_config(open_gguf(place))
    try:
        config = json.loads((place / CONFIG).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelNotFoundError(f"model {place}: no {CONFIG} in this folder{_hint(place)}") from None
    except (OSError, ValueError, RecursionError) as error:  # the last if it is nested too deep
        raise ModelUnsupportedError(f"{CONFIG} cannot be read: {reason(place / CONFIG, error)}") from None
    if not isinstance(config, dict):
        raise ModelUnsupportedError(f"{CONFIG} is not a JSON object")
    return config


def _hint(folder: Path) -> str:
    """Returns what to do about a folder that holds something else than a checkpoint; "" if that is not known."""
    if (folder / "adapter_config.json").exists():
        return "; it has an adapter: merge it into its model first"
    names = sorted(path.name for path in folder.glob("*.gguf"))
    return f"; it has a GGUF file: name that one, --model {folder / names[0]}" if names else ""


def config_or_empty(folder: Path) -> dict[str, Any]:
    """Reads a checkpoint's config.json; returns {} if it is missing or unreadable."""
    try:
        return read_config(folder)
    except ModelError:
        return {}


def weight_files(folder: Path, names: Collection[str]) -> list[str]:
    """Returns which files hold the weights: those that the index lists, or the usual one, or all safetensors.

    Some repositories hold the same weights a second time under another name.

    Args:
        folder: where the index is, if there is one.
        names: all files of the model.

    Raises:
        ModelUnsupportedError: an index that cannot be read.
    """
    if INDEX in names:
        try:
            index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
            return sorted({Path(name).name for name in index["weight_map"].values()})
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ModelUnsupportedError(f"{INDEX} cannot be read: {reason(folder / INDEX, error)}") from None
    return [WEIGHTS] if WEIGHTS in names else sorted(name for name in names if name.endswith(".safetensors"))
