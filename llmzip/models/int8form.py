"""The int8 form on the disk: a file `model.llmzw` of version 1 or 2 (docs/weights.md). Must not know checkpoints.

It holds the fields of ExactConfig, int8 matrices `NAME_q`, float32 row scales `NAME_scale`, float32 norms and biases.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .._version import NUMERICS_VERSION
from ..errors import ModelUnsupportedError
from . import mappedfile, weightfile
from .assembly import assemble
from .config import ExactConfig
from .layout import INT8
from .matrix import Int8Matrix
from .mishaps import mishap
from .model import ExactModel


class Facts(NamedTuple):
    """What a weight file says of its model.

    Attributes:
        config: fields of the configuration, not checked.
        num_values: numbers that its tensors have, scales included.
    """

    config: dict[str, Any]
    num_values: int


def save_int8(model: ExactModel, folder: Path) -> None:
    """Writes the int8 form into a folder, whole or not at all: a file in its place may be mapped.

    Raises:
        OSError: it cannot be written.
    """
    temporary = folder / f".{INT8}.{os.getpid()}"
    try:
        write_int8(model, temporary)
        os.replace(temporary, folder / INT8)
    finally:
        temporary.unlink(missing_ok=True)


def write_int8(model: ExactModel, path: Path) -> None:
    """Writes the int8 form to a new or empty file.

    Raises:
        OSError: it cannot be written.
    """
    tensors = model.tensors()
    with path.open("wb") as file:
        mappedfile.write(file, model.config.as_dict(), NUMERICS_VERSION, model.digest(), tensors, _layouts(model))


def _layouts(model: ExactModel) -> dict[str, str]:
    """Returns name -> layout of the matrices that are not written row by row.

    Kernels multiply by tiles, but look up rows of the embedding: one that is the head as well is written in both.
    """
    layouts = {
        name: mappedfile.TILES
        for name, tensor in model.tensors().items()
        if isinstance(tensor, Int8Matrix) and tensor.can_be_tiled
    }
    layouts.pop("positions_q", None)
    if "embedding_q" in layouts:
        layouts["embedding_q"] = mappedfile.BOTH if model.is_tied else mappedfile.ROWS
    return layouts


def load_int8(path: Path) -> ExactModel:
    """Reads the int8 form; the weights of a file of version 2 are mapped.

    Args:
        path: of model.llmzw.

    Raises:
        ModelUnsupportedError: it cannot be read, is damaged, or was made for another version of the numerics.
    """
    model, digest = read_int8(path)
    if digest is not None and model.digest() != digest:
        raise ModelUnsupportedError(f"{path.name}: damaged: the digest of its weights is wrong")
    return model


def read_int8(path: Path) -> tuple[ExactModel, bytes | None]:
    """Reads the int8 form without a look at most of the weights.

    Args:
        path: of model.llmzw.

    Returns:
        the model; and what its digest must be, which the caller compares, or None if there is nothing to compare.

    Raises:
        ModelUnsupportedError: as for `load_int8`.
    """
    digest = None
    tensors: Mapping[str, np.ndarray | Int8Matrix]
    with _reading(path):
        if mappedfile.is_mapped_form(path):
            header, tensors = mappedfile.read(path)
            config, numerics, digest = header.config, header.numerics, header.digest
        else:
            config, numerics, tensors = weightfile.unpack(path.read_bytes())
    if numerics != NUMERICS_VERSION:
        raise ModelUnsupportedError(f"made for numerics version {numerics}, this llmzip has version {NUMERICS_VERSION}")
    model = assemble(ExactConfig.from_dict(config), tensors.get)
    if digest is not None and (odd := tensors.keys() - model.tensors().keys()):  # no digest covers them
        raise ModelUnsupportedError(f"weights: unknown tensor {min(odd)}")
    return model, digest


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Raises ModelUnsupportedError for what keeps a weight file from being read, with the usual mishap if it is one."""
    try:
        yield
    except OSError as error:
        raise ModelUnsupportedError(f"{path.name} cannot be read: {error.strerror}") from None
    except ModelUnsupportedError as error:
        why = mishap(path)
        raise ModelUnsupportedError(f"{path.name} cannot be read: {why}" if why else str(error)) from None


def describe_int8(path: Path) -> Facts:
    """Returns what a weight file says of its model; of version 2, only the header is read.

    Raises:
        ModelUnsupportedError: it cannot be read, or is damaged.
    """
    with _reading(path):
        if mappedfile.is_mapped_form(path):
            header = mappedfile.read_header(path)
            return Facts(header.config, sum(entry.num_values for entry in header.entries))
        config, _, arrays = weightfile.unpack(path.read_bytes())
    return Facts(config, sum(array.size for array in arrays.values()))
