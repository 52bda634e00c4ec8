"""Tensors of checkpoints in the Hugging Face layout; must not know what they mean."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from ..errors import ModelNotFoundError, ModelUnsupportedError
from . import layout
from .gguf.tensors import GgufTensors
from .mishaps import reason


def open_tensors(place: Path) -> Mapping[str, torch.Tensor]:
    """Opens the tensors of a checkpoint's folder or of a GGUF file, by the checkpoint's names.

    Raises:
        ModelNotFoundError, ModelUnsupportedError: those of `Tensors` and `GgufTensors`.
    """
    return GgufTensors(place) if layout.is_gguf(place) else Tensors(place)


class Tensors(Mapping[str, torch.Tensor]):
    """The tensors of a checkpoint by name, from one or several safetensors files; each is read on access.

    A tensor is a view of the file, which is opened for it alone: what was read of a file that stays open would stay in
    memory, too, and in the end that would be the whole checkpoint.

    Args:
        folder: of the checkpoint.

    Raises:
        ModelNotFoundError: no safetensors in the folder, or a file that its index lists is missing.
        ModelUnsupportedError: a file that cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        names = [path.name for path in folder.glob("*")]
        files = [folder / name for name in layout.weight_files(folder, names)]
        if not files:
            hint = " (pickled weights are refused: they can run code)" if list(folder.glob("*.bin")) else ""
            raise ModelNotFoundError(f"model {folder}: no .safetensors file in this folder{hint}")
        self._files: dict[str, Path] = {}
        for file in files:
            try:
                with safe_open(file, framework="pt") as reader:
                    self._files |= dict.fromkeys(reader.keys(), file)
            except FileNotFoundError:
                raise ModelNotFoundError(
                    f"model {folder}: {file.name} is missing: the download is incomplete"
                ) from None
            except (OSError, SafetensorError) as error:
                raise ModelUnsupportedError(f"{file.name} cannot be read: {reason(file, error)}") from None

    def __getitem__(self, name: str) -> torch.Tensor:
        file = self._files[name]
        try:
            with safe_open(file, framework="pt") as reader:
                tensor: torch.Tensor = reader.get_tensor(name)
        except (OSError, SafetensorError) as error:
            raise ModelUnsupportedError(f"weights: tensor {name} cannot be read: {error}") from None
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)
