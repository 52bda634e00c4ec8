"""File names of checkpoints in the Hugging Face layout and of the int8 form; imports no torch, knows no network."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from ..errors import ModelError, ModelNotFoundError, ModelUnsupportedError

CONFIG = "config.json"
INT8 = "model.llmzw"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"

_HEAD_BYTES = 512
"""Bytes of a file that are looked at for well-known mishaps."""


def reason(file: Path, error: object) -> str:
    """Returns why a file cannot be read: the mishap if it is a well-known one, else the error."""
    return mishap(file) or str(error)


def mishap(file: Path) -> str:
    """Returns what a failed download left in a file's place; "" if it is none of the well-known things."""
    try:
        with open(file, "rb") as opened:
            head = opened.read(_HEAD_BYTES)
    except OSError:
        return ""
    if not head:
        return "it is empty: the download is incomplete"
    if head.startswith(b"version https://git-lfs.github.com/"):
        return "it is a pointer of git-lfs, not the file itself: `git lfs pull` in the repository fetches the file"
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html", b"<?xml", b"<!--", b"<head")):
        return "it is a web page, perhaps an error message, not the file itself: download it again"
    return ""


def read_config(folder: Path) -> dict[str, Any]:
    """Reads a checkpoint's config.json.

    Raises:
        ModelNotFoundError: it is missing.
        ModelUnsupportedError: it cannot be read.
    """
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelNotFoundError(f"model {folder}: no {CONFIG} in this folder") from None
    except (OSError, ValueError, RecursionError) as error:  # the last if it is nested too deep
        raise ModelUnsupportedError(f"{CONFIG} cannot be read: {reason(folder / CONFIG, error)}") from None
    if not isinstance(config, dict):
        raise ModelUnsupportedError(f"{CONFIG} is not a JSON object")
    return config


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
