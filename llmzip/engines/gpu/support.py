"""Whether the Triton kernels are available on a device, and their modules; must not know models.

This module imports no torch. The modules of the kernels import Triton, so they are imported only when a device is
first asked about.
"""

from __future__ import annotations

import functools
import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ...system import libraries

if TYPE_CHECKING:
    import torch

_MIN_CAPABILITY = (8, 0)
"""Compute capability: Triton's int8 products need Ampere or newer."""

_MIN_TRITON = (3, 3)
"""Version of Triton."""

_MAX_ERROR_CHARACTERS = 120
"""Length of somebody else's error in a message of ours."""


@dataclass(frozen=True)
class Kernels:
    """The modules of the kernels, and the options of every launch."""

    attention: ModuleType
    products: ModuleType
    rowwise: ModuleType
    options: dict[str, Any]


def on(device: torch.device) -> AbstractContextManager[object]:
    """Makes a device the current one, on which kernels are launched."""
    import torch

    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def interpreted() -> bool:
    """Returns whether the kernels shall run on the CPU, in Triton's interpreter: for tests."""
    return os.environ.get("TRITON_INTERPRET") == "1" and libraries.wanted() == libraries.TRITON


def unavailable(device: torch.device) -> str:
    """Says why the kernels are not available on a device; empty if they are."""
    if libraries.wanted() == libraries.NONE:
        return f"{libraries.VARIABLE}={libraries.NONE}"
    if device.type == "cuda":
        import torch

        if torch.version.cuda is None:
            return "they are for NVIDIA devices only"
        capability = torch.cuda.get_device_capability(device)
        if capability < _MIN_CAPABILITY:
            return f"compute capability {_dotted(capability)} is below {_dotted(_MIN_CAPABILITY)}"
    return load()[1]


@functools.cache
def load() -> tuple[Kernels | None, str]:
    """Imports the modules of the kernels; returns None and the reason if that is impossible."""
    try:
        import triton

        version = tuple(int(part) for part in triton.__version__.split(".")[:2])
        if version < _MIN_TRITON:
            return None, f"Triton {triton.__version__} is older than {_dotted(_MIN_TRITON)}"
        from . import attention, primitives, products, rowwise
    except Exception as error:  # a Triton that does not fit its Python or torch fails in many ways
        return None, f"Triton cannot be imported: {one_line(error)}"
    return Kernels(attention, products, rowwise, primitives.OPTIONS), ""


def one_line(error: BaseException) -> str:
    """Shortens an error to one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _MAX_ERROR_CHARACTERS else f"{text[: _MAX_ERROR_CHARACTERS - 3]}..."


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
