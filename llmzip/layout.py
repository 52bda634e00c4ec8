"""The files of a checkpoint in the Hugging Face layout, and the int8 form's; imports no torch, knows no network."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from .errors import ModelNotFoundError, ModelUnsupportedError

CONFIG, INT8, WEIGHTS = "config.json", "model.llmzw", "model.safetensors"
INDEX = "model.safetensors.index.json"


def read_config(folder: Path) -> dict[str, Any]:
    """The config.json of a checkpoint.

    Raises:
        ModelNotFoundError: there is none.
        ModelUnsupportedError: it cannot be read.
    """
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelNotFoundError(f"model {folder}: no {CONFIG} in this folder") from None
    except (OSError, ValueError, RecursionError) as error:  # the last where it is nested too deep
        raise ModelUnsupportedError(f"{CONFIG} cannot be read: {error}") from None
    if not isinstance(config, dict):
        raise ModelUnsupportedError(f"{CONFIG} holds no object")
    return config


def weight_files(folder: Path, names: Collection[str]) -> list[str]:
    """Which files hold the weights: those that the index lists, or the one of the usual name, or all safetensors.

    Some repositories hold the same weights a second time under another name.

    Args:
        folder: where the index is, if there is one.
        names: of the files that there are.

    Raises:
        ModelUnsupportedError: an index that cannot be read.
    """
    if INDEX in names:
        try:
            index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
            return sorted({Path(name).name for name in index["weight_map"].values()})
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ModelUnsupportedError(f"{INDEX} cannot be read: {error}") from None
    return [WEIGHTS] if WEIGHTS in names else sorted(name for name in names if name.endswith(".safetensors"))
