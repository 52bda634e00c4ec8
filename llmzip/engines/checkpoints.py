"""Checkpoints in the Hugging Face layout on the disk: configuration and tensors; must not know what they mean."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from ..errors import ModelNotFoundError, ModelUnsupportedError


def read_config(folder: Path) -> dict[str, Any]:
    """The config.json of a checkpoint.

    Raises:
        ModelNotFoundError: there is none.
        ModelUnsupportedError: it cannot be read.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelNotFoundError(f"model {folder}: no config.json in this folder") from None
    except (OSError, ValueError) as error:
        raise ModelUnsupportedError(f"config.json cannot be read: {error}") from None
    if not isinstance(config, dict):
        raise ModelUnsupportedError("config.json holds no object")
    return config


class Tensors(Mapping[str, torch.Tensor]):
    """The tensors of a checkpoint by name, from one or several safetensors files; each is read when it is asked for.

    Args:
        folder: of the checkpoint.

    Raises:
        ModelNotFoundError: no safetensors in the folder.
        ModelUnsupportedError: a file that cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        files = _weight_files(folder)
        if not files:
            hint = " (pickled weights are refused: they can run code)" if list(folder.glob("*.bin")) else ""
            raise ModelNotFoundError(f"model {folder}: no .safetensors file in this folder{hint}")
        self._places: dict[str, Any] = {}
        for file in files:
            try:
                reader = safe_open(file, framework="pt")
                self._places |= dict.fromkeys(reader.keys(), reader)  # type: ignore[no-untyped-call]
            except FileNotFoundError:
                raise ModelNotFoundError(
                    f"model {folder}: {file.name} is missing: the download is not complete"
                ) from None
            except (OSError, SafetensorError) as error:
                raise ModelUnsupportedError(f"{file.name} cannot be read: {error}") from None

    def __getitem__(self, name: str) -> torch.Tensor:
        try:
            tensor: torch.Tensor = self._places[name].get_tensor(name)
        except SafetensorError as error:
            raise ModelUnsupportedError(f"weights: tensor {name} cannot be read: {error}") from None
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def _weight_files(folder: Path) -> list[Path]:
    """What the index lists, or the one file of the usual name, or else every safetensors file there is.

    Some repositories hold the same weights a second time under another name.
    """
    try:
        index = json.loads((folder / "model.safetensors.index.json").read_text(encoding="utf-8"))
        return sorted({folder / Path(name).name for name in index["weight_map"].values()})
    except FileNotFoundError:
        usual = folder / "model.safetensors"
        return [usual] if usual.is_file() else sorted(folder.glob("*.safetensors"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelUnsupportedError(f"model.safetensors.index.json cannot be read: {error}") from None
