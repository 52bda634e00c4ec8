"""From a model's folder to integer weights, whatever form it holds; must not know text.

A folder holds the int8 form, or a checkpoint in the Hugging Face layout; of both, the int8 form is taken. A GGUF file
is read as the checkpoint that it was made from. Only checkpoints need torch, which is imported for them alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ModelUnsupportedError
from .config import MAX_CONTEXT, MISSTATED
from .int8form import load_int8
from .layout import INT8, read_config
from .model import ExactModel

if TYPE_CHECKING:
    import torch


def is_int8(folder: Path) -> bool:
    """Whether a folder holds the int8 form, which takes precedence over a checkpoint next to it."""
    return (folder / INT8).exists()


def read_checkpoint(folder: Path) -> tuple[dict[str, Any], Mapping[str, torch.Tensor]]:
    """Returns a checkpoint's configuration and its tensors, each of which is read on access.

    Args:
        folder: with config.json and *.safetensors; or a GGUF file.

    Raises:
        ModelNotFoundError: no config or no safetensors in the folder.
        ModelUnsupportedError: files that cannot be read.
    """
    from .checkpoints import open_tensors

    return read_config(folder), open_tensors(folder)


def load_model(folder: Path, planes: int = 2, context: int = MAX_CONTEXT, start_token: int | None = None) -> ExactModel:
    """Loads the int8 form if the folder holds one, or converts a Hugging Face checkpoint of a supported shape.

    Args:
        folder: with model.llmzw, or with config.json and *.safetensors; or a GGUF file.
        planes: 1 or 2; this and the rest are for a checkpoint only, because the int8 form carries its own.
        context: maximum positions, cut to what the model was made for.
        start_token: id that each row begins with; None for the checkpoint's BOS, else its EOS, else 0.

    Raises:
        ModelNotFoundError: no config or no safetensors in the folder.
        ModelUnsupportedError: a shape, a setting or a value that cannot run exactly.
    """
    try:
        if is_int8(folder):
            return load_int8(folder / INT8)
        from .convert import convert

        config, tensors = read_checkpoint(folder)
        return convert(config, tensors, planes, context, start_token=start_token)
    except ModelUnsupportedError as error:
        raise ModelUnsupportedError(f"model {folder}: {error}") from None
    except MISSTATED as error:
        raise ModelUnsupportedError(f"model {folder}: its configuration lacks or misstates {error}") from None
